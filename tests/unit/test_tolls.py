"""The file of deaths that no commit tells of yet."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from penstock.board import Working
from penstock.deaths import Toll
from penstock.supervisor.tolls import FILE, MOST, Tolls

NOW = 1_700_000_000.0


def working(*offsets: int) -> list[Working]:
    return [Working(i, "orders", 0, at, 1, None, 1.0, at) for i, at in enumerate(offsets)]


def test_it_outlives_the_process(tmp_path: Path) -> None:
    tolls = Tolls(tmp_path, now=NOW)
    tolls.died("billing", working(3, 5), alone=False, at=NOW)
    tolls.died("billing", working(3), alone=True, at=NOW + 1)
    tolls.died("shipping", working(9), alone=False, at=NOW + 2)
    again = Tolls(tmp_path, now=NOW + 60)
    found = [Toll.from_json(each) for each in again.of("billing")]
    assert [[tuple(d) for d in t.deaths] for t in found] == [
        [(3, 3, 1, 0), (5, 5, 1, 0)],
        [(3, 3, 1, 1)],
    ]
    assert len(again.of("shipping")) == 1
    again.merged([found[0].id, "nobody's"])
    assert [t["id"] for t in Tolls(tmp_path, now=NOW).of("billing")] == [found[1].id]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_nothing_held_is_no_toll(tmp_path: Path) -> None:
    tolls = Tolls(tmp_path, now=NOW)
    assert not tolls.died("billing", [], alone=False, at=NOW)
    assert list(tmp_path.iterdir()) == []


def test_it_is_bounded_and_forgets(tmp_path: Path) -> None:
    tolls = Tolls(tmp_path, now=NOW)
    for n in range(MOST + 5):
        tolls.died("billing", working(n), alone=False, at=NOW + n)
    kept = [t["deaths"][0][0] for t in tolls.of("billing")]
    assert kept == list(range(5, MOST + 5))  # the oldest go
    assert len(Tolls(tmp_path, now=NOW).of("billing")) == MOST
    assert Tolls(tmp_path, now=NOW + 8 * 86_400).of("billing") == []


@pytest.mark.parametrize(
    "content", [b"", b"\0\xff", b"[]", b'{"tolls": 5}', b'{"tolls": [{}]}', b"[" * 100_000]
)
def test_a_damaged_file_costs_a_warning(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_bytes(content)
    tolls = Tolls(tmp_path, now=NOW)
    assert tolls.of("billing") == []
    assert len(caplog.records) == 1
    tolls.died("billing", working(3), alone=False, at=NOW)
    assert len(json.loads((tmp_path / FILE).read_bytes())["tolls"]) == 1


def test_what_cannot_be_written_is_remembered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "deaths.tmp").mkdir()
    tolls = Tolls(tmp_path, now=NOW)
    tolls.died("billing", working(3), alone=False, at=NOW)
    assert len(tolls.of("billing")) == 1
    assert "cannot be written" in caplog.text
    assert not (tmp_path / FILE).exists()
    nowhere = Tolls(None, now=NOW)
    nowhere.died("billing", working(3), alone=False, at=NOW)
    assert len(nowhere.of("billing")) == 1


def test_links_are_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    tolls = Tolls(tmp_path, now=NOW)
    assert "cannot be read" in caplog.text
    tolls.died("billing", working(3), alone=False, at=NOW)
    assert (tmp_path / "elsewhere").read_text() == "precious"
