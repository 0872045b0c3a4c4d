"""The offset watermark of one partition: how far everything is finished.

Kafka keeps one number per partition and group, the *next* offset to read. Committing it says
"everything before is done". Offsets are not contiguous (compaction, transaction markers), so
the watermark remembers which offsets were handed out instead of counting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


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
