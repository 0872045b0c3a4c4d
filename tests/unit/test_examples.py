"""Every example does what it says. Loaded as ``penstock run examples/NAME.py:app`` loads it."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from penstock.loading import load_app
from penstock.plan import plans
from penstock.testing import Kit

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(p.stem for p in EXAMPLES.glob("*.py") if not p.stem.startswith("test_"))

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Load]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("LEDGER", str(tmp_path / "ledger"))
    monkeypatch.setenv("DATABASE", str(tmp_path / "clicks.db"))
    monkeypatch.setenv("ARCHIVE", str(tmp_path / "archive"))
    loaded: list[str] = []

    def by_name(name: str) -> ModuleType:
        load_app(f"{EXAMPLES / name}.py:app")
        loaded.append(name)
        return sys.modules[name]

    yield by_name
    for name in loaded:
        del sys.modules[name]


def test_every_example_is_tested_here_or_beside_it() -> None:
    here = {name.removeprefix("test_the_example_") for name in globals()}
    beside = {p.stem.removeprefix("test_") for p in EXAMPLES.glob("test_*.py")}
    assert set(NAMES) <= here | beside


@pytest.mark.parametrize("name", NAMES)
def test_a_service_could_run_it(
    load: Load, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    app = load(name).app
    app.settings["bootstrap_servers"] = "localhost:9092"
    assert plans(app)
    if name == "orders":
        sys.modules[name].ledger.close()


def test_the_example_orders(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    orders = load("orders")
    kit = Kit(orders.app)
    monkeypatch.setattr(time, "sleep", kit.spend)
    for number in range(3):
        kit.send("orders", b"0 %d" % number)
    kit.run()
    orders.ledger.close()
    noted = [line.split()[:3] for line in (tmp_path / "ledger").read_bytes().splitlines()]
    assert noted == [[b"0", b"%d" % n, b"%d" % n] for n in range(3)]
    assert kit.now == pytest.approx(0.003)


def test_the_example_typed(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    typed = load("typed")
    kit = Kit(typed.app)
    good = {"article": "bolt", "pieces": 40, "at": "2026-03-01T08:00:00Z"}
    kit.send_json("deliveries", good)
    kit.send_json("deliveries", good | {"pieces": 0})
    kit.send_json("deliveries", good | {"pieces": 2})
    kit.run()
    assert typed.stock == {"bolt": 42}
    assert len(kit.dead_letters("deliveries.dead")) == 1
    assert "deliveries[0]@2: 2 of bolt, delivered 01 March" in capsys.readouterr().out


def test_the_example_batches(load: Load, tmp_path: Path) -> None:
    kit = Kit(load("batches").app)
    for number in range(2_500):
        kit.send("clicks", b"/page/%d" % number)
    kit.run(until=lambda: len(kit.batches) == 2)
    kit.crash()
    kit.run()
    assert [len(batch) for batch in kit.batches] == [1_000, 1_000, 1_000, 1_000, 500]
    assert len(kit.repeated) == 2_000
    with closing(sqlite3.connect(tmp_path / "clicks.db")) as database:
        [[rows, pages]] = database.execute("SELECT count(*), count(DISTINCT page) FROM clicks")
    assert (rows, pages) == (2_500, 2_500)


def test_the_example_coroutines(load: Load) -> None:
    coroutines = load("coroutines")
    kit = Kit(coroutines.app, seed=1)
    for number in range(1_000):
        kit.send("messages", b"%d" % number, key=b"%d" % (number % 250))
    kit.run()
    assert kit.now == pytest.approx(4 * 0.05)
    for customer in range(250):
        mine = [int(m) for c, m in coroutines.delivered if c == b"%d" % customer]
        assert mine == [customer + n for n in (0, 250, 500, 750)]


def test_the_example_several(load: Load, tmp_path: Path) -> None:
    several = load("several")
    accounts = Kit(several.app, "post")
    accounts.send("incoming", b"500", key=b"a")
    accounts.send("outgoing", b"120", key=b"a")
    accounts.run()
    assert several.balance == {b"a": 380}
    archive = Kit(several.app, several.keep)
    archive.send("audit.eu", b"one")
    archive.send("audit.eu", b"two")
    archive.send("audit.us", b"three", partition=1)
    archive.run()
    assert (tmp_path / "archive" / "audit.eu-0.log").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "archive" / "audit.us-1.log").read_bytes() == b"three\n"
