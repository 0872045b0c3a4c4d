"""The in-flight board: a page of memory that a worker shares with its supervisor.

A handler stuck in C code holds the GIL, and a process that was killed says nothing: neither
can answer "what are you working on?". So each handler thread notes the record *before* it
calls the handler, in memory that the supervisor can read at any time. Probes, metrics and
the answer to "what blocked the drain?" come from here, and cost one ``pack_into`` a record.

Times are ``time.monotonic()`` seconds. On Linux that clock is one for all processes of a
machine; the board is only ever read by the process that made it and by its children.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from dataclasses import dataclass
from typing import Final

#: poll loop's last pass, record done last (wall clock), records taken first (wall clock)
_HEADER: Final = struct.Struct("<ddd")
_HEADER_SIZE: Final = 64

#: ``p`` is a Pascal string: one length byte, cut at the field's size, never overflowing.
#: started (0 = idle), offset, partition, count, key
_RECORD: Final = struct.Struct("<dqii96p")
_TOPIC: Final = struct.Struct("<256p")
_SLOT_SIZE: Final = 512
_TOPIC_AT: Final = _RECORD.size

_NO_KEY: Final = b"\0none"


@dataclass(frozen=True, slots=True)
class Working:
    """A record (or a batch: ``count`` > 1, ``offset`` the first) that a handler holds."""

    slot: int
    topic: str
    partition: int
    offset: int
    count: int
    key: bytes | None
    since: float

    def __str__(self) -> str:
        many = f" and {self.count - 1} more" if self.count > 1 else ""
        return f"{self.topic}[{self.partition}]@{self.offset}{many}"


class Board:
    """Shared memory with a header and one slot for each handler thread."""

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self.slots = slots
        self._map = mmap.mmap(fd, _HEADER_SIZE + slots * _SLOT_SIZE)

    @classmethod
    def create(cls, slots: int) -> Board:
        """A new board with ``slots`` slots, in anonymous memory (no file is left behind)."""
        size = _HEADER_SIZE + slots * _SLOT_SIZE
        try:
            fd = os.memfd_create("penstock-board")
        except (AttributeError, OSError):  # not Linux, or forbidden by a seccomp profile
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, size)
        return cls(fd, slots)

    def close(self) -> None:
        """Unmap and close."""
        self._map.close()
        os.close(self.fd)

    # -- the worker's side -------------------------------------------------------------

    def beat(self) -> None:
        """The poll loop made another pass."""
        struct.pack_into("<d", self._map, 0, time.monotonic())

    def last_done(self, wall: float) -> None:
        """A record was finished at ``wall`` (seconds since the epoch)."""
        struct.pack_into("<d", self._map, 8, wall)

    def first_taken(self, wall: float) -> None:
        """The first record of this process was handed to a handler at ``wall``."""
        struct.pack_into("<d", self._map, 16, wall)

    def slot(self, index: int) -> Slot:
        """The writing end of one slot."""
        return Slot(self._map, _HEADER_SIZE + index * _SLOT_SIZE)

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

    def working(self) -> list[Working]:
        """What every busy handler thread holds, oldest first."""
        found = [w for index in range(self.slots) if (w := self._read(index)) is not None]
        return sorted(found, key=lambda w: w.since)

    def _header(self) -> tuple[float, float, float]:
        poll, done, taken = _HEADER.unpack_from(self._map, 0)
        return poll, done, taken

    def _read(self, index: int) -> Working | None:
        at = _HEADER_SIZE + index * _SLOT_SIZE
        # The writer is another process and takes no lock. A slot that reads the same twice
        # was not being written; one that keeps changing is making progress, and what it
        # held a microsecond ago is as good an answer as any.
        for _ in range(8):
            before = self._map[at : at + _SLOT_SIZE]
            if before == self._map[at : at + _SLOT_SIZE]:
                break
        since, offset, partition, count, key = _RECORD.unpack_from(before)
        if not since:
            return None
        topic = _TOPIC.unpack_from(before, _TOPIC_AT)[0].decode(errors="replace")
        return Working(
            index, topic, partition, offset, count, None if key == _NO_KEY else key, since
        )


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

    def hold(
        self, since: float, offset: int, partition: int, count: int, key: bytes | None
    ) -> None:
        """The thread is about to call the handler with this record."""
        _RECORD.pack_into(
            self._map, self._at, since, offset, partition, count, _NO_KEY if key is None else key
        )

    def clear(self) -> None:
        """The thread holds nothing."""
        struct.pack_into("<d", self._map, self._at, 0.0)
