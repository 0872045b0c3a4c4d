"""One partition's way through a worker: what waits, what runs, how far it is finished."""

from __future__ import annotations

from collections import deque

from penstock.offsets import Watermark
from penstock.record import Partition, Record


class Lane:
    """A partition that this worker owns. One handler thread at a time works on it.

    ``stop`` is looked at between two records: set, the thread lets go of the lane after the
    record in flight. A lane is thrown away when its partition goes; one that comes back gets
    a new lane, so that work finished for the old ownership can never be committed under the
    new one.
    """

    __slots__ = (
        "attempts",
        "busy",
        "chunks",
        "committed",
        "gone",
        "index",
        "leaving",
        "partition",
        "queued",
        "stop",
        "watermark",
    )

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.chunks: deque[list[Record]] = deque()
        #: Where the next record is in the first chunk.
        self.index = 0
        self.watermark = Watermark()
        #: The position the broker has confirmed, ``None`` if we committed nothing yet.
        self.committed: int | None = None
        self.busy = False
        #: In the ready queue, or waiting for a retry.
        self.queued = False
        self.stop = False
        #: Being revoked: ``resume`` after a quiet must not start it again.
        self.leaving = False
        #: Revoked or lost: nothing of it may be committed any more.
        self.gone = False
        self.attempts = 0

    @property
    def dirty(self) -> bool:
        """Whether something is finished that the broker does not know of."""
        position = self.watermark.position
        return position is not None and position != self.committed

    @property
    def waiting(self) -> int:
        """Records handed over by Kafka that no handler has finished."""
        return sum(map(len, self.chunks)) - self.index
