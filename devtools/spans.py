"""Reads when handlers began and ended, and tells what that says about the promises.

The ledgers are those of ``devtools.apps.tasks``; nothing else is shared with the service.
The clock is the machine's monotonic one, the same for all its processes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

At = tuple[int, int]
"""Partition and offset."""


@dataclass(slots=True)
class Span:
    """A handler and a record: one try. ``ended`` is ``None`` of one that was cut off."""

    partition: int
    offset: int
    key: str
    pid: int
    began: float
    ended: float | None = None
    done: bool = False

    @property
    def at(self) -> At:
        """Which record."""
        return self.partition, self.offset

    def __str__(self) -> str:
        how = "done" if self.done else "failed"
        end = "cut off" if self.ended is None else f"{how} {self.ended:.3f}"
        at = f"[{self.partition}]@{self.offset}"
        return f"{at} {self.key} by {self.pid} {self.began:.3f}–{end}"


def read(*ledgers: Path) -> list[Span]:
    """Every try, in the order of their beginnings."""
    spans = []
    for ledger in ledgers:
        running: dict[tuple[int, int, str], Span] = {}
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        for line in lines:
            fields = line.split()
            if len(fields) != 6:  # the torn last line of a full disk; a KILL tears none
                continue
            what, partition, offset, key, pid, now = fields
            of = (int(partition), int(offset), pid)
            if what == "B":
                running[of] = Span(of[0], of[1], key, int(pid), float(now))
                spans.append(running[of])
            else:
                span = running.pop(of)
                span.ended, span.done = float(now), what == "D"
    spans.sort(key=attrgetter("began"))
    return spans


def done(*ledgers: Path) -> int:
    """How many different records were handled. Quick enough to wait with."""
    found = set()
    for ledger in ledgers:
        data = ledger.read_bytes() if ledger.exists() else b""
        for line in data.splitlines():
            if line.startswith(b"D "):
                _, partition, offset, _ = line.split(b" ", 3)
                found.add((partition, offset))
    return len(found)


def by_key(span: Span) -> object:
    """What ``order_by="key"`` keeps in order."""
    return span.partition, span.key


def by_partition(span: Span) -> object:
    """What ``order_by="partition"`` keeps in order."""
    return span.partition


def by_record(span: Span) -> object:
    """``order_by="none"``: tries of one record still come one after another."""
    return span.at


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the spans say. Everything empty is a promise kept."""

    handled: int
    lost: list[At]
    unknown: list[At]
    #: Records that were finished more than once, with the spans that finished them.
    repeated: dict[At, list[Span]]
    #: Side by side, or a later one first, though they belong in a row.
    disordered: list[tuple[Span, Span]]
    tries: int = 0

    @property
    def perfect(self) -> bool:
        """All of it once, in order."""
        return not (self.lost or self.unknown or self.repeated or self.disordered)

    def __str__(self) -> str:
        found = [
            f"{self.handled} handled in {self.tries} tries, {len(self.lost)} lost",
            f"{len(self.repeated)} repeated, {len(self.disordered)} out of order",
            f"{len(self.unknown)} unknown",
        ]
        found += [f"  lost: {at}" for at in self.lost[:5]]
        found += [f"  repeated: {'; '.join(map(str, s))}" for s in list(self.repeated.values())[:5]]
        found += [f"  out of order: {one}; {two}" for one, two in self.disordered[:5]]
        return "\n".join([", ".join(found[:3]), *found[3:]])


def judge(
    spans: Iterable[Span],
    expected: Mapping[int, int],
    row: Callable[[Span], object] = by_key,
    without: Iterable[At] = (),
) -> Verdict:
    """Compare. ``expected``: how many records each partition has, offsets from 0.

    ``row`` tells what belongs in a row, one after another. ``without``: records that no handler
    is to finish.
    """
    spans = list(spans)
    finished: dict[At, list[Span]] = defaultdict(list)
    rows: dict[object, list[Span]] = defaultdict(list)
    for span in spans:
        rows[row(span)].append(span)
        if span.done:
            finished[span.at].append(span)
    wanted = {(p, o) for p, count in expected.items() for o in range(count)} - set(without)
    return Verdict(
        handled=len(finished),
        lost=sorted(wanted - set(finished)),
        unknown=sorted(set(finished) - wanted),
        repeated={at: found for at, found in finished.items() if len(found) > 1},
        disordered=[pair for tries in rows.values() for pair in _disorder(tries)],
        tries=len(spans),
    )


def _disorder(tries: list[Span]) -> Iterable[tuple[Span, Span]]:
    """Pairs of one row that are not in order; ``tries`` are in the order of beginning.

    Three things: no two run at the same time (of one that was cut off nobody knows until
    when); no process goes back; and what is finished for the first time comes after all that
    was before it. The records of a batch begin together: they are one try.
    """
    before: dict[int, Span] = {}
    longest: Span | None = None
    first: set[At] = set()
    farthest: Span | None = None
    for span in tries:
        if span.ended is not None:
            if longest is not None and (longest.ended or 0) > span.began != longest.began:
                yield longest, span
            if longest is None or span.ended > (longest.ended or 0):
                longest = span
        mine = before.get(span.pid)
        if mine is not None and mine.offset > span.offset:
            yield mine, span
        if mine is None or mine.began != span.began:
            before[span.pid] = span
        if span.done and span.at not in first:
            first.add(span.at)
            if farthest is not None and farthest.offset > span.offset:
                yield farthest, span
            farthest = span
