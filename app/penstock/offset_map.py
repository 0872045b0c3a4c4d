"""What is known of records at and beyond the watermark, as text beside a committed offset.

Kafka keeps one number a partition, and beside it a string of at most 4096 bytes
(``offset.metadata.max.bytes``). With several handlers at work in one partition, records behind
the watermark's next one are finished already; without this string they would all be handled
again after a crash. And a record that killed the process that handled it would kill the next
one, and the next, if nobody counted.

The text, empty when there is nothing to say, has two parts of base64, ``MAP`` or ``MAP.DEATHS``.

``MAP`` is one byte for the encoding and then either

* ``R``, run lengths: LEB128 numbers, *unfinished, finished, unfinished, finished …*, counted in
  offsets from the committed position; or
* ``B``, a bitmap: one bit an offset, least significant first, from the committed position.

Whichever is shorter. Runs suit a few slow records, the bitmap a hot key whose records lie
between those of others.

``DEATHS`` is four LEB128 numbers for each :class:`Deaths`, oldest first: *first offset, counted
from the committed position; how many offsets follow it; times; flags*.

Both parts have room of their own, so that what is said of deaths never takes any from the map.
The text counts from the committed position and means nothing beside another one, or in another
log: what goes to Kafka names both (:mod:`penstock.map_seal`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

#: Bytes of what goes to Kafka at most: well below the broker's default limit of 4096.
LIMIT: Final = 3_000
#: What of it is left to the seal, to the deaths (with the dot), and to the map.
SEAL_LIMIT: Final = 80
DEATHS_LIMIT: Final = 300
MAP_LIMIT: Final = LIMIT - SEAL_LIMIT - DEATHS_LIMIT

_RAW: Final = MAP_LIMIT // 4 * 3 - 1
_RAW_DEATHS: Final = (DEATHS_LIMIT - 1) // 4 * 3

#: Offsets beyond the position that a bitmap can always describe.
SPAN: Final = _RAW * 8

#: Finished records that run lengths can always describe, however far apart: each needs at most
#: two numbers below 2**63, of nine bytes each.
ALWAYS: Final = _RAW // 18

#: Entries about deaths at most.
MOST_DEATHS: Final = 16


class BadMap(ValueError):
    """Not a map of ours, or a damaged one. Nothing is lost: what it said is handled again."""


class Deaths(NamedTuple):
    """The records ``first`` to ``last`` were in the company of ``times`` deaths.

    Of their process, each time it had taken them up and not finished them. ``flags`` is a
    number below 128 that the map only carries.
    """

    first: int
    last: int
    times: int
    flags: int = 0


class Beyond(NamedTuple):
    """What a text says: the finished offsets, and the deaths, oldest first."""

    finished: frozenset[int] = frozenset()
    deaths: tuple[Deaths, ...] = ()

    @property
    def farthest(self) -> int:
        """The last offset that is spoken of; -1 for none."""
        died = max((each.last for each in self.deaths), default=-1)
        return max(max(self.finished, default=-1), died)


NOTHING: Final = Beyond()


def encode(position: int, finished: Collection[int], deaths: Sequence[Deaths] = ()) -> str:
    """The text for ``finished``, offsets at or beyond ``position``, and for ``deaths``.

    Of the deaths those that are over (below the position) are left out, and the oldest where
    there is no room for all. Empty for nothing.

    Raises:
        ValueError: an offset before the position, or more than fits (:func:`fits`).
    """
    said = _deaths(position, deaths)
    return _map(position, finished) + ("." + _base64(said) if said else "")


def decode(position: int, text: str) -> Beyond:
    """What ``text`` says beside the ``position`` that it was made for.

    Raises:
        BadMap: damaged.
    """
    if len(text) > LIMIT:
        raise BadMap(f"{len(text)} bytes, {LIMIT} at most")
    body, _, said = text.partition(".")
    found: Iterable[int] = ()
    if body:
        raw = _unbase64(body)
        match raw[:1]:
            case b"R":
                found = _from_runs(raw[1:])
            case b"B":
                found = _from_bits(raw[1:])
            case other:
                raise BadMap(f"unknown encoding {other!r}")
    return Beyond(
        frozenset(position + offset for offset in found),
        tuple(_from_deaths(position, _unbase64(said))),
    )


def fits(position: int, farthest: int, count: int) -> bool:
    """Whether ``count`` records up to the offset ``farthest`` may be handed out at once.

    Whatever of them then finishes, in whatever order, :func:`encode` has room for it, and for
    whatever is said of deaths. Asked before a record is handed out: back-pressure must come
    before the text overflows.
    """
    return farthest - position < SPAN or count <= ALWAYS


# -- the map ---------------------------------------------------------------------------


def _map(position: int, finished: Collection[int]) -> str:
    if not finished:
        return ""
    offsets = sorted(finished)
    if offsets[0] < position:
        raise ValueError(f"offset {offsets[0]} is before the position {position}")
    raw = min(_forms(position, offsets), key=len)
    if len(raw) > _RAW + 1:
        raise ValueError(f"{len(offsets)} offsets do not fit into {MAP_LIMIT} bytes")
    return _base64(raw)


def _forms(position: int, offsets: list[int]) -> Iterator[bytes]:
    """The same as runs and, where it is not hopeless, as a bitmap."""
    runs = bytearray(b"R")
    at = start = position
    for offset in [*offsets, None]:
        if offset == at and at != start:
            at += 1
            continue
        if at != start:
            runs += _number(at - start)
        if offset is not None:
            runs += _number(offset - at)
            start, at = offset, offset + 1
    yield bytes(runs)
    if offsets[-1] - position < SPAN:
        bits = 0
        for offset in offsets:
            bits |= 1 << (offset - position)
        yield b"B" + bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def _from_runs(raw: bytes) -> Iterable[int]:
    numbers = list(_numbers(raw))
    if len(numbers) % 2:
        raise BadMap("it ends within a run")
    at = 0
    found: list[int] = []
    for gap, run in zip(numbers[::2], numbers[1::2], strict=True):
        if run > _MOST:
            raise BadMap(f"a run of {run} records")
        found.extend(range(at + gap, at + gap + run))
        at += gap + run
        if len(found) > _MOST:
            raise BadMap("more records than a worker can hold")
    return found


def _from_bits(raw: bytes) -> Iterable[int]:
    return [8 * i + bit for i, byte in enumerate(raw) for bit in range(8) if byte >> bit & 1]


# -- deaths ----------------------------------------------------------------------------


def _deaths(position: int, deaths: Sequence[Deaths]) -> bytes:
    """Those that still matter; the youngest where there is no room for all."""
    said: list[bytes] = []
    size = 0
    for each in reversed(deaths):
        if each.last < position:
            continue
        first = max(each.first, position)
        numbers = first - position, each.last - first, each.times, each.flags
        entry = b"".join(map(_number, numbers))
        size += len(entry)
        if len(said) == MOST_DEATHS or size > _RAW_DEATHS:
            break
        said.append(entry)
    return b"".join(reversed(said))


def _from_deaths(position: int, raw: bytes) -> Iterator[Deaths]:
    numbers = list(_numbers(raw))
    if len(numbers) % 4 or len(numbers) > 4 * MOST_DEATHS:
        raise BadMap(f"{len(numbers)} numbers about deaths")
    for first, more, times, flags in zip(*(numbers[n::4] for n in range(4)), strict=True):
        yield Deaths(position + first, position + first + more, times, flags)


# -- numbers ---------------------------------------------------------------------------


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 (LEB128: seven bits a byte)
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _numbers(raw: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in raw:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 (LEB128: the last byte of a number)
            yield value
            value = shift = 0
    if shift:
        raise BadMap("it ends within a number")


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadMap(str(error)) from error


#: A run can say "a billion records" in five bytes; a damaged text must not cost the memory.
_MOST: Final = 10_000_000
