"""The in-flight board: a page of memory that a worker shares with its supervisor.

A handler stuck in C code holds the GIL, and a process that was killed says nothing: neither
can answer "what are you working on?". So each handler thread notes the record *before* it
calls the handler, in memory that the supervisor can read at any time. Probes, metrics and
the answer to "what blocked the drain?" come from here, and cost one ``pack_into`` a record.

A board begins in anonymous memory. When a worker starts to consume it moves to a file in the
state directory, where there is one (:mod:`penstock.board_file`): so it outlives the whole
container, and the next run reads what was held. Nothing is ever synced: the pages are the
kernel's, and survive every death but the machine's.

The worker writes through a mapping; whoever looks reads with ``pread``: a file that is cut,
or a disk that fails, then is an error and not a SIGBUS, which PID 1 must not die of.

Times are ``time.monotonic()`` seconds. On Linux that clock is one for all processes of a
machine; a board that was left by another boot is read for differences only.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.record import Record

#: poll loop's last pass, record done last (wall clock), records taken first (wall clock),
#: handling a record alone, draining
_HEADER: Final = struct.Struct("<dddBB")
_ALONE_AT: Final = 24
_DRAINING_AT: Final = 25
#: Generation and member id, of a member that has joined.
_MEMBER: Final = struct.Struct("<i160p")
_MEMBER_AT: Final = 320
_MEMBER_LENGTH: Final = 159
#: From 32 on it is a file's, see :mod:`penstock.board_file`.
_HEADER_SIZE: Final = 512

#: ``p`` is a Pascal string: one length byte, cut at the field's size, never overflowing.
#: started (0 = idle), first offset, last offset, partition, count, key
_RECORD: Final = struct.Struct("<dqqii96p")
_TOPIC: Final = struct.Struct("<256p")
_SLOT_SIZE: Final = 512
_TOPIC_AT: Final = _RECORD.size

_NO_KEY: Final = b"\0none"


@dataclass(frozen=True, slots=True)
class Working:
    """A record (or a batch: ``count`` > 1, from ``offset`` to ``last``) that a handler holds."""

    slot: int
    topic: str
    partition: int
    offset: int
    count: int
    key: bytes | None
    since: float
    #: The last record's offset; that of the only one, where it is one.
    last: int

    def __str__(self) -> str:
        many = f" and {self.count - 1} more" if self.count > 1 else ""
        return f"{self.topic}[{self.partition}]@{self.offset}{many}"


class Board:
    """Shared memory with a header and one slot for each handler thread."""

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self.slots = slots
        self._mapped: mmap.mmap | None = None
        self._made: list[Slot] = []

    @classmethod
    def create(cls, slots: int) -> Board:
        """A new board with ``slots`` slots, in anonymous memory (no file is left behind)."""
        try:
            fd = os.memfd_create("penstock-board")
        except (AttributeError, OSError):  # not Linux, or forbidden by a seccomp profile
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, size_of(slots))
        return cls(fd, slots)

    def close(self) -> None:
        """Unmap and close."""
        if self._mapped is not None:
            self._mapped.close()
        os.close(self.fd)

    # -- the worker's side -------------------------------------------------------------

    @property
    def _map(self) -> mmap.mmap:
        if self._mapped is None:
            self._mapped = mmap.mmap(self.fd, size_of(self.slots))
        return self._mapped

    def move(self, fd: int) -> None:
        """Go on in another file, as large. Before the first record: nobody may be writing."""
        before, self.fd, self._mapped = self._mapped, fd, mmap.mmap(fd, size_of(self.slots))
        for slot in self._made:
            slot._map = self._mapped  # noqa: SLF001 (same module)
        if before is not None:
            before.close()

    def alone(self, is_alone: bool) -> None:
        """A record is handled with nothing beside it, to see whether it kills."""
        self._map[_ALONE_AT] = is_alone

    def draining(self) -> None:
        """The worker was told to leave: whoever kills it now may have lost patience only."""
        self._map[_DRAINING_AT] = True

    def beat(self) -> None:
        """The poll loop made another pass."""
        struct.pack_into("<d", self._map, 0, time.monotonic())

    def last_done(self, wall: float) -> None:
        """A record was finished at ``wall`` (seconds since the epoch)."""
        struct.pack_into("<d", self._map, 8, wall)

    def first_taken(self, wall: float) -> None:
        """The first record of this process was handed to a handler at ``wall``."""
        struct.pack_into("<d", self._map, 16, wall)

    def member(self, name: str, generation: int) -> None:
        """As whom the worker may commit; what is too long is not noted."""
        noted = name.encode()
        if len(noted) <= _MEMBER_LENGTH:
            _MEMBER.pack_into(self._map, _MEMBER_AT, generation, noted)

    def slot(self, index: int) -> Slot:
        """The writing end of one slot."""
        slot = Slot(self._map, _HEADER_SIZE + index * _SLOT_SIZE)
        self._made.append(slot)
        return slot

    # -- the supervisor's side ---------------------------------------------------------

    def poll_at(self) -> float | None:
        """When the poll loop last passed (monotonic), ``None`` before the first time."""
        return self._header()[0] or None

    def done_at(self) -> float | None:
        """When a record was last finished (wall clock), ``None`` if none was."""
        return self._header()[1] or None

    def taken_at(self) -> float | None:
        """When the first record was taken (wall clock), ``None`` if none was."""
        return self._header()[2] or None

    def joined_as(self) -> tuple[str, int] | None:
        """Member id and generation, ``None`` if it never joined."""
        generation, name = _MEMBER.unpack(self._bytes(_MEMBER_AT, _MEMBER.size))
        return (name.decode(), generation) if name else None

    def working(self) -> list[Working]:
        """What every busy handler thread holds, oldest first."""
        found = [w for index in range(self.slots) if (w := self._read(index)) is not None]
        return sorted(found, key=lambda w: w.since)

    @property
    def is_alone(self) -> bool:
        """Whether what is held is handled with nothing beside it, see :meth:`alone`."""
        return bool(self._header()[3])

    @property
    def is_draining(self) -> bool:
        """Whether the worker was leaving."""
        return bool(self._header()[4])

    def _header(self) -> tuple[float, float, float, int, int]:
        poll, done, taken, alone, draining = _HEADER.unpack(self._bytes(0, _HEADER.size))
        return poll, done, taken, alone, draining

    def _bytes(self, at: int, size: int) -> bytes:
        """What is there; zeros, which say nothing, where it cannot be read."""
        try:
            found = os.pread(self.fd, size, at)
        except OSError:
            found = b""
        return found.ljust(size, b"\0")

    def _read(self, index: int) -> Working | None:
        at = _HEADER_SIZE + index * _SLOT_SIZE
        # The writer is another process and takes no lock. A slot that reads the same twice
        # was not being written; one that keeps changing is making progress, and what it
        # held a microsecond ago is as good an answer as any.
        for _ in range(8):
            before = self._bytes(at, _SLOT_SIZE)
            if before == self._bytes(at, _SLOT_SIZE):
                break
        since, offset, last, partition, count, key = _RECORD.unpack_from(before)
        if not since:
            return None
        topic = _TOPIC.unpack_from(before, _TOPIC_AT)[0].decode(errors="replace")
        kept = None if key == _NO_KEY else key
        return Working(index, topic, partition, offset, count, kept, since, last)


class Slot:
    """Where one handler thread writes what it holds."""

    __slots__ = ("_at", "_map", "_topic")

    def __init__(self, memory: mmap.mmap, at: int) -> None:
        self._map = memory
        self._at = at
        self._topic = ""

    def enter(self, topic: str) -> None:
        """The thread turns to a partition of ``topic``; once per batch, not per record."""
        if topic != self._topic:
            self._topic = topic
            _TOPIC.pack_into(self._map, self._at + _TOPIC_AT, topic.encode())

    def hold(self, since: float, offset: int, partition: int, key: bytes | None) -> None:
        """The thread is about to call the handler with this record."""
        _RECORD.pack_into(
            self._map,
            self._at,
            since,
            offset,
            offset,
            partition,
            1,
            _NO_KEY if key is None else key,
        )

    def hold_batch(self, since: float, records: Sequence[Record]) -> None:
        """The thread is about to call the handler with these records."""
        first = records[0]
        _RECORD.pack_into(
            self._map,
            self._at,
            since,
            first.offset,
            records[-1].offset,
            first.partition,
            len(records),
            _NO_KEY if first.key is None else first.key,
        )

    def clear(self) -> None:
        """The thread holds nothing."""
        struct.pack_into("<d", self._map, self._at, 0.0)


def size_of(slots: int) -> int:
    """The size of a board, in bytes."""
    return _HEADER_SIZE + slots * _SLOT_SIZE
