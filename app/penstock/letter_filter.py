"""Which dead letters are meant: the filters of ``penstock dlq``. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Final, NamedTuple

from penstock.letters import Origin
from penstock.record import Record, printable

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_AT: Final = re.compile(r"([0-9]{1,10}):([0-9]{1,19})(?:-([0-9]{1,19}))?")
_AGO: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhdw])")


class Stored(NamedTuple):
    """A record of a dead-letter topic. ``origin`` is ``None`` for one that is not a letter."""

    record: Record
    origin: Origin | None
    #: Dealt with: replayed or dropped.
    settled: bool

    @property
    def at(self) -> tuple[int, int]:
        """Where it lies: partition and offset."""
        return self.record.partition, self.record.offset

    @property
    def since(self) -> float:
        """When it was put aside, seconds since the epoch."""
        if self.origin is not None and self.origin.at is not None:
            return self.origin.at
        return self.record.timestamp / 1000


class Span(NamedTuple):
    """Offsets of a partition of the dead-letter topic, the last one included."""

    partition: int
    first: int
    last: int

    def __str__(self) -> str:
        last = f"-{self.last}" if self.last != self.first else ""
        return f"{self.partition}:{self.first}{last}"

    def holds(self, at: tuple[int, int]) -> bool:
        """Whether it is there."""
        return at[0] == self.partition and self.first <= at[1] <= self.last


@dataclass(frozen=True, slots=True)
class Filter:
    """All that are given must hold. Nothing given: every one is meant.

    ``topic``, ``partition``, ``group``, ``error`` and ``reason`` are the letter's, so a record
    that is not a letter meets none of them.
    """

    topic: str | None = None
    partition: int | None = None
    spans: tuple[Span, ...] = ()
    group: str | None = None
    error: str | None = None
    reason: str | None = None
    key: str | None = None
    since: float | None = None
    until: float | None = None

    def __bool__(self) -> bool:
        """Whether anything is given."""
        return any(getattr(self, each.name) not in (None, ()) for each in fields(self))

    def __call__(self, stored: Stored) -> bool:
        """Whether ``stored`` is meant."""
        return (
            (not self.spans or any(span.holds(stored.at) for span in self.spans))
            and (self.key is None or printable(stored.record.key) == self.key)
            and (self.since is None or stored.since >= self.since)
            and (self.until is None or stored.since < self.until)
            and self._of_origin(stored.origin)
        )

    def _of_origin(self, origin: Origin | None) -> bool:
        if origin is None:
            wanted = (self.topic, self.partition, self.group, self.error, self.reason)
            return all(each is None for each in wanted)
        return (
            (self.topic is None or origin.topic == self.topic)
            and (self.partition is None or origin.partition == self.partition)
            and (self.group is None or origin.group == self.group)
            and (self.error is None or _is_class(origin.error, self.error))
            and (self.reason is None or self.reason.casefold() in origin.reason.casefold())
        )


def _is_class(error: str, name: str) -> bool:
    """``OutOfStock`` stands for ``shop.errors.OutOfStock``, too."""
    return error == name or error.endswith("." + name)


def moment(text: str, now: float) -> float:
    """Seconds since the epoch of ``2h`` (ago; s, m, h, d, w) or an ISO 8601 time (UTC).

    Raises:
        ValueError: it is neither.
    """
    if ago := _AGO.fullmatch(text):
        return now - float(ago[1]) * _UNITS[ago[2]]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a time like 2026-01-31T07:00 nor a while ago like 90s, 2h, 7d"
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def position(text: str) -> tuple[int, int]:
    """Partition and offset of ``3:1042``.

    Raises:
        ValueError: it is not that.
    """
    found = _AT.fullmatch(text)
    if found is None or found[3]:
        raise ValueError(f"{text!r} is not PARTITION:OFFSET, like 3:1042")
    return int(found[1]), int(found[2])


def span(text: str) -> Span:
    """``3:1042``, or ``3:1042-1100``.

    Raises:
        ValueError: it is neither.
    """
    found = _AT.fullmatch(text)
    if found is None or int(found[3] or found[2]) < int(found[2]):
        raise ValueError(f"{text!r} is not PARTITION:OFFSET, like 3:1042, or like 3:1042-1100")
    return Span(int(found[1]), int(found[2]), int(found[3] or found[2]))
