"""What the group has committed for partitions that came, with the text beside each offset.

The client asks for the offsets, too, but keeps the metadata to itself. So we ask, set the
positions, and only then announce the partitions; until then they stay paused.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, Final

from kafka import TopicPartition
from kafka import errors as k

from penstock.offsets import Position
from penstock.record import Partition

_AGAIN: Final = 0.1

#: What was found out, each with the client's state of the partition when it was asked for.
Found = Mapping[Partition, tuple[object, Position | None]]


class Restore:
    """Partitions that came and are not announced yet.

    ``ask`` runs on the client's I/O thread, everything else on whichever thread the other one
    waits for; the client's own state object tells whether a partition went and came meanwhile.
    """

    def __init__(self, consumer: Any) -> None:
        self._coordinator = consumer._coordinator  # noqa: SLF001 (the public way blocks: trap 3)
        self._subscription = consumer._subscription  # noqa: SLF001 (as above)
        self._manager = consumer._coordinator._manager  # noqa: SLF001 (as above)
        self._waiting: dict[Partition, object] = {}

    @property
    def waiting(self) -> bool:
        """Whether there are any."""
        return bool(self._waiting)

    def waits_for(self, partition: Partition) -> bool:
        """Whether this is one of them."""
        return partition in self._waiting

    def expect(self, partitions: Collection[Partition]) -> None:
        """These came."""
        states = self._subscription.assignment
        self._waiting.update({p: states.get(TopicPartition(*p)) for p in partitions})

    def forget(self, partitions: Collection[Partition]) -> list[Partition]:
        """These went; returns those that were announced."""
        announced = [p for p in partitions if p not in self._waiting]
        for partition in partitions:
            self._waiting.pop(partition, None)
        return announced

    async def ask(self, seconds: float) -> Found:
        """Ask the coordinator, again and again for ``seconds``; empty if it could not tell.

        Raises:
            kafka.errors.KafkaError: it will not tell, however often it is asked.
        """
        asked = dict(self._waiting)
        partitions = {p: TopicPartition(*p) for p in asked}
        committed = await self._fetch(list(partitions.values()), time.monotonic() + seconds)
        if committed is None:
            return {}
        return {p: (state, _position(committed.get(partitions[p]))) for p, state in asked.items()}

    async def _fetch(self, partitions: list[Any], until: float) -> Mapping[Any, Any] | None:
        # Not the client's fetch_committed_offsets_async: a request that it gave up waiting for
        # stays in its cache, and answers a later question about the same partitions with what
        # was true before somebody else owned them.
        coordinator, manager = self._coordinator, self._manager
        while (left := until - time.monotonic()) > 0:
            try:
                if await coordinator.ensure_coordinator_ready_async(timeout_ms=left * 1000):
                    request = manager.call_soon(coordinator._send_offset_fetch_request, partitions)  # noqa: SLF001 (see above)
                    left = max(0.1, until - time.monotonic())
                    answer: Mapping[Any, Any] = await manager.wait_for(request, left * 1000)
                    return answer
            except k.RetriableError:
                await manager._net.sleep(min(_AGAIN, max(0.0, until - time.monotonic())))  # noqa: SLF001 (trap 4)
        return None

    def settle(self, found: Found) -> dict[Partition, Position | None]:
        """Set the positions of those that are still waiting; they are to be announced."""
        states = self._subscription.assignment
        known: dict[Partition, Position | None] = {}
        for partition, (state, position) in found.items():
            tp = TopicPartition(*partition)
            if self._waiting.get(partition) is not state or states.get(tp) is not state:
                continue
            del self._waiting[partition]
            if position is not None:
                # The very offset that is announced, not what the client finds out by itself.
                self._subscription.seek(tp, position.offset)
            known[partition] = position
        return known


def _position(found: Any) -> Position | None:
    return None if found is None else Position(found.offset, found.metadata or "")
