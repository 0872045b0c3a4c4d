"""What the group has committed for partitions that came, with the text beside each offset.

The client asks for the offsets, too, but keeps the metadata to itself. So we ask, see whether
the text is for this offset of this log (:mod:`penstock.kafka.note`), set the positions, and only
then announce the partitions; until then they stay paused.

Where the group has committed nothing, we find out where ``auto_offset_reset`` would begin, and
commit that before the first record is handed over. Otherwise whoever comes next would find
nothing, too, and begin elsewhere: under ``latest`` behind records that arrived meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, Final

import structlog
from kafka import TopicPartition
from kafka import errors as k
from kafka.protocol.consumer import OffsetSpec
from kafka.structs import OffsetAndMetadata

from penstock.kafka.leaders import log_ends
from penstock.kafka.note import Came, Log, believe, tells_epochs, topic_id
from penstock.offsets import Position
from penstock.record import Partition

log = structlog.get_logger("penstock.kafka")

_AGAIN: Final = 0.1
#: Seconds for one question to a leader: the other partitions wait for the answer, too.
_LEADER: Final = 2.0
#: Seconds after which a map that no leader can tell of is dropped: its partition stands still.
_LAST: Final = 60.0


#: What was found out, each with the client's state of the partition when it was asked for.
Found = Mapping[Partition, tuple[object, Came]]


class Restore:
    """Partitions that came and are not announced yet.

    ``ask`` runs on the client's I/O thread, everything else on whichever thread the other one
    waits for; the client's own state object tells whether a partition went and came meanwhile.
    """

    def __init__(self, consumer: Any, *, latest: bool) -> None:
        """``latest``: where nothing is committed, begin at the log's end."""
        self._coordinator = consumer._coordinator  # noqa: SLF001 (the public way blocks: trap 3)
        self._subscription = consumer._subscription  # noqa: SLF001 (as above)
        self._fetcher = consumer._fetcher  # noqa: SLF001 (as above)
        self._manager = consumer._coordinator._manager  # noqa: SLF001 (as above)
        self._begin = OffsetSpec.LATEST if latest else OffsetSpec.EARLIEST
        self._waiting: dict[Partition, object] = {}
        self._since = 0.0
        #: The logs of those that were announced.
        self.logs: dict[Partition, Log] = {}

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
        self._since = time.monotonic()
        self._waiting.update({p: states.get(TopicPartition(*p)) for p in partitions})

    def forget(self, partitions: Collection[Partition]) -> list[Partition]:
        """These went; returns those that were announced."""
        announced = [p for p in partitions if p not in self._waiting]
        for partition in partitions:
            self._waiting.pop(partition, None)
        return announced

    def log_of(self, topic: str) -> Log:
        """The log of a topic as it is now, of which nothing was read yet."""
        manager = self._manager
        return Log(topic_id(manager.cluster, topic), told=tells_epochs(manager))

    # -- finding out -------------------------------------------------------------------

    async def ask(self, seconds: float) -> Found:
        """Ask the coordinator, again and again for ``seconds``; empty if it could not tell.

        Partitions whose leader could not tell are not in the answer: they are to be asked for
        again.

        Raises:
            kafka.errors.KafkaError: it will not tell, however often it is asked.
        """
        asked = dict(self._waiting)
        until = time.monotonic() + seconds
        committed = await self._fetch([TopicPartition(*p) for p in asked], until)
        if committed is None:
            return {}
        last = time.monotonic() - self._since > _LAST
        believed = await believe(self._manager, committed, self._patience(until), last=last)
        came = {Partition(*tp): each for tp, each in believed.items()}
        fresh = [p for p in asked if TopicPartition(*p) not in committed]
        came.update(await self._begun(fresh, asked, until))
        return {p: (asked[p], each) for p, each in came.items()}

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

    async def _begun(
        self, fresh: list[Partition], asked: Mapping[Partition, object], until: float
    ) -> dict[Partition, Came]:
        """Commit where to begin, for partitions of which the group has committed nothing."""
        if not fresh:
            return {}
        tps = [TopicPartition(*p) for p in fresh]
        begins = await log_ends(self._fetcher, tps, self._begin, self._patience(until))
        came = {
            Partition(*tp): Came(
                Position(offset),
                self.log_of(tp.topic),
                OffsetAndMetadata(offset, "", -1),
            )
            for tp, offset in begins.items()
            # What somebody else committed since we asked must not be overwritten.
            if self._waiting.get(Partition(*tp)) is asked[Partition(*tp)]
        }
        if not came:
            return {}
        offsets = {TopicPartition(*p): each.seek for p, each in came.items()}
        try:
            commit = self._manager.call_soon(self._coordinator._send_offset_commit_request, offsets)  # noqa: SLF001 (traps 3 and 17)
            await self._manager.wait_for(commit, self._patience(until) * 1000)
        except (k.RetriableError, k.CommitFailedError, k.RebalanceInProgressError) as error:
            log.info("could not commit where to begin; trying again", error=str(error))
            return {}
        return came

    @staticmethod
    def _patience(until: float) -> float:
        return min(_LEADER, max(0.1, until - time.monotonic()))

    # -- announcing --------------------------------------------------------------------

    def settle(self, found: Found) -> dict[Partition, Position | None]:
        """Set the positions of those that are still waiting; they are to be announced."""
        states = self._subscription.assignment
        known: dict[Partition, Position | None] = {}
        for partition, (state, came) in found.items():
            tp = TopicPartition(*partition)
            if self._waiting.get(partition) is not state or states.get(tp) is not state:
                continue
            del self._waiting[partition]
            # The very offset that is announced, not what the client finds out by itself.
            self._subscription.seek(tp, came.seek)
            self.logs[partition] = came.log
            known[partition] = came.position
            if came.complaint is not None:
                log.warning(
                    "records that were finished will be handled again",
                    partition=str(partition),
                    reason=f"the text beside the committed offset is dropped: {came.complaint}",
                )
        return known
