"""What is finished beyond the watermark, as text for the metadata of an offset commit.

Kafka keeps one number a partition, and beside it a string of at most 4096 bytes
(``offset.metadata.max.bytes``). With several handlers at work in one partition, records behind
the watermark's next one are finished already; without this string they would all be handled
again after a crash.

The form: ``penstock1:`` and base64 of one byte for the encoding and then either

* ``R``, run lengths: LEB128 numbers, *unfinished, finished, unfinished, finished …*, counted in
  offsets from the committed position; or
* ``B``, a bitmap: one bit an offset, least significant first, from the committed position.

Whichever is shorter. Runs suit a few slow records, the bitmap a hot key whose records lie
between those of others.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Iterator
from typing import Final

#: Bytes of text at most: well below the broker's default limit of 4096.
LIMIT: Final = 3_000

_PREFIX: Final = "penstock1:"
_RAW: Final = (LIMIT - len(_PREFIX)) // 4 * 3 - 1

#: Offsets beyond the position that a bitmap can always describe.
SPAN: Final = _RAW * 8

#: Finished records that run lengths can always describe, however far apart: each needs at most
#: two numbers below 2**63, of nine bytes each.
ALWAYS: Final = _RAW // 18


class BadMap(ValueError):
    """Not a map of ours, or a damaged one. Nothing is lost: what it said is handled again."""


def encode(position: int, finished: Collection[int]) -> str:
    """The text for ``finished``, offsets at or beyond ``position``; empty for none.

    Raises:
        ValueError: an offset before the position, or more than fits (:func:`fits`).
    """
    if not finished:
        return ""
    offsets = sorted(finished)
    if offsets[0] < position:
        raise ValueError(f"offset {offsets[0]} is before the position {position}")
    raw = min(_forms(position, offsets), key=len)
    if len(raw) > _RAW + 1:
        raise ValueError(f"{len(offsets)} offsets do not fit into {LIMIT} bytes")
    return _PREFIX + base64.b64encode(raw).decode()


def decode(position: int, text: str) -> frozenset[int]:
    """The offsets that ``text``, committed with ``position``, calls finished.

    A text that somebody else's consumer left there says nothing: the empty set.

    Raises:
        BadMap: ours, but damaged.
    """
    if not text.startswith(_PREFIX):
        return frozenset()
    if len(text) > LIMIT:
        raise BadMap(f"{len(text)} bytes, {LIMIT} at most")
    try:
        raw = base64.b64decode(text[len(_PREFIX) :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadMap(str(error)) from error
    match raw[:1]:
        case b"R":
            found = _from_runs(raw[1:])
        case b"B":
            found = _from_bits(raw[1:])
        case other:
            raise BadMap(f"unknown encoding {other!r}")
    return frozenset(position + offset for offset in found)


def fits(position: int, farthest: int, count: int) -> bool:
    """Whether ``count`` records up to the offset ``farthest`` may be handed out at once.

    Whatever of them then finishes, in whatever order, :func:`encode` has room for it. Asked
    before a record is handed out: back-pressure must come before the text overflows.
    """
    return farthest - position < SPAN or count <= ALWAYS


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


#: A run can say "a billion records" in five bytes; a damaged text must not cost the memory.
_MOST: Final = 10_000_000
