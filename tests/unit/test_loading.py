from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.app import App
from penstock.errors import ConfigError
from penstock.exits import Exit
from penstock.loading import load_app

GOOD = "from penstock import App\napp = App(workers=2)\nother = 7\n"
Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write modules into the current directory; forget them afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("shop_"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("shop_orders.py", "shop_orders:app"),
        ("shop_pkg/orders.py", "shop_pkg.orders:app"),
        ("deep/down/shop_file.py", "deep/down/shop_file.py:app"),
        ("shop_here.py", "shop_here.py:app"),
    ],
)
def test_an_app_is_found_from_the_current_directory(write: Write, path: str, target: str) -> None:
    write(path, GOOD)
    app = load_app(target)
    assert isinstance(app, App)
    assert app.settings == {"workers": 2}


@pytest.mark.parametrize("target", ["", "shop", "shop:", ":app", "shop.orders"])
def test_a_bad_form(target: str) -> None:
    with pytest.raises(ConfigError, match="is not MODULE:APP"):
        load_app(target)


@pytest.mark.parametrize(
    ("text", "target", "sentence"),
    [
        (GOOD, "shop_nothere:app", "no module named 'shop_nothere'"),
        (GOOD, "shop_nopkg.orders:app", "no module named 'shop_nopkg'"),
        (GOOD, "no/such/shop_file.py:app", "no module named 'shop_file'"),
        (GOOD, "shop_a:missing", "module 'shop_a' has no 'missing'"),
        (GOOD, "shop_a:other", "shop_a:other is a int, not a penstock.App"),
        ("import shop_gone\n", "shop_a:app", r"(?s)importing shop_a failed:.*shop_gone"),
        (
            "1 / 0\n",
            "shop_a:app",
            (
                r"^importing shop_a failed: ZeroDivisionError: division by zero "
                r"\(shop_a.py, line 1\)\nTraceback[^\n]*\n  File \"[^\n]*shop_a.py\", line 1"
            ),
        ),
        ("def\n", "shop_a:app", r"^importing shop_a failed: SyntaxError: .*\(shop_a.py, line 1\)$"),
        ("raise SystemExit(3)\n", "shop_a:app", r"(?s)importing shop_a failed:.*SystemExit"),
        (
            "from penstock import App\n@App().subscribe('t')\nasync def f(r): yield\n",
            "shop_a:app",
            r"^handler f yields.* \(shop_a.py, line 2\)$",
        ),
        (
            "import penstock\n\npenstock.Retry(atempts=3)\n",
            "shop_a:app",
            r"^Retry.__init__\(\) got an unexpected .* 'atempts'.* \(shop_a.py, line 3\)$",
        ),
        (
            "from penstock import *\nApp().subscribe('t', concurency=3)\n",
            "shop_a:app",
            r"^App.subscribe\(\) got an unexpected .* \(shop_a.py, line 2\)$",
        ),
        ("int('x', bas=3)\n", "shop_a:app", r"(?s)importing shop_a failed:.*TypeError"),
    ],
)
def test_what_cannot_be_loaded_says_why(
    write: Write, text: str, target: str, sentence: str
) -> None:
    write("shop_a.py", text)
    with pytest.raises(ConfigError, match=sentence):
        load_app(target)


def test_the_application_s_files_do_not_take_the_place_of_python_s(tmp_path: Path) -> None:
    """A newcomer calls a file ssl.py or queue.py: the worker starts all the same."""
    for name in ("ssl", "queue", "calendar", "platform"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not to be imported')")
    (tmp_path / "shop.py").write_text("raise RuntimeError('the application, at last')")
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("penstock")), "run", "shop:app"],
        cwd=tmp_path,
        env={**os.environ, "PENSTOCK_STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == Exit.CONFIG, ended.stderr
    assert "the application, at last" in ended.stderr
    assert "not to be imported" not in ended.stderr


def test_a_file_s_directory_and_the_current_one_are_both_looked_in(write: Write) -> None:
    """Whatever the application makes the current one meanwhile."""
    write("shop_beside.py", "x = 7")
    write("down/shop_next.py", "x = 8")
    write(
        "down/shop_moves.py",
        "import os\nfrom penstock import App\nos.chdir('/')\n"
        "import shop_beside, shop_next\napp = App()\n",
    )
    assert isinstance(load_app("down/shop_moves.py:app"), App)
