"""Dead letters for people, and as JSON."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from penstock import render
from penstock.letter_filter import Stored
from penstock.letters import Origin, original
from penstock.record import printable

FOREIGN: Final = "(not a letter)"

_HEAD: Final = ("AT", "SINCE", "FROM", "KEY", "ATTEMPTS", "ROUNDS", "ERROR", "REASON")
_WIDTH: Final = 16  # bytes in a line of hex
_KEY: Final = 40  # characters of a key in the table
_REASON: Final = 40  # and of a reason at least, however narrow the terminal
#: Bytes of a value that are shown, as text and as hex: more than that is for ``show --raw``.
TEXT_LIMIT: Final = 16_384
HEX_LIMIT: Final = 1_024


def table(rows: Iterable[Sequence[str]], *, states: bool, width: int | None = None) -> str:
    """A line for each :func:`row`, its reason cut so that it has ``width`` characters.

    ``states``: with a column that tells the open ones from the others.
    """
    text = render.table((_HEAD[0], "STATE", *_HEAD[1:]) if states else _HEAD, rows)
    if width is None:
        return text
    width = max(width, text.index(_HEAD[-1]) + _REASON)  # the head is the first line
    return "\n".join(_cut(line, width) for line in text.splitlines())


def row(stored: Stored, *, states: bool) -> list[str]:
    """A letter's line in the table; without its value, which may be large."""
    cells = _row(stored)
    return [cells[0], "done" if stored.settled else "open", *cells[1:]] if states else cells


def _cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) <= width else text[: max(0, width - 1)] + "…"


def _row(stored: Stored) -> list[str]:
    number, offset = stored.at
    origin = stored.origin
    return [
        f"{number}:{offset}",
        when(stored.since),
        plain(str(origin)) if origin is not None else "-",
        _cut(_or_dash(printable(stored.record.key)), _KEY),
        str(origin.attempts) if origin is not None else "-",
        str(origin.rounds) if origin is not None else "-",
        _or_dash(plain(origin.error)) if origin is not None else "-",
        plain(origin.reason) if origin is not None else FOREIGN,
    ]


def as_json(stored: Stored) -> dict[str, Any]:
    """What ``list --json`` says of a letter; the value is for ``show``."""
    record, origin = stored.record, stored.origin
    said: dict[str, Any] = {
        "at": f"{record.partition}:{record.offset}",
        "state": "done" if stored.settled else "open",
        "letter": origin is not None,
        "since": when(stored.since),
        "key": printable(record.key),
        "value_bytes": None if record.value is None else len(record.value),
    }
    if origin is not None:
        said |= {
            "topic": origin.topic,
            "partition": origin.partition,
            "offset": origin.offset,
            "timestamp": when(origin.timestamp / 1000),
            "group": origin.group,
            "attempts": origin.attempts,
            "rounds": origin.rounds,
            "error": origin.error,
            "reason": origin.reason,
        }
    return said


def trait(stored: Stored, by: str) -> str:
    """What letters are counted by: their error, reason, topic or group."""
    origin = stored.origin
    if origin is None:
        return FOREIGN
    # A reason that begins with its record's place is a reason of its own for every letter.
    said = str(getattr(origin, by)).removeprefix(f"{origin} ")
    return plain(said) or "-"


def show(stored: Stored, now: float) -> str:
    """Everything about one letter."""
    return "\n".join(_show(stored, now))


def _show(stored: Stored, now: float) -> Iterator[str]:
    record, origin = stored.record, stored.origin
    yield f"{record}: {'dealt with' if stored.settled else 'open'}"
    yield ""
    if origin is None:
        yield "not a letter: it has no headers of Penstock's"
        yield f"written   {when(stored.since)}"
    else:
        yield from _origin(origin, now)
    yield f"key       {_or_dash(printable(record.key))}"
    for at, (name, value) in enumerate(original(record.headers)):
        label = "" if at else "headers"
        yield f"{label:<10}{plain(name)}: {_or_dash(printable(value))}"
    if record.value is None:
        yield "value     none (a tombstone)"
    else:
        yield f"value     {len(record.value):,} bytes"
        yield ""
        yield content(record.value)
    if origin is not None and origin.traceback:
        yield ""
        yield plain(origin.traceback.rstrip("\n"), lines=True)


def _origin(origin: Origin, now: float) -> Iterator[str]:
    yield f"from      {plain(str(origin))}, written {when(origin.timestamp / 1000)}"
    at = (
        f"{when(origin.at)} ({render.duration(max(0.0, now - origin.at))} ago)"
        if origin.at
        else "-"
    )
    yield f"since     {at}"
    tries = "1 attempt" if origin.attempts == 1 else f"{origin.attempts} attempts"
    yield f"by        group {plain(origin.group) or '-'}, after {tries}"
    if origin.rounds:
        times = "once" if origin.rounds == 1 else f"{origin.rounds} times"
        yield f"rounds    replayed {times} before, and put aside again"
    yield f"reason    {plain(origin.reason) or '-'}"
    yield f"error     {plain(origin.error) or '-'}"


def content(value: bytes) -> str:
    """A value as text if it is text, else as hex; of a large one the beginning."""
    text = _text(value[:TEXT_LIMIT], whole=len(value) <= TEXT_LIMIT)
    if text is not None:
        return text + _more(value, TEXT_LIMIT)
    return _hex(value[:HEX_LIMIT]) + _more(value, HEX_LIMIT)


def _text(value: bytes, *, whole: bool) -> str | None:
    try:
        # The end of a part may be in the middle of a character.
        text, _ = codecs.utf_8_decode(value, "strict", whole)
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c in "\n\r\t" for c in text) else None


def _more(value: bytes, shown: int) -> str:
    more = len(value) - shown
    return f"\n… {more:,} bytes more: penstock dlq show --raw" if more > 0 else ""


def _hex(value: bytes) -> str:
    lines = []
    for at in range(0, len(value), _WIDTH):
        piece = value[at : at + _WIDTH]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in piece)  # noqa: PLR2004 (ASCII)
        lines.append(f"{at:08x}  {piece.hex(' '):<{3 * _WIDTH}} {text}")
    return "\n".join(lines)


def plain(text: str, *, lines: bool = False) -> str:
    """``text`` without what could drive a terminal: anybody may write headers."""
    keep = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)


def when(at: float) -> str:
    """``2026-01-31T07:15:00Z``; ``-`` for what is no time."""
    if at < 0:
        return "-"
    try:
        return datetime.fromtimestamp(int(at), UTC).isoformat()[:-6] + "Z"
    except (OverflowError, ValueError, OSError):
        return "-"


def _or_dash(text: str | None) -> str:
    return text or "-"
