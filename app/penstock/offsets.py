"""The offset watermark of one partition: how far everything is finished.

Kafka keeps one number per partition and group, the *next* offset to read. Committing it says
"everything before is done". Offsets are not contiguous (compaction, transaction markers), so
the watermark remembers which offsets were handed out instead of counting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple


class Position(NamedTuple):
    """What a group has committed for a partition: the next offset to read, and a text with it.

    The text says what is finished beyond the offset (:mod:`penstock.offset_map`).
    """

    offset: int
    metadata: str = ""


class Watermark:
    """Offsets handed out and finished, and the position that may be committed.

    ``admit`` is called by the thread that polls, ``done`` by the one that handles. The two
    ends of the deque belong to one thread each, so the sequential path (one handler at a
    time in a partition) needs no lock: ``deque`` operations are atomic in CPython.
    Finishing out of order from several threads needs the caller's lock.
    """

    __slots__ = ("_beyond", "_pending", "position")

    def __init__(self) -> None:
        self._pending: deque[int] = deque()
        self._beyond: set[int] = set()
        #: Next offset to commit, ``None`` until something finished.
        self.position: int | None = None

    def admit(self, offsets: Iterable[int]) -> None:
        """Offsets were handed out for work, ascending, each once."""
        self._pending.extend(offsets)

    def done(self, offset: int) -> None:
        """``offset`` finished. The position moves once everything before it has, too.

        Raises:
            ValueError: the offset was never admitted, or finished twice.
        """
        pending = self._pending
        if pending and pending[0] == offset:
            pending.popleft()
            position = offset + 1
            beyond = self._beyond
            while beyond and pending and pending[0] in beyond:
                position = pending.popleft()
                beyond.remove(position)
                position += 1
            self.position = position
            return
        if offset in self._beyond or offset not in pending:
            raise ValueError(f"offset {offset} is not outstanding")
        self._beyond.add(offset)

    @property
    def lowest(self) -> int | None:
        """The first admitted offset that is not finished, ``None`` if all are. From any thread."""
        try:
            return self._pending[0]
        except IndexError:
            return None

    @property
    def outstanding(self) -> int:
        """How many admitted offsets are not finished."""
        return len(self._pending) - len(self._beyond)


class Tracker:
    """Offsets of one partition that finish in any order, and what to commit of them.

    What finished beyond the position goes into the commit's metadata
    (:mod:`penstock.offset_map`), so that a crash repeats only what is in neither. Not
    thread-safe.
    """

    __slots__ = ("_beyond", "_known", "_open", "_pending", "position")

    def __init__(self, known: Iterable[int] = ()) -> None:
        """``known``: finished by an earlier owner, from the metadata of its last commit."""
        self._known = set(known)
        self._pending: deque[int] = deque()
        self._open: set[int] = set()
        self._beyond: set[int] = set()
        #: Next offset to commit, ``None`` until something was admitted.
        self.position: int | None = None

    def admit(self, offsets: Iterable[int]) -> list[int]:
        """Offsets arrived, ascending, each once; returns those that are still to be done."""
        todo = []
        for offset in offsets:
            if self.position is None:
                self.position = offset
            self._pending.append(offset)
            if offset in self._known:
                self._known.discard(offset)
                self._beyond.add(offset)
            else:
                self._open.add(offset)
                todo.append(offset)
        self._advance()
        return todo

    def done(self, offset: int) -> None:
        """``offset`` finished.

        Raises:
            ValueError: it was never admitted, or finished twice.
        """
        try:
            self._open.remove(offset)
        except KeyError:
            raise ValueError(f"offset {offset} is not outstanding") from None
        self._beyond.add(offset)
        if self._pending[0] == offset:
            self._advance()

    def _advance(self) -> None:
        pending, beyond = self._pending, self._beyond
        while pending and pending[0] in beyond:
            offset = pending.popleft()
            beyond.remove(offset)
            self.position = offset + 1

    @property
    def beyond(self) -> frozenset[int]:
        """Finished, but something before them is not."""
        return frozenset(self._beyond)

    @property
    def outstanding(self) -> int:
        """How many admitted offsets are not finished."""
        return len(self._open)
