"""The demo's verdict: from doctored files it must not be a good one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devtools.demo.__main__ import main
from devtools.demo.verdict import ENDINGS, EXPECTED, LEDGER, Ending, gap, judge

Lines = list[str]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The files of a run that went well: twenty orders, one restart at 10.5."""
    (tmp_path / EXPECTED).write_text("0 10\n1 10\n")
    lines = [f"{p} {n} {n} 77 {n * 2 + p}.000000" for n in range(10) for p in range(2)]
    (tmp_path / LEDGER).write_text("\n".join(lines) + "\n")
    record = {"drain_seconds": 0.25, "in_flight_at_deadline": []}
    _endings(tmp_path, [("USR2", 4, 10.5, record), ("TERM", 0, 30.0, record)])
    return tmp_path


def _endings(run: Path, endings: list[tuple[str, int, float, dict[str, Any]]]) -> None:
    fields = Ending.__dataclass_fields__
    rows = [{name: getattr(Ending.of(*each), name) for name in fields} for each in endings]
    (run / ENDINGS).write_text(json.dumps(rows))


def test_good(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--verdict", str(run)]) == 0
    told = capsys.readouterr().out
    assert "Kept:" in told
    assert "0.25 s  1.00 s  0" in told


@pytest.mark.parametrize(
    ("doctor", "complaint"),
    [
        (lambda lines: lines[:-1], "lost 1"),
        (lambda lines: [*lines, lines[3]], "repeated 1"),
        (lambda lines: [line.replace(" 8.0", " 13.0") for line in lines], "out of order 1"),
        (lambda lines: [*lines, "5 0 0 77 50.0"], "unknown 1"),
        (lambda _: [], "lost 20"),
    ],
)
def test_doctored_ledger(
    run: Path,
    capsys: pytest.CaptureFixture[str],
    doctor: Callable[[Lines], Lines],
    complaint: str,
) -> None:
    ledger = run / LEDGER
    ledger.write_text("".join(f"{line}\n" for line in doctor(ledger.read_text().splitlines())))
    assert main(["--verdict", str(run)]) == 1
    told = capsys.readouterr().out
    assert "FAILED" in told
    assert complaint in told


@pytest.mark.parametrize(
    ("how", "code", "record", "complaint"),
    [
        ("USR2", 2, {"in_flight_at_deadline": [{}]}, "2 FORCED, not 4 RESTART"),
        ("USR2", 137, {"in_flight_at_deadline": []}, "137 KILLED, not 4 RESTART"),
        ("USR2", 4, {}, "no exit record"),
        ("USR2", 4, {"in_flight_at_deadline": [], "in_flight_omitted": 3}, "cut short"),
    ],
)
def test_endings_that_break_the_promise(
    run: Path, how: str, code: int, record: dict[str, Any], complaint: str
) -> None:
    _endings(run, [(how, code, 10.5, record), ("TERM", 0, 30.0, {"in_flight_at_deadline": []})])
    assert any(complaint in problem for problem in judge(run).problems)


def test_nothing_proved(run: Path) -> None:
    _endings(run, [])
    (run / EXPECTED).write_text("")
    (run / LEDGER).write_text("")
    assert len(judge(run).problems) == 2


@pytest.mark.parametrize("name", [EXPECTED, LEDGER, ENDINGS])
def test_missing_file(run: Path, name: str) -> None:
    (run / name).unlink()
    assert main(["--verdict", str(run)]) == 1


def test_gap() -> None:
    assert gap([1.0, 2.0, 5.0], at=3.0) == 3.0
    assert gap([1.0], at=3.0) is None
    assert gap([], at=3.0) is None
