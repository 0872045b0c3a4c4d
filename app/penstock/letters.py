"""What a dead letter carries beside the record, and reading it back. Pure.

A dead letter is the record as it was (key, value and headers stay bytes), in another topic, with
headers of ours behind its own that say where it came from and why it is there. A letter that
is put aside a second time does not grow: our headers are replaced.

A letter that is replayed goes back as the record it was, with one header of ours: how many
rounds it has gone. The letter of a record that fails again takes it over, so that a record that
can never be handled does not go round for ever as if each time were the first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

from penstock.record import Record

Headers = Sequence[tuple[str, bytes | None]]

#: Every header of ours starts so; nobody else's may.
PREFIX: Final = "penstock.dlq."

#: Bytes of a traceback at most. The end is kept: that is where the error is.
TRACEBACK_LIMIT: Final = 8_192
#: Characters of a reason at most, and of one that had to be shortened.
REASON_LIMIT: Final = 1_000
SHORT_REASON: Final = 100
_NAME_LIMIT: Final = 250

#: The headers of ours, without the prefix, in their order.
FIELDS: Final = {
    "topic": "the record's topic,",
    "partition": "its partition",
    "offset": "and its offset there",
    "timestamp": "the record's own, in milliseconds since the epoch",
    "group": "the consumer group that put it aside",
    "reason": f"what was raised, as one line of at most {REASON_LIMIT:,} characters",
    "error": "its class",
    "attempts": "how often it was tried",
    "rounds": "how often it had been replayed before; missing: never",
    "at": "when it was put aside, as `2026-01-31T07:15:00.125Z`",
    "traceback": f"the last {TRACEBACK_LIMIT:,} bytes of it",
}

#: As large as a number of Kafka's can get; a header with more digits is not ours.
_DIGITS: Final = re.compile(r"-?[0-9]{1,19}")


class Detail(IntEnum):
    """How much is told. A letter that is too large for its topic is told in fewer words."""

    FULL = 0
    NO_TRACEBACK = 1
    SHORT = 2


@dataclass(frozen=True, slots=True)
class Letter:
    """A record on its way to the dead-letter ``topic``.

    ``error`` is the class of what was raised, ``at`` seconds since the epoch.
    """

    record: Record
    topic: str
    reason: str
    error: str
    traceback: str
    attempts: int
    group: str
    at: float


@dataclass(frozen=True, slots=True)
class Origin:
    """What the headers of a dead letter say.

    ``timestamp`` is the original record's, in milliseconds, ``at`` when it was put aside, in
    seconds since the epoch.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int = -1
    group: str = ""
    reason: str = ""
    error: str = ""
    traceback: str = ""
    attempts: int = 0
    rounds: int = 0
    at: float | None = None

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


def headers(letter: Letter, detail: Detail = Detail.FULL) -> list[tuple[str, bytes | None]]:
    """The headers of the letter: those of the record, unchanged and in order, then ours."""
    record = letter.record
    short = detail is Detail.SHORT
    ours = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp": str(record.timestamp),
        "group": letter.group,
        "reason": _one_line(letter.reason, SHORT_REASON if short else REASON_LIMIT),
        "error": _one_line(letter.error, _NAME_LIMIT),
        "attempts": str(letter.attempts),
        **({"rounds": str(rounds)} if (rounds := _rounds(_ours(record.headers))) else {}),
        "at": iso(letter.at),
    }
    if letter.traceback and detail is Detail.FULL:
        ours["traceback"] = _tail(letter.traceback, TRACEBACK_LIMIT)
    return original(record.headers) + [(PREFIX + name, _encode(ours[name])) for name in ours]


def original(headers: Headers) -> list[tuple[str, bytes | None]]:
    """The record's own headers, those that are not ours."""
    return [(name, value) for name, value in headers if not name.startswith(PREFIX)]


def replayed(headers: Headers) -> list[tuple[str, bytes | None]]:
    """What a letter with these ``headers`` is replayed with: the record's own, and the round."""
    rounds = _rounds(_ours(headers)) + 1
    return [*original(headers), (PREFIX + "rounds", _encode(str(rounds)))]


def origin(headers: Headers) -> Origin | None:
    """Where a dead letter came from and why; ``None`` when it is not one of ours."""
    ours = _ours(headers)
    partition, offset = _number(ours.get("partition")), _number(ours.get("offset"))
    if not ours.get("topic") or partition is None or offset is None:
        return None
    timestamp = _number(ours.get("timestamp"))
    return Origin(
        topic=ours["topic"],
        partition=partition,
        offset=offset,
        timestamp=-1 if timestamp is None else timestamp,
        group=ours.get("group", ""),
        reason=ours.get("reason", ""),
        error=ours.get("error", ""),
        traceback=ours.get("traceback", ""),
        attempts=_number(ours.get("attempts")) or 0,
        rounds=_rounds(ours),
        at=_moment(ours.get("at", "")),
    )


def iso(at: float) -> str:
    """``2026-01-31T07:15:00.125Z``."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _ours(headers: Headers) -> dict[str, str]:
    return {
        name.removeprefix(PREFIX): value.decode(errors="replace")
        for name, value in headers
        if value is not None and name.startswith(PREFIX)
    }


def _rounds(ours: dict[str, str]) -> int:
    return max(0, _number(ours.get("rounds")) or 0)


def _one_line(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _tail(text: str, limit: int) -> str:
    raw = _encode(text)
    if len(raw) <= limit:
        return text
    kept = raw[len("…\n".encode()) - limit :]
    return "…\n" + kept.decode(errors="ignore")  # a character may be cut in two


def _encode(text: str) -> bytes:
    return text.encode(errors="backslashreplace")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _DIGITS.fullmatch(text) else None


def _moment(text: str) -> float | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
