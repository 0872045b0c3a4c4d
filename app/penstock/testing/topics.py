"""Topics in memory, and what the group has committed for them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from operator import attrgetter

from penstock.offsets import Position
from penstock.record import Partition, Record

_OFFSET = attrgetter("offset")


class Topics:
    """What survives a crash: the logs, and the group's commits."""

    def __init__(self) -> None:
        self._logs: dict[Partition, list[Record]] = {}
        self.commits: dict[Partition, Position] = {}

    def add(self, record: Record) -> bool:
        """Append a record; whether its partition is new."""
        partition = Partition(record.topic, record.partition)
        fresh = partition not in self._logs
        self._logs.setdefault(partition, []).append(record)
        return fresh

    def end(self, partition: Partition) -> int:
        """The offset of the next record."""
        log = self._logs.get(partition)
        return log[-1].offset + 1 if log else 0

    def fetch(self, partition: Partition, offset: int, limit: int) -> list[Record]:
        """At most ``limit`` records from ``offset`` on."""
        log = self._logs[partition]
        start = bisect_left(log, offset, key=_OFFSET)
        return log[start : start + limit]

    def of(self, topic: str) -> list[Record]:
        """All records of a topic, partition by partition."""
        return [r for p in sorted(self._logs) if p.topic == topic for r in self._logs[p]]

    @property
    def partitions(self) -> list[Partition]:
        """Those that exist, in the order in which they came."""
        return list(self._logs)

    def commit(self, offsets: Mapping[Partition, Position]) -> None:
        """Take a commit."""
        self.commits.update(offsets)
