"""How far a partition is finished, and what is finished beyond.

Kafka keeps one number per partition and group, the *next* offset to read. Committing it says
"everything before is done". Offsets are not contiguous (compaction, transaction markers), so
what was handed out is remembered instead of counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from penstock.offset_map import fits


class Position(NamedTuple):
    """What a group has committed for a partition: the next offset to read, and a text with it.

    The text says what is finished beyond the offset, and what died there
    (:mod:`penstock.offset_map`); it means nothing beside another offset.
    """

    offset: int
    metadata: str = ""


class Tracker:
    """Offsets of one partition that finish in any order, and what to commit of them.

    What finished beyond the position goes into the commit's metadata
    (:mod:`penstock.offset_map`), so that a crash repeats only what is in neither. Not
    thread-safe.
    """

    __slots__ = ("_beyond", "_farthest", "_known", "_open", "_pending", "position", "version")

    def __init__(self, known: Iterable[int] = ()) -> None:
        """``known``: finished by an earlier owner, from the metadata of its last commit."""
        self._known = set(known)
        self._farthest = max(self._known, default=-1)
        self._pending: deque[int] = deque()
        self._open: set[int] = set()
        self._beyond: set[int] = set()
        #: Next offset to commit, ``None`` until something was admitted.
        self.position: int | None = None
        #: Counts what changed: as long as it stands still, so does what is to be committed.
        self.version = 0

    def admit(self, offsets: Iterable[int]) -> list[int]:
        """Offsets arrived, ascending, each once; returns those that are still to be done."""
        arrived = list(offsets)
        if not arrived:
            return arrived
        if self.position is None:
            self.position = arrived[0]
        self._pending.extend(arrived)
        if not self._known:
            self._open.update(arrived)
            return arrived
        known = self._known.intersection(arrived)
        self._known -= known
        self._beyond |= known
        todo = [offset for offset in arrived if offset not in known]
        self._open.update(todo)
        self._advance()
        return todo

    def room(self, offsets: Sequence[int]) -> int:
        """How many of ``offsets`` (ascending) may be handed out now, without overflow.

        Asked first, so that whatever finishes of them fits into a commit's metadata. One is
        always let through when none is open: it is the next position, not beyond it.
        """
        position = offsets[0] if self.position is None else self.position
        beyond = len(self._pending) + len(self._known)
        if fits(position, max(offsets[-1], self._farthest), beyond + len(offsets)):
            return len(offsets)
        low, high = 0 if self._open else 1, len(offsets) - 1
        while low < high:  # what does not fit for n does not fit for more
            middle = (low + high + 1) // 2
            if fits(position, max(offsets[middle - 1], self._farthest), beyond + middle):
                low = middle
            else:
                high = middle - 1
        return low

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
        self.version += 1
        if self._pending[0] == offset:
            self._advance()

    def done_all(self, offsets: Iterable[int]) -> None:
        """All of ``offsets`` finished, in whatever order.

        Raises:
            ValueError: as :meth:`done`; those before it in ``offsets`` are done.
        """
        unfinished, beyond = self._open, self._beyond
        try:
            for offset in offsets:
                unfinished.remove(offset)
                beyond.add(offset)
                self.version += 1
        except KeyError:
            raise ValueError(f"offset {offset} is not outstanding") from None
        finally:
            self._advance()

    def _advance(self) -> None:
        pending, beyond = self._pending, self._beyond
        while pending and pending[0] in beyond:
            offset = pending.popleft()
            beyond.remove(offset)
            self.position = offset + 1
            self.version += 1

    @property
    def beyond(self) -> frozenset[int]:
        """Finished at or beyond the position, also what an earlier owner finished there."""
        position = self.position or 0
        if self._known and min(self._known) < position:  # compacted away since, never to come
            self._known = {offset for offset in self._known if offset >= position}
        return frozenset(self._beyond | self._known)

    @property
    def lowest(self) -> int | None:
        """The first admitted offset that is not finished, ``None`` if all are."""
        return self._pending[0] if self._pending else None

    @property
    def outstanding(self) -> int:
        """How many admitted offsets are not finished."""
        return len(self._open)
