"""Back-pressure: which partitions to pause and when to resume them. Pure bookkeeping.

Two bounds. A partition that has enough waiting is paused by itself, so that one slow or
failing partition does not fill the buffer of the others. When everything together is too
much, all are paused. Each bound lets go well below where it took hold, or every record would
flip it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from operator import itemgetter

from penstock.memory import RECORD
from penstock.record import Partition, Record

#: Everything resumes at this share of the bound; a single partition at half of its own.
_RESUME_ALL = 0.75
#: Records that the first poll may bring: nothing is known of their size.
_FIRST = 50

_HEADERS = itemgetter(Record._fields.index("headers"))


def weight(records: Sequence[Record]) -> int:
    """Bytes that records take while they wait: keys, values, headers, and what keeps them.

    Once a record, coming and going: unpacking is half the price of asking for attributes.
    """
    size = sum([len(key or b"") + len(value or b"") for _, _, _, _, key, value, _ in records])
    if any(map(_HEADERS, records)):
        size += sum([len(name) + len(value or b"") for r in records for name, value in r.headers])
    return size + RECORD * len(records)


class Flow:
    """Counts of waiting records and bytes, and the pauses that follow. Not thread-safe."""

    def __init__(self, *, total: int, batch: int, size: int, poll: int | None = None) -> None:
        """``total``: records waiting at most; ``batch``: the most one poll can bring.

        ``size``: bytes waiting at most. One poll more may come on top of either, of about
        ``poll`` bytes.
        """
        self._poll = poll or size
        #: Bytes of a record, as the last ones were; at first, a guess on the safe side.
        self._typical = self._poll / min(batch, _FIRST)
        self._total = max(total, batch)
        self._batch = batch
        self._size = size
        self._waiting: dict[Partition, int] = {}
        self._held: set[Partition] = set()
        self._over: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._changed: set[Partition] = set()
        #: Came since the last look: what the client does with them is told anew, as a pause
        #: meant for an earlier ownership may have met this one.
        self._fresh: set[Partition] = set()
        self._everything = False
        self.waiting = 0
        self.bytes = 0
        self._bytes: dict[Partition, int] = {}

    def own(self, partition: Partition) -> None:
        """A partition came; it flows."""
        self._waiting.setdefault(partition, 0)
        self._changed.add(partition)
        self._fresh.add(partition)

    def disown(self, partition: Partition) -> None:
        """A partition went, with whatever was waiting."""
        self.waiting -= self._waiting.pop(partition, 0)
        self.bytes -= self._bytes.pop(partition, 0)
        for group in (self._held, self._over, self._paused, self._changed, self._fresh):
            group.discard(partition)

    def add(self, partition: Partition, count: int, size: int) -> None:
        """``count`` records of ``size`` bytes together wait."""
        waiting = self._waiting[partition] = self._waiting[partition] + count
        held = self._bytes[partition] = self._bytes.get(partition, 0) + size
        self.waiting += count
        self.bytes += size
        if count:
            self._typical += (size / count - self._typical) / 4
        if partition not in self._over and (
            waiting >= self._share or held >= self._size // self._parts
        ):
            self._over.add(partition)
            self._changed.add(partition)

    def take(self, partition: Partition, count: int, size: int) -> None:
        """``count`` records wait no more. A partition that went is ignored."""
        if partition not in self._waiting:
            return
        waiting = self._waiting[partition] = self._waiting[partition] - count
        held = self._bytes[partition] = self._bytes[partition] - size
        self.waiting -= count
        self.bytes -= size
        if (
            partition in self._over
            and waiting <= self._share // 2
            and held <= self._size // self._parts // 2
        ):
            self._over.discard(partition)
            self._changed.add(partition)

    def hold(self, partition: Partition) -> None:
        """The partition waits (for a retry, for room in its map): fetch nothing meanwhile."""
        if partition in self._waiting:
            self._held.add(partition)
            self._changed.add(partition)

    def release(self, partition: Partition) -> None:
        """It waits no more."""
        if partition in self._held:
            self._held.discard(partition)
            self._changed.add(partition)

    @property
    def limit(self) -> int:
        """Records that the next poll may bring, so that it is not far more than its bytes.

        What was fetched is bounded, but a compressed batch may unpack to a thousand times that.
        Never only one: the client lets go of a batch when it is asked for more than it holds.
        """
        return min(self._batch, max(2, int(self._poll / max(self._typical, 1.0))))

    @property
    def saturated(self) -> bool:
        """Whether everything is paused."""
        return self._everything

    @property
    def _share(self) -> int:
        """What one partition may have waiting.

        A quarter of the total (all of it for an only one), so that slow partitions leave room
        for the others; at least two polls, or every poll would pause what it just brought.
        """
        return max(2 * self._batch, self._total // self._parts)

    @property
    def _parts(self) -> int:
        return max(1, min(4, len(self._waiting)))

    def changes(self) -> tuple[Collection[Partition], Collection[Partition]]:
        """``(to pause, to resume)`` since the last call; cheap when nothing changed."""
        before = self._everything
        if self._everything:
            self._everything = (
                self.waiting > self._total * _RESUME_ALL or self.bytes > self._size * _RESUME_ALL
            )
        else:
            self._everything = self.waiting >= self._total or self.bytes >= self._size
        if self._everything == before and not self._changed:
            return (), ()
        looked_at = self._waiting if self._everything != before else self._changed
        pause, resume = [], []
        for partition in list(looked_at):
            if partition not in self._waiting:
                continue
            wanted = self._everything or partition in self._held or partition in self._over
            told = partition not in self._fresh
            if wanted and not (told and partition in self._paused):
                self._paused.add(partition)
                pause.append(partition)
            elif not wanted and (not told or partition in self._paused):
                self._paused.discard(partition)
                resume.append(partition)
        self._changed.clear()
        self._fresh.clear()
        return pause, resume
