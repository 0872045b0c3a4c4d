"""The verdict, from files alone: what was sent, what handlers noted, how each run ended.

The counting is done by another program, ``devtools.checker``, which knows nothing of the demo.
``python -m devtools.demo --verdict DIRECTORY`` judges the files of an earlier run again.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from penstock import render
from penstock.exits import Exit, name_of

EXPECTED, LEDGER, ENDINGS = "expected", "ledger", "endings.json"

_ROOT = Path(__file__).resolve().parents[2]
_COUNT = re.compile(r"([a-z][a-z ]*?) (\d+)")
_LEDGER_FIELDS = 5


@dataclass(frozen=True, slots=True)
class Ending:
    """How one run of the service ended.

    ``at`` is the monotonic time at which it was seen to be gone; ``drain_seconds`` and
    ``in_flight`` are the exit record's words, None when it has none.
    """

    how: str
    code: int
    at: float
    drain_seconds: float | None
    in_flight: int | None

    @classmethod
    def of(cls, how: str, code: int, at: float, record: dict[str, Any]) -> Self:
        """From an exit code and the termination message."""
        held = record.get("in_flight_at_deadline")
        return cls(
            how=how,
            code=code,
            at=at,
            drain_seconds=record.get("drain_seconds"),
            in_flight=None if held is None else len(held) + record.get("in_flight_omitted", 0),
        )

    def __str__(self) -> str:
        return f"{self.code} {name_of(self.code)}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``problems`` is empty if, and only if, the promise was kept."""

    table: str
    problems: tuple[str, ...]


def write_endings(directory: Path, endings: list[Ending]) -> None:
    """Keep the endings beside the ledger."""
    (directory / ENDINGS).write_text(json.dumps([asdict(each) for each in endings], indent=1))


def judge(directory: Path) -> Verdict:
    """Judge the files of a run.

    Raises:
        OSError, ValueError: a file is missing, or is not what the demo writes.
    """
    endings = [Ending(**each) for each in json.loads((directory / ENDINGS).read_text())]
    times = _times(directory / LEDGER)
    counts, problems = _count(directory)
    problems += _problems_of(endings)
    return Verdict(_table(counts, endings, times), tuple(problems))


def _count(directory: Path) -> tuple[dict[str, int], list[str]]:
    """Have the checker count; its exit code is the judgement, its line the numbers."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "devtools.checker"),
            *(str(directory / EXPECTED), str(directory / LEDGER)),
        ],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    counts = {name: int(number) for name, number in _COUNT.findall(done.stdout)}
    if done.returncode == 0 and counts.get("expected"):
        return counts, []
    if "expected" not in counts:
        return counts, [f"the checker failed: {(done.stderr or done.stdout).strip()[-300:]}"]
    if not counts["expected"]:
        return counts, ["no order was sent, so nothing is proved"]
    return counts, [f"the checker says: {done.stdout.strip()}"]


def _problems_of(endings: list[Ending]) -> list[str]:
    if len(endings) < 2:
        return ["no restart took place, so nothing is proved"]
    *restarts, last = endings
    found = [
        f"restart {number} ({each.how}) ended with {each}, not 4 RESTART"
        for number, each in enumerate(restarts, 1)
        if each.code != Exit.RESTART
    ]
    if last.code != Exit.STOPPED:
        found.append(f"the stop ended with {last}, not 0 STOPPED")
    found += [
        f"{each.how}: no exit record" if each.in_flight is None else f"{each.how}: cut short"
        for each in endings
        if each.in_flight != 0
    ]
    return found


def _times(ledger: Path) -> list[float]:
    """When records were handled, in order."""
    fields = (line.split() for line in ledger.read_text().splitlines())
    return sorted(float(f[4]) for f in fields if len(f) == _LEDGER_FIELDS)


def gap(times: list[float], at: float) -> float | None:
    """Seconds from the last record before ``at`` to the first after it; None without either."""
    before = [t for t in times if t <= at]
    after = [t for t in times if t > at]
    return after[0] - before[-1] if before and after else None


def _table(counts: dict[str, int], endings: list[Ending], times: list[float]) -> str:
    orders = render.table(
        ("PRODUCED", "HANDLED", "LOST", "REPEATED", "OUT OF ORDER"),
        [
            [
                counts.get(name, "?")
                for name in ("expected", "handled", "lost", "repeated", "out of order")
            ]
        ],
    )
    lives = render.table(
        ("", "HOW", "EXIT", "DRAIN", "GAP", "IN FLIGHT AT DEADLINE"),
        (
            (
                "stop" if each is endings[-1] else f"restart {number}",
                each.how,
                each,
                _seconds(each.drain_seconds),
                "-" if each is endings[-1] else _seconds(gap(times, each.at)),
                "?" if each.in_flight is None else each.in_flight,
            )
            for number, each in enumerate(endings, 1)
        ),
    )
    return f"{orders}\n\n{lives}"


def _seconds(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f} s"
