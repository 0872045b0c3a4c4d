"""What the journal's lines add up to. Pure: lines in, history out.

A line is JSON with a type ``t``: ``start`` and ``exit`` of a run, ``gap`` of a restart, and
``totals``, which stands for everything that compaction removed. The memory of a running
service is fed the very lines that go to the file, so the two cannot disagree.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.exits import LOST_CODE, Exit
from penstock.supervisor.exit_record import (
    ExitRecord,
    InFlight,
    Key,
    clip,
    dumps,
    encode,
    key_of,
    naming,
    read_code,
)
from penstock.telemetry.catalog import DRAIN_DURATION, RESTART_GAP
from penstock.telemetry.histogram import Histogram

#: Exits that stay readable one by one; older ones live on as totals.
KEPT_EXITS: Final = 50
#: A line longer than this is not ours. Longer exit records are cut (stacks first).
LINE_LIMIT: Final = 4096
#: Codes are 0…255 and unknown: a totals line stays far below this.
TOTALS_LIMIT: Final = 64 * 1024

LOST_REASON: Final = (
    "the run left no exit record: killed as a whole (out of memory, KILL, node failure)"
)


@dataclass(frozen=True, slots=True)
class ExitHistory:
    """Every exit of the service that is known. Never changes; a new one replaces it.

    ``counts`` are by code, name and planned; ``recent`` has the last exits, oldest first.
    """

    counts: Mapping[Key, int]
    recent: tuple[ExitRecord, ...]
    drain: Histogram
    gap: Histogram
    #: The run that ended last: its id in the journal, or nothing.
    last_run: str = ""

    @property
    def last(self) -> ExitRecord | None:
        """The latest exit."""
        return self.recent[-1] if self.recent else None

    @property
    def unplanned(self) -> int:
        """Exits that nobody planned."""
        return sum(n for (_, _, planned), n in self.counts.items() if not planned)

    @property
    def restarted_from(self) -> float | None:
        """When the run before this one did its last record, if it ended to be restarted.

        Seconds since the epoch: where the restart gap begins. None after any other exit.
        """
        last = self.last
        return last.last_done_at if last is not None and last.code == Exit.RESTART else None


@dataclass(slots=True)
class Ledger:
    """The lines of a journal, taken in one after another."""

    _base: Counter[Key] = field(default_factory=Counter)
    _drain: Histogram = field(default_factory=lambda: Histogram(DRAIN_DURATION.buckets))
    _gap: Histogram = field(default_factory=lambda: Histogram(RESTART_GAP.buckets))
    _exits: list[tuple[bytes, ExitRecord]] = field(default_factory=list)
    _open: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _last_run: str = ""
    skipped: int = 0

    def feed(self, line: bytes) -> None:
        """Take a line in; one that makes no sense is skipped and counted."""
        if not line.strip():
            return
        try:
            self._feed(line)
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError):
            self.skipped += 1

    def _feed(self, line: bytes) -> None:
        if len(line) > TOTALS_LIMIT:
            raise ValueError("oversized")
        data = json.loads(line)
        if data["t"] != "totals" and len(line) > LINE_LIMIT:
            raise ValueError("oversized")  # kept as it is, it would defeat compaction
        match data["t"]:
            case "start":
                run = str(data["run"])
                if run not in self._ended:
                    self._open[run] = (line, float(data["at"]))
            case "exit":
                run, record = str(data["run"]), ExitRecord.from_json(data)
                if run not in self._ended:  # written twice, after a write that half failed
                    self._ended.add(run)
                    self._open.pop(run, None)
                    self._exits.append((line, record))
                    self._last_run = run
            case "gap":
                self._gap.observe(float(data["seconds"]))
            case "totals":
                self._totals(data)
            case other:
                raise ValueError(f"unknown line {other!r}")

    def _totals(self, data: Any) -> None:
        # Everything is read before anything is counted: half a line must not count.
        drain = Histogram.from_json(data["drain"]).rebucketed(self._drain.bounds)
        gap = Histogram.from_json(data["gap"]).rebucketed(self._gap.bounds)
        counts: Counter[Key] = Counter()
        for code, count in data["exits"]:
            if type(count) is not int or count < 0:
                raise ValueError("not a count")
            counts[key_of(read_code(code))] += count
        self._base.update(counts)
        self._drain.merge(drain)
        self._gap.merge(gap)

    def lost(self, now: float, held: Sequence[InFlight] = ()) -> list[bytes]:
        """Exit lines for the runs that started and left none, found at ``now`` (epoch, s).

        When such a run ended nobody knows: its time and its uptime are the latest possible.
        ``held`` is what the last one's workers held, from their boards.
        """
        runs = list(self._open.items())
        found = [()] * (len(runs) - 1) + [tuple(held)]
        return [
            exit_line(
                run,
                ExitRecord.of(
                    None,
                    reason=LOST_REASON + naming(its),
                    at=now,
                    uptime_seconds=max(now - started, 0.0),
                    held_at_death=its,
                ),
            )
            for (run, (_, started)), its in zip(runs, found, strict=False)
        ]

    @property
    def is_open(self) -> bool:
        """Whether a run started and has not ended, as far as the lines tell."""
        return bool(self._open)

    def history(self) -> ExitHistory:
        """The sum of all lines so far."""
        counts = Counter(self._base)
        counts.update(record.key for _, record in self._exits)
        recent = tuple(record for _, record in self._exits[-KEPT_EXITS:])
        drains = self._drains(len(self._exits))
        return ExitHistory(counts, recent, drains, self._gap.copy(), self._last_run)

    def compacted(self) -> list[bytes]:
        """Fewer lines with the same sum: totals, the last exits, and the run that is going on.

        The totals leave out the exits that stay as lines, so that nothing counts twice.
        """
        folded = max(len(self._exits) - KEPT_EXITS, 0)
        counts = Counter(self._base)
        counts.update(record.key for _, record in self._exits[:folded])
        totals = {
            "t": "totals",
            "exits": [
                [code if code == LOST_CODE else int(code), n]
                for (code, _, _), n in sorted(counts.items())
            ],
            "drain": self._drains(folded).to_json(),
            "gap": self._gap.to_json(),
        }
        return [
            dumps(totals),
            *(line for line, _ in self._exits[folded:]),
            *(line for line, _ in self._open.values()),
        ]

    def _drains(self, exits: int) -> Histogram:
        """The drains of the base and of the first ``exits`` lines."""
        result = self._drain.copy()
        for _, record in self._exits[:exits]:
            if record.drain_seconds is not None:
                result.observe(record.drain_seconds)
        return result


def start_line(run: str, *, at: float, version: str) -> bytes:
    """The line that a run begins with; ``at`` is in seconds since the epoch."""
    return dumps({"t": "start", "run": run, "at": round(at, 3), "version": clip(version, 64)})


def exit_line(run: str, record: ExitRecord) -> bytes:
    """The line that a run ends with."""
    return encode(record, LINE_LIMIT, {"t": "exit", "run": run})


def gap_line(seconds: float) -> bytes:
    """The line for a restart gap."""
    return dumps({"t": "gap", "seconds": round(seconds, 3)})
