"""Records that were there when their process died: who is suspected, and who is it. Pure.

A process that dies of a signal, of ``os._exit`` or for memory says nothing, but its board
names what it held (:mod:`penstock.board`), and each of those is a suspect: its count of deaths
goes up by one. A record with as many as its subscription allows is handled alone, with nothing
beside it in its process. If it returns, or raises, it is acquitted. If its process dies again,
it was it: it kills, and goes the way of its policy without its handler being called.

Counts are kept for ranges of offsets. What is kept here never says less than what happened:
where there is no room for every range, neighbours are taken together, and a record that was
only near is handled alone once more than it had to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Self

from penstock.board import Working
from penstock.offset_map import MOST_DEATHS, Deaths
from penstock.record import Partition, Record

#: In ``Deaths.flags``: its process died while it was handled alone.
KILLS: Final = 1
#: Nobody needs to know of more.
_MOST_TIMES: Final = 10_000

NONE: Final[tuple[Deaths, ...]] = ()


def summed(*parts: Iterable[Deaths], most: int = MOST_DEATHS) -> tuple[Deaths, ...]:
    """All of them together: ranges that do not overlap, ascending, ``most`` at most."""
    given = [each for part in parts for each in part]
    edges = sorted({edge for d in given for edge in (d.first, d.last + 1)})
    found: list[Deaths] = []
    for first, after in pairwise(edges):
        here = [d for d in given if d.first <= first <= d.last]
        if not here:
            continue
        count = min(sum(d.times for d in here), _MOST_TIMES)
        flags = 0
        for d in here:
            flags |= d.flags
        before = found[-1] if found else None
        if before and before[1:] == (first - 1, count, 0) and not flags:
            found[-1] = before._replace(last=after - 1)
        else:
            found.append(Deaths(first, after - 1, count, flags))
    return _shortened(found, most)


def _shortened(found: list[Deaths], most: int) -> tuple[Deaths, ...]:
    """Take neighbours together until they are few: those of like counts first, then the nearest.

    One that kills stays by itself as long as there are others; then it is found out once more.
    """
    while len(found) > most:
        index = min(range(len(found) - 1), key=lambda i: _loss(found[i], found[i + 1]))
        a, b = found[index : index + 2]
        found[index : index + 2] = [Deaths(a.first, b.last, max(a.times, b.times))]
    return tuple(found)


def _loss(a: Deaths, b: Deaths) -> tuple[bool, int, int]:
    return bool(a.flags or b.flags), abs(a.times - b.times), b.first - a.last


def of(deaths: Iterable[Deaths], offset: int) -> Deaths | None:
    """What is known of a record, ``None`` if nothing is."""
    return next((d for d in deaths if d.first <= offset <= d.last), None)


def without(deaths: Iterable[Deaths], offset: int) -> tuple[Deaths, ...]:
    """The record is finished, or acquitted: nothing is known of it any more."""
    left: list[Deaths] = []
    for d in deaths:
        if not d.first <= offset <= d.last:
            left.append(d)
            continue
        if d.first < offset:
            left.append(d._replace(last=offset - 1))
        if offset < d.last:
            left.append(d._replace(first=offset + 1))
    return tuple(left)


def another_chance(deaths: Iterable[Deaths], offset: int) -> tuple[Deaths, ...]:
    """The record kills, and somebody is to mend the handler: it is tried alone again."""
    return tuple(d._replace(flags=0) if d.first <= offset <= d.last else d for d in deaths)


def room(deaths: Iterable[Deaths], records: Iterable[Record], limit: int) -> int | None:
    """How many of ``records`` may be handled in a row, with others beside them.

    0: the first is to be handled alone, or not at all. ``None``: all of them. ``limit``: as
    many deaths make a record one to be handled alone.
    """
    suspects = [d for d in deaths if d.times >= limit or d.flags]
    if suspects:
        for index, record in enumerate(records):
            if of(suspects, record.offset) is not None:
                return index
    return None


def held(working: Sequence[Working], *, alone: bool) -> dict[Partition, tuple[Deaths, ...]]:
    """What a process's death says of the records on its board.

    ``alone``: the board says that the only one was handled alone.
    """
    kills = KILLS if alone and len(working) == 1 and working[0].count == 1 else 0
    found: dict[Partition, list[Deaths]] = {}
    for w in working:
        one = Deaths(w.offset, max(w.offset, w.last), 1, kills)
        found.setdefault(Partition(w.topic, w.partition), []).append(one)
    return {partition: summed(each) for partition, each in found.items()}


@dataclass(frozen=True, slots=True)
class Toll:
    """What one death says of a partition's records; not in the group's commits yet.

    ``at`` is in seconds since the epoch.
    """

    id: str
    group: str
    partition: Partition
    deaths: tuple[Deaths, ...]
    at: float

    def to_json(self) -> dict[str, Any]:
        """A value for :func:`json.dumps`."""
        return {
            "id": self.id,
            "group": self.group,
            "topic": self.partition.topic,
            "partition": self.partition.number,
            "deaths": [list(d) for d in self.deaths],
            "at": round(self.at, 3),
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what :meth:`to_json` made.

        Raises:
            ValueError: it is something else.
        """
        try:
            return cls(
                id=str(data["id"]),
                group=str(data["group"]),
                partition=Partition(str(data["topic"]), int(data["partition"])),
                deaths=summed([_entry(*each) for each in data["deaths"]]),
                at=float(data["at"]),
            )
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not a toll: {error!r}") from error


def _entry(first: int, last: int, count: int, flags: int) -> Deaths:
    given = (first, last, count, flags)
    if any(type(n) is not int for n in given) or not 0 <= first <= last < 1 << 63 or count < 1:
        raise ValueError(f"not a count of deaths: {given}")
    return Deaths(first, last, count, flags & KILLS if first == last else 0)
