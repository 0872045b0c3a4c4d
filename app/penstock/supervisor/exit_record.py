"""How a run ended: what the journal, the termination message and the log are told."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from penstock.exits import LOST, LOST_CODE, is_planned, name_of

#: Keys identify a record to a person; beyond this the offset does.
_KEY_LENGTH: Final = 100
#: How many records a sentence names; the list beside it has them all.
_NAMED: Final = 3
#: ``SIGUSR2``, ``http``: short by nature, bounded all the same.
_WHO_LENGTH: Final = 64
_HIGHEST_CODE: Final = 255

Key = tuple[str, str, bool]  # code, name, planned


@dataclass(frozen=True, slots=True)
class InFlight:
    """A record that a handler still held when the deadline passed, or when its process died.

    ``age_seconds`` is how long the handler has had it; ``stack`` is where the handler stands.
    Of a batch ``offset`` is the first record's, ``last`` the last one's and ``count`` how many.
    """

    topic: str
    partition: int
    offset: int
    key: str | None
    age_seconds: float
    stack: str | None
    count: int = 1
    last: int | None = None

    @property
    def place(self) -> str:
        """``orders[3]@7``."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    def __str__(self) -> str:
        many = f" and {self.count - 1} more" if self.count > 1 else ""
        key = "" if self.key is None else f" (key {clip(self.key, _KEY_LENGTH)})"
        return f"{self.place}{many}{key}"

    def to_json(self) -> dict[str, Any]:
        """A value for :func:`json.dumps`."""
        data: dict[str, Any] = {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "key": None if self.key is None else clip(self.key, _KEY_LENGTH),
            "age_seconds": _finite(self.age_seconds),
        }
        if self.count > 1:
            data |= {"count": self.count, "last": self.last}
        if self.stack is not None:
            data["stack"] = self.stack
        return data

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what :meth:`to_json` made. Raises ValueError, KeyError or TypeError if not."""
        key, stack, last = data["key"], data.get("stack"), data.get("last")
        return cls(
            topic=str(data["topic"]),
            partition=int(data["partition"]),
            offset=int(data["offset"]),
            key=None if key is None else str(key),
            age_seconds=_seconds(data["age_seconds"]) or 0.0,
            stack=None if stack is None else str(stack),
            count=int(data.get("count", 1)),
            last=None if last is None else int(last),
        )


@dataclass(frozen=True, slots=True)
class Memory:
    """How much memory a process that died had, in bytes; None where that is not known.

    ``peak`` is the most it ever held, ``limit`` what it and its siblings may hold together.
    """

    peak: int | None = None
    limit: int | None = None

    def __str__(self) -> str:
        if self.peak is None:
            return ""
        limit = "" if self.limit is None else f", limit {_megabytes(self.limit)}"
        return f"it held {_megabytes(self.peak)} of memory at most{limit}"


def naming(held: Sequence[InFlight]) -> str:
    """`` while handling orders[3]@7 (key k), … and 2 other records``; empty for none."""
    if not held:
        return ""
    named = ", ".join(map(str, held[:_NAMED]))
    rest = len(held) - _NAMED
    others = f" and {rest} other {'record' if rest == 1 else 'records'}" if rest > 0 else ""
    return f" while handling {named}{others}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """The end of one run of the service.

    ``code`` is None when it is unknown: the run was lost. Durations are in seconds, ``at``
    and ``last_done_at`` (when the last record was done) in seconds since the epoch; None is
    "did not drain" and "none was done".
    """

    code: int | None
    name: str
    planned: bool
    reason: str
    requested_by: str
    drain_seconds: float | None
    in_flight_at_deadline: tuple[InFlight, ...]
    uptime_seconds: float
    at: float
    last_done_at: float | None
    #: What a worker held when it died, each worker's oldest first.
    held_at_death: tuple[InFlight, ...] = ()
    #: Of the process that died first.
    memory: Memory = Memory()

    @classmethod
    def of(
        cls,
        code: int | None,
        *,
        reason: str,
        at: float,
        requested_by: str = "",
        drain_seconds: float | None = None,
        in_flight_at_deadline: tuple[InFlight, ...] = (),
        uptime_seconds: float = 0.0,
        last_done_at: float | None = None,
        held_at_death: tuple[InFlight, ...] = (),
        memory: Memory | None = None,
    ) -> Self:
        """A record whose name and ``planned`` follow from the code (``penstock.exits``)."""
        _, name, planned = key_of(code)
        return cls(
            code=code,
            name=name,
            planned=planned,
            reason=reason,
            requested_by=requested_by,
            drain_seconds=drain_seconds,
            in_flight_at_deadline=in_flight_at_deadline,
            uptime_seconds=uptime_seconds,
            at=at,
            last_done_at=last_done_at,
            held_at_death=held_at_death,
            memory=memory or Memory(),
        )

    @property
    def key(self) -> Key:
        """Code, name and planned: the labels that the exit is counted under."""
        return (key_of(self.code)[0], self.name, self.planned)

    def to_json(self) -> dict[str, Any]:
        """A value for :func:`json.dumps`, most important first."""
        return {
            "code": LOST_CODE if self.code is None else self.code,
            "name": self.name,
            "planned": self.planned,
            "reason": self.reason,
            "requested_by": clip(self.requested_by, _WHO_LENGTH),
            "drain_seconds": _finite(self.drain_seconds),
            "uptime_seconds": _finite(self.uptime_seconds),
            "at": _finite(self.at),
            "last_done_at": _finite(self.last_done_at),
            "memory_peak_bytes": self.memory.peak,
            "memory_limit_bytes": self.memory.limit,
            "held_at_death": [item.to_json() for item in self.held_at_death],
            "in_flight_at_deadline": [item.to_json() for item in self.in_flight_at_deadline],
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what :meth:`to_json` made.

        Name and planned are taken from the code, not from the text: a damaged line must not
        invent a label value.

        Raises:
            ValueError: it is not an exit record.
        """
        try:
            return cls.of(
                read_code(data["code"]),
                reason=str(data["reason"]),
                requested_by=str(data["requested_by"]),
                drain_seconds=_seconds(data["drain_seconds"]),
                in_flight_at_deadline=tuple(
                    InFlight.from_json(item) for item in data["in_flight_at_deadline"]
                ),
                uptime_seconds=_seconds(data["uptime_seconds"]) or 0.0,
                at=_seconds(data["at"]) or 0.0,
                last_done_at=_seconds(data["last_done_at"]),
                # Lines of versions that did not know these stay readable.
                held_at_death=tuple(
                    InFlight.from_json(item) for item in data.get("held_at_death", ())
                ),
                memory=Memory(
                    _bytes(data.get("memory_peak_bytes")), _bytes(data.get("memory_limit_bytes"))
                ),
            )
        except (AttributeError, KeyError, OverflowError, TypeError) as error:
            raise ValueError(f"not an exit record: {error!r}") from error


def encode(record: ExitRecord, limit: int, extra: Mapping[str, Any] | None = None) -> bytes:
    """The record as one line of JSON of at most ``limit`` bytes (1024 or more), no newline.

    What does not fit goes in this order: stacks, from the last record's on; records, from the
    last on (those held at a death are first), leaving their number as ``in_flight_omitted``;
    the end of the reason; the first record.
    ``extra`` comes first and is never cut.
    """
    items = (*record.held_at_death, *record.in_flight_at_deadline)
    total, died = len(items), len(record.held_at_death)

    def render(kept: tuple[InFlight, ...], reason: str) -> bytes:
        cut = replace(
            record,
            held_at_death=kept[:died],
            in_flight_at_deadline=kept[died:],
            reason=reason,
        )
        data = cut.to_json()
        if len(kept) < total:
            data["in_flight_omitted"] = total - len(kept)
        return dumps({**(extra or {}), **data})

    def cut_reason(kept: tuple[InFlight, ...]) -> bytes | None:
        return _longest(len(record.reason), limit, lambda n: render(kept, clip(record.reason, n)))

    whole = render(items, record.reason)
    if len(whole) <= limit:
        return whole
    bare = tuple(replace(item, stack=None) for item in items)
    with_stacks = _longest(total, limit, lambda n: render(items[:n] + bare[n:], record.reason))
    if with_stacks is not None:
        return with_stacks
    # At least one record stays as long as a shorter reason can make room for it.
    fewer = _longest(total, limit, lambda n: render(bare[: max(n, 1)], record.reason))
    return fewer or cut_reason(bare[:1]) or cut_reason(()) or render((), "")


def dumps(data: Mapping[str, Any]) -> bytes:
    """Compact JSON in UTF-8, without a newline; lone surrogates become question marks."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode(errors="replace")


def _longest(most: int, limit: int, render: Callable[[int], bytes]) -> bytes | None:
    """``render(n)`` of the largest n in 0…most that fits into ``limit`` bytes, if any does."""
    first_too_long = bisect_left(range(most + 1), True, key=lambda n: len(render(n)) > limit)
    return render(first_too_long - 1) if first_too_long else None


def clip(text: str, length: int) -> str:
    """At most ``length`` characters (but one, "…", where there was any text)."""
    return text if len(text) <= length else text[: max(length - 1, 0)] + "…"


def _finite(value: float | None) -> float | None:
    """Milliseconds are enough; JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else round(value, 3)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"not a number of seconds: {value!r}")
    return float(value)


def _bytes(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise ValueError(f"not a number of bytes: {value!r}")
    return value


def key_of(code: int | None) -> Key:
    """Code, name and planned: the labels that an exit with this code is counted under."""
    if code is None:
        return (LOST_CODE, LOST, False)
    return (str(code), name_of(code), is_planned(code))


def read_code(value: Any) -> int | None:
    """An exit code from JSON. Raises ValueError if it is none."""
    if value == LOST_CODE:
        return None
    if type(value) is not int or not 0 <= value <= _HIGHEST_CODE:
        raise ValueError(f"not an exit code: {value!r}")
    return value
