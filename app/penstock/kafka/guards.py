"""What is looked at before and after each poll, because kafka-python would not tell.

The numbers ("trap 2") are those of ``docs/kafka-python.md``. All of this runs on the poll
loop's thread, thousands of times a second: what only the metadata can change is looked at
only when there was an update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from kafka import errors as k
from kafka.structs import MemberState

from penstock.errors import AuthorizationFailed, CommitRefused, KafkaFailure, Unreadable
from penstock.kafka.net import NetClient
from penstock.kafka.topics import Topics
from penstock.record import Partition

log = structlog.get_logger("penstock.kafka")

Failure = Callable[[BaseException], KafkaFailure | CommitRefused]


class Guards:
    """Over one consumer. ``static``: it has a ``group.instance.id``."""

    def __init__(
        self, consumer: Any, client: NetClient, topics: Topics, failure: Failure, *, static: bool
    ) -> None:
        self._coordinator = consumer._coordinator  # noqa: SLF001 (traps 2, 7, 16)
        self._cluster = consumer._cluster  # noqa: SLF001 (topic ids, forbidden topics)
        self._fetcher = consumer._fetcher  # noqa: SLF001 (traps 1 and 14)
        self._subscription = consumer._subscription  # noqa: SLF001 (trap 14)
        self._client = client
        self._net = consumer._net  # noqa: SLF001 (its thread may end)
        self._topics = topics
        self._failure = failure
        self._static = static
        self._seen = self._watched = -1.0
        self._ids: dict[str, object] = {}
        self._sizes: dict[str, int] = {}

    # -- before a poll -----------------------------------------------------------------

    def joining(self) -> bool:
        """Whether the next poll may have to join (trap 2: it must be a long one)."""
        coordinator = self._coordinator
        return coordinator.state is not MemberState.STABLE or coordinator.need_rejoin()

    def parked(self) -> bool:
        """Trap 14: records parked for a paused partition are forgotten when it is resumed.

        The client parks such records and takes them back when its in-line slot ``is None``.
        A slot that was read to its end is empty but not ``None``; so when the last partition
        that flows has been read, the parked ones are neither taken back nor fetched again,
        for ever. Emptying the slot properly is what the client forgot. Only this thread
        changes it.

        Returns whether parked records may flow again: the client takes back one partition a
        poll and, if that one was not the first it looks at, waits for the network first.
        """
        fetcher = self._fetcher
        if fetcher._next_partition_records is not None and not fetcher._next_partition_records:  # noqa: SLF001 (trap 14)
            fetcher._next_partition_records = None  # noqa: SLF001 (trap 14)
        paused = self._subscription.is_paused
        return any(not paused(tp) for tp in fetcher._paused_partition_records)  # noqa: SLF001 (trap 14)

    # -- after a poll ------------------------------------------------------------------

    def look(self) -> frozenset[str]:
        """Look at everything; returns topics that were deleted and made again.

        Raises:
            KafkaFailure: something that ``poll`` did not tell makes going on impossible.
        """
        self._alive()
        self._wedge()
        self._refused()
        self._fenced()
        self._unreadable()
        again: frozenset[str] = frozenset()
        updated = self._cluster._last_successful_refresh_ms  # noqa: SLF001 (set after each update)
        if updated != self._seen:
            self._seen = updated
            self._unauthorized()
            again = self._recreated()
        if self._static and updated != self._watched and self._stable():
            self._watched = updated
            self._unwatched()
        return again

    def _stable(self) -> bool:
        return self._coordinator.state is MemberState.STABLE

    def _alive(self) -> None:
        """The client's I/O thread must live: it sends the heartbeats, and runs rebalances.

        What ended it is logged by the client, and is what every later call raises; some of
        that looks as if it would pass.
        """
        if self._ended():
            raise KafkaFailure("the Kafka client's I/O thread ended")

    def _ended(self) -> bool:
        return self._net._exception is not None or not self._net._io_thread.is_alive()  # noqa: SLF001

    def _wedge(self) -> None:
        """Trap 2, the group-leader wedge.

        A rejoin that metadata started (not a heartbeat) is forgotten when ``poll`` times out
        in the middle of it: the leader's new snapshot says "nothing to rejoin for", nobody
        awaits the JoinGroup that is under way, heartbeats stay off, and the client rebalances
        for ever. Asking for a rejoin makes the next poll take that JoinGroup up again.
        """
        coordinator = self._coordinator
        if coordinator.state is MemberState.REBALANCING and not coordinator.need_rejoin():
            log.info("taking a forgotten rebalance up again")
            coordinator.request_rejoin()

    def _refused(self) -> None:
        """Trap 15: credentials that a broker refuses at a reconnect are not told by ``poll``."""
        if self._client.refused is not None:
            raise self._failure(self._client.refused)

    def _fenced(self) -> None:
        """Trap 7: a fenced static member stays "stable" and polls on, but its heart stands still.

        Nothing else stops the heartbeats of a stable member; without work to commit, nothing
        else tells.
        """
        coordinator = self._coordinator
        if (
            self._static
            and self._stable()
            and not coordinator._heartbeat_enabled  # noqa: SLF001 (trap 7)
            and not coordinator.need_rejoin()
        ):
            raise self._failure(k.FencedInstanceIdError())

    # -- records that cannot be read (trap 1) ------------------------------------------

    def _unreadable(self) -> None:
        """A fetch error that was put aside must not meet a paused partition.

        When other records came in the same ``poll``, the client keeps the error for the next
        one. If the partition is paused then, the error is dropped and a later ``poll`` spins
        on the broken batch without ever returning. So it is told now.
        """
        aside = self._fetcher._next_in_line_exception_metadata  # noqa: SLF001 (trap 1)
        if aside is None:
            return
        failure = self._failure(aside.exception)
        if isinstance(failure, KafkaFailure):
            raise _naming(aside.partition, failure) from aside.exception

    def raised(self, error: Exception) -> KafkaFailure | CommitRefused:
        """What ``poll`` raised, as ours; of a batch that cannot be read, with its partition."""
        failure = self._failure(error)
        if self._ended():
            return KafkaFailure(f"the Kafka client's I/O thread ended: {failure}")
        records = self._fetcher._next_partition_records  # noqa: SLF001 (trap 1)
        if isinstance(failure, Unreadable) and records:
            return _naming(records.topic_partition, failure)
        return failure

    # -- metadata ----------------------------------------------------------------------

    def _unauthorized(self) -> None:
        """A topic that may not be described never gets partitions, and poll says nothing.

        Under a pattern it is just not one of those that match.
        """
        refused = self._topics.named & set(self._cluster.unauthorized_topics)
        if refused:
            failure = self._failure(k.TopicAuthorizationFailedError(refused))
            raise (
                failure if isinstance(failure, KafkaFailure) else AuthorizationFailed(str(failure))
            )

    def owns_first(self, topics: set[str]) -> None:
        """The first partitions of these topics came: whatever was known of them is old.

        A topic that was deleted and made again while somebody else owned it is not news.
        """
        for topic in topics:
            self._ids.pop(topic, None)
            found = self._cluster.topic_id(topic)
            if found is not None:
                self._ids[topic] = found

    def _recreated(self) -> frozenset[str]:
        """A topic that was deleted and made again has the same name and another log.

        The client fetches by name, so an old position would silently skip the new log's
        beginning. Its id (KIP-516) tells them apart.
        """
        again = set()
        for topic in self._topics.now():
            found = self._cluster.topic_id(topic)
            if found is None or found == self._ids.get(topic):
                continue
            if topic in self._ids:
                again.add(topic)
            self._ids[topic] = found
        return frozenset(again)

    def _unwatched(self) -> None:
        """Trap 16: after a static member's restart nobody may watch for new partitions.

        Only the group's leader does, and a leader that takes its seat again is not told that
        it still is one (that needs JoinGroup v9, KIP-814; kafka-python speaks v7). New topics
        under a pattern need no watching: each member that sees one joins again by itself.
        """
        count = self._cluster.partitions_for_topic
        known = self._sizes
        self._sizes = sizes = {t: len(count(t) or ()) for t in self._topics.now()}
        if any(known.get(topic, size) != size for topic, size in sizes.items()):
            log.info("rejoining: the number of partitions changed", partitions=sizes)
            self._coordinator.request_rejoin()


def _naming(tp: Any, failure: KafkaFailure) -> Unreadable:
    """The failure, its text with the partition in front unless it is in there."""
    where, said = str(Partition(tp.topic, tp.partition)), str(failure)
    return Unreadable(said if where in said else f"{where}: {said}")
