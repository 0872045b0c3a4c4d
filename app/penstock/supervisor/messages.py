"""What workers say, read with suspicion. Pure: a message in, facts or ValueError out.

PID 1 outlives upgrades: after a reload its workers may run another version of Penstock, and a
process that is dying may say anything. So no message's form is trusted. A status with a part
that cannot be read keeps its other parts; a hello is understood as a whole or not at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from penstock.seat import Seat
from penstock.settings import Settings
from penstock.settings_wire import from_wire
from penstock.supervisor.exit_record import InFlight, read_code
from penstock.telemetry.tally import Tally

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading:
    """A subscription, for people: ``topics`` are names, or the pattern between slashes."""

    name: str
    group: str
    topics: tuple[str, ...]
    pattern: bool


@dataclass(frozen=True, slots=True)
class Hello:
    """What a worker knows once it has imported the application."""

    settings: Settings
    concurrency: int
    #: All of the application's; the worker's own is the one at its index, modulo their number.
    subscriptions: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class LastWords:
    """How a worker says it ended."""

    code: int
    clean: bool
    reason: str
    stuck: tuple[InFlight, ...] = ()
    #: What became of its seat in the group; one that says nothing may have kept it.
    seat: Seat = Seat.KEEP


@dataclass(frozen=True, slots=True)
class Facts:
    """What a worker last said about its work; the defaults are those of one that said nothing."""

    state: str = "starting"
    joined: bool = False
    assignment: Mapping[str, list[int]] = field(default_factory=dict)
    #: topic → partition (as text) → records
    lag: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    caught_up: bool = False
    warnings: list[str] = field(default_factory=list)
    retrying: int = 0
    breaker: str = "closed"


def read_hello(message: Mapping[str, Any]) -> Hello:
    """Raises ValueError, naming the field, if it cannot be understood as a whole."""
    subscriptions = tuple(
        Reading(
            name=_text(each, "name"),
            group=_text(each, "group"),
            topics=tuple(_texts(each["topics"])),
            pattern=_flag(each, "pattern"),
        )
        for each in _read("subscriptions", lambda: [dict(s) for s in message["subscriptions"]])
    )
    if not subscriptions:
        raise ValueError("subscriptions: none")
    concurrency = _whole(message, "concurrency")
    if concurrency < 1:
        raise ValueError(f"concurrency: {concurrency}")
    return Hello(
        settings=_read("settings", lambda: from_wire(message["settings"])),
        concurrency=concurrency,
        subscriptions=subscriptions,
    )


def read_facts(message: Mapping[str, Any], before: Facts) -> tuple[Facts, list[str]]:
    """The facts of a status, and what of it could not be read: there, ``before`` stays true."""
    work = message.get("work", {})
    work = work if isinstance(work, dict) else {"retrying": work}
    readers: dict[str, Callable[[], Any]] = {
        "state": lambda: _text(message, "state"),
        "joined": lambda: _flag(message, "joined"),
        "assignment": lambda: _each(message.get("assignment", {}), _numbers),
        "lag": lambda: _each(message.get("lag", {}), _lags),
        "caught_up": lambda: _flag({"caught_up": False, **message}, "caught_up"),
        "warnings": lambda: _texts(message.get("warnings", [])),
        "retrying": lambda: _whole({"retrying": 0, **work}, "retrying"),
        "breaker": lambda: _text({"breaker": "closed", **work}, "breaker"),
    }
    read: dict[str, Any] = {}
    wrong = []
    for name, reader in readers.items():
        try:
            read[name] = _read(name, reader)
        except ValueError as error:
            wrong.append(str(error))
    return dataclasses.replace(before, **read), wrong


def read_tally(message: Mapping[str, Any]) -> Tally:
    """The counts of a status. Raises ValueError if they are none."""
    return _read("tally", lambda: Tally.from_json(message["tally"]))


def read_drained(message: Mapping[str, Any]) -> LastWords:
    """A worker's report on its drain. Raises ValueError if it cannot be understood."""
    return LastWords(
        code=_code(message),
        clean=_flag(message, "clean"),
        reason=_text(message, "reason"),
        stuck=_read("stuck", lambda: tuple(InFlight.from_json(s) for s in message["stuck"])),
        seat=_read("seat", lambda: Seat(message.get("seat", Seat.KEEP))),
    )


def read_fatal(message: Mapping[str, Any]) -> LastWords:
    """Why a worker cannot go on. Raises ValueError if it cannot be understood."""
    return LastWords(_code(message), clean=False, reason=_text(message, "reason"))


# -- one field -------------------------------------------------------------------------


def _read(name: str, reader: Callable[[], T]) -> T:
    try:
        return reader()
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: {type(error).__name__} {error}") from error


def _wrong(name: str, what: str, value: object) -> ValueError:
    return ValueError(f"{name}: {what}: {repr(value)[:80]}")


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise _wrong(name, "not a text", value)
    return value


def _flag(data: Mapping[str, Any], name: str) -> bool:
    value = data.get(name)
    if not isinstance(value, bool):
        raise _wrong(name, "neither true nor false", value)
    return value


def _whole(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise _wrong(name, "not a number of things", value)
    return value


def _code(message: Mapping[str, Any]) -> int:
    code = _read("code", lambda: read_code(message.get("code")))
    if code is None:
        raise ValueError("code: unknown")
    return code


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"not a list of texts: {repr(value)[:80]}")
    return value


def _numbers(value: Any) -> list[int]:
    if not isinstance(value, list):
        raise TypeError(f"not a list of numbers: {repr(value)[:80]}")
    return [_whole({"number": item}, "number") for item in value]


def _lags(value: Any) -> dict[str, int]:
    return {str(int(number)): _whole(value, number) for number in value}


def _each(value: Any, reader: Callable[[Any], T]) -> dict[str, T]:
    if not isinstance(value, dict):
        raise TypeError(f"not an object: {repr(value)[:80]}")
    return {str(key): reader(item) for key, item in value.items()}


def read_ids(message: Mapping[str, Any]) -> list[str]:
    """The ids of a ``merged``.

    Raises:
        ValueError: it is something else.
    """
    ids = message.get("ids")
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise ValueError("no list of ids")
    return ids
