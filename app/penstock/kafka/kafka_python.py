"""The default engine: kafka-python's consumer behind the port, with its traps handled.

The numbers in comments ("trap 2") are those of the project's list of verified kafka-python
3.0 traps, told in ``docs/kafka-python.md``.

Two threads meet here. The worker's poll loop calls the methods; the client's I/O thread
calls the rebalance listener, while ``poll`` or ``close`` waits for it, and sends the
heartbeats. The private parts of kafka-python that are used here and beside
(``_coordinator``, ``_cluster``, ``_fetcher``, ``_net``, ``_subscription``) are named in
:data:`PRIVATE`, which a test checks, so that an upgrade that moves one fails loudly.

Beside: :mod:`~penstock.kafka.topics` (names or a pattern), :mod:`~penstock.kafka.restore`
(what was committed for partitions that come), :mod:`~penstock.kafka.guards` (the traps).
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Collection, Mapping
from operator import attrgetter
from typing import Any, Final

import structlog
from kafka import TopicPartition
from kafka import errors as k
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.net.wakeup_notifier import WakeupNotifier
from kafka.structs import MemberState

from penstock.error_text import said, traceback_of
from penstock.errors import CommitRefused, KafkaFailure
from penstock.kafka.config import consumer_options
from penstock.kafka.failures import principal_of, translate
from penstock.kafka.fetching import Fetching
from penstock.kafka.guards import Guards
from penstock.kafka.meanwhile import CommitsMeanwhile
from penstock.kafka.net import NetClient, NotOpened, open_consumer
from penstock.kafka.port import Commit, Membership, Rebalance
from penstock.kafka.restore import Restore
from penstock.kafka.seats import give_up
from penstock.kafka.topics import Topics
from penstock.offsets import Position
from penstock.record import Partition, Record
from penstock.seat import Seat
from penstock.settings import Settings

log = structlog.get_logger("penstock.kafka")

#: Private attributes that are reached into, as dotted paths from the consumer.
PRIVATE: Final = (
    "_client._manager._auth_failures",
    "_client._manager._connect",
    "_client._manager._net.sleep",
    "_client._manager.broker_version",
    "_client._manager.call_soon",
    "_client._manager.send",
    "_client._manager.wait_for",
    "_cluster._last_successful_refresh_ms",
    "_cluster.leader_epoch_for_partition",
    "_cluster.leader_for_partition",
    "_cluster.partitions_for_topic",
    "_cluster.request_update",
    "_cluster.topic_id",
    "_cluster.unauthorized_topics",
    "_coordinator._heartbeat_enabled",
    "_coordinator._manager",
    "_coordinator._send_offset_commit_request",
    "_coordinator._send_offset_fetch_request",
    "_coordinator.ensure_coordinator_ready_async",
    "_coordinator.need_rejoin",
    "_coordinator.request_rejoin",
    "_coordinator.state",
    "_fetcher._group_list_offset_requests",
    "_fetcher._manager",
    "_fetcher.config",
    "_fetcher._next_in_line_exception_metadata",
    "_fetcher._next_partition_records",
    "_fetcher._paused_partition_records",
    "_fetcher._send_list_offsets_request",
    "_net._exception",
    "_net._io_thread",
    "_net.run",
    "_subscription.assignment",
    "_subscription.is_paused",
    "_subscription.seek",
    "_subscription.subscribed_pattern",
)

#: Trap 2: a poll that times out between JoinGroup and SyncGroup wedges or restarts the join.
#: 0 of 8 starts did so with polls of at least half a second, most did with 50 to 100 ms.
_JOIN_POLL: Final = 1.0

#: How long the group waits for us to find out what it committed; then polls go on asking.
_RESTORE: Final = 5.0

#: ConsumerRecord → Record without a line of Python a record: this is the hot path.
_fields: Final = attrgetter("topic", "partition", "offset", "timestamp", "key", "value", "headers")
_new: Final = tuple.__new__
_RECORDS: Final = itertools.repeat(Record)

_STATES: Final = {
    MemberState.UNJOINED: Membership.UNJOINED,
    MemberState.REBALANCING: Membership.REBALANCING,
    MemberState.STABLE: Membership.STABLE,
}


class KafkaPythonEngine:
    """One group member. See :class:`penstock.kafka.port.Engine` for the contract."""

    def __init__(
        self,
        settings: Settings,
        topics: tuple[str, ...],
        group: str,
        instance: str | None,
        rebalance: Rebalance,
        timeout: float,
        *,
        pattern: str | None = None,
    ) -> None:
        self._settings = settings
        self._topics = Topics(topics, pattern)
        self._group = group
        self._instance = instance
        self._rebalance = rebalance
        self._principal = principal_of(settings.sasl_username)
        self.closing = False
        #: What a rebalance met that no rebalance should.
        self._fault: str | None = None
        options = consumer_options(settings, group, instance)
        # Trap 12: the constructor blocks until a broker answers, or raises at this timeout.
        options["bootstrap_timeout_ms"] = max(1, round(timeout * 1000))
        self._consumer, self._client = self._open(options)
        self._notifier = WakeupNotifier(self._consumer._net)  # noqa: SLF001 (trap 4)
        self._guards = Guards(
            self._consumer,
            self._client,
            self._topics,
            self._failure,
            static=instance is not None,
        )
        self._restore = Restore(self._consumer, latest=settings.auto_offset_reset == "latest")
        self._fetching = Fetching(self._consumer, settings.fetch_bytes)
        self._asking: Any = None
        self._topics.subscribe(self._consumer, _Listener(self))
        self._know_topics(min(timeout, 2.0))

    def _know_topics(self, timeout: float) -> None:
        """Have the topics' metadata before the first join.

        A leader that joins without assigns nothing, and everybody joins a second time as soon
        as it arrives. A topic that is missing or forbidden is told later, by ``poll``.
        """
        update = self._consumer._cluster.request_update()  # noqa: SLF001
        wait_for = self._client._manager.wait_for  # noqa: SLF001
        with contextlib.suppress(k.KafkaError):
            self._consumer._net.run(wait_for, update, timeout * 1000)  # noqa: SLF001

    def _open(self, options: dict[str, Any]) -> tuple[Any, NetClient]:
        try:
            return open_consumer(options)
        except NotOpened as failed:
            if failed.nobody_answered:
                why = f" ({failed.why})" if failed.why is not None else ""
                raise TimeoutError(f"{failed}{why}") from failed.error
            raise self._failure(failed.error) from failed.error

    # -- polling -----------------------------------------------------------------------

    def poll(self, timeout: float, limit: int) -> Mapping[Partition, list[Record]]:
        """See the port. Retriable client errors are logged and give an empty answer."""
        if self._guards.joining():
            timeout = max(timeout, _JOIN_POLL)
        elif self._guards.parked():  # never while joining: what is parked may be of the past
            timeout = 0.0
        self._restore_rest()
        self._fetching.fit()
        try:
            fetched = self._consumer.poll(timeout_ms=round(timeout * 1000), max_records=limit)
        except Exception as error:
            failure = self._guards.raised(error)
            if isinstance(failure, KafkaFailure):
                raise failure from error
            log.warning("kafka poll failed, going on", error=str(error))
            return {}
        if self._fault is not None:
            raise KafkaFailure(self._fault)
        again = self._begin_again(self._guards.look())
        found = {}
        for tp, records in fetched.items():
            partition = Partition(tp.topic, tp.partition)
            if partition in again:
                continue
            if (log_ := self._restore.logs.get(partition)) is not None:
                log_.saw(records)
            found[partition] = list(map(_new, _RECORDS, map(_fields, records)))
        return found

    def _begin_again(self, topics: frozenset[str]) -> frozenset[Partition]:
        """Read what we own of topics that were deleted and made again from the start."""
        if not topics:
            return frozenset()
        again = frozenset(p for p in self.assignment() if p.topic in topics)
        for topic in sorted({p.topic for p in again}):
            log.warning("topic was deleted and made again: reading it from its start", topic=topic)
        if announced := self._restore.forget(again):
            self._rebalance.lost(announced)
        self.pause(again)
        for partition in again:
            self.seek(partition, 0)
            self._restore.logs[partition] = self._restore.log_of(partition.topic)
        self._announce(dict.fromkeys(sorted(again)))
        return again

    # -- partitions that came ----------------------------------------------------------

    async def added(self, partitions: Collection[Partition]) -> None:
        """Partitions came: find out what the group committed for them, then announce them.

        Awaits only what the I/O thread itself resolves, and not for long: a coordinator that
        cannot tell now is asked again by :meth:`poll`.
        """
        # Paused first: a resume that comes between the answer and a pause would be undone.
        self.pause(partitions)
        self._fetching.fit()  # before the first fetch of theirs
        before = self.assignment().difference(partitions)
        self._guards.owns_first({p.topic for p in partitions} - {p.topic for p in before})
        self._restore.expect(partitions)
        try:
            self._announce(self._restore.settle(await self._restore.ask(_RESTORE)))
        except k.KafkaError as error:  # asked again by poll, which tells it if it is for good
            log.info("could not read what the group committed", error=str(error))

    def _restore_rest(self) -> None:
        """Go on asking for what :meth:`added` could not find out; never waits."""
        if not self._restore.waiting:
            self._asking = None
        elif self._asking is None:
            self._asking = self._client._manager.call_soon(self._restore.ask, _RESTORE)  # noqa: SLF001 (traps 3 and 4)
        elif self._asking.is_done:
            asked, self._asking = self._asking, None
            if asked.exception is not None:
                failure = self._failure(asked.exception)
                if isinstance(failure, KafkaFailure):
                    raise failure from asked.exception
                log.warning("could not read what the group committed", error=str(failure))
            else:
                self._announce(self._restore.settle(asked.value))

    def _announce(self, known: Mapping[Partition, Position | None]) -> None:
        if known and not self._rebalance.assigned(known):
            self.resume(known)

    # -- flow --------------------------------------------------------------------------

    def pause(self, partitions: Collection[Partition]) -> None:
        """See the port."""
        self._consumer.pause(*self._owned(partitions))

    def resume(self, partitions: Collection[Partition]) -> None:
        """See the port."""
        waits_for = self._restore.waits_for
        self._consumer.resume(*self._owned([p for p in partitions if not waits_for(p)]))

    def _owned(self, partitions: Collection[Partition]) -> list[Any]:
        owned = self._consumer._subscription.assignment  # noqa: SLF001 (assignment() copies it all)
        return [tp for p in partitions if (tp := TopicPartition(*p)) in owned]

    def seek(self, partition: Partition, offset: int) -> None:
        """See the port. A partition that is not owned any more is ignored."""
        for tp in self._owned([partition]):
            self._consumer._subscription.seek(tp, offset)  # noqa: SLF001 (as above)

    # -- committing --------------------------------------------------------------------

    def commit(self, offsets: Mapping[Partition, Position], timeout: float) -> None:
        """See the port."""
        try:
            self._consumer.commit(
                self._committable(offsets), timeout_ms=max(1, round(timeout * 1000))
            )
        except Exception as error:
            raise self._failure(error) from error

    def commit_soon(self, offsets: Mapping[Partition, Position]) -> Commit:
        """See the port."""
        commit = _Commit(self)
        try:
            # Trap 9: callbacks fire inside poll() only, newest first. One commit is under
            # way at a time, so neither matters.
            self._consumer.commit_async(self._committable(offsets), callback=commit.finished)
        except Exception as error:
            commit.finished(None, error)
        return commit

    def _committable(self, offsets: Mapping[Partition, Position]) -> dict[Any, Any]:
        """As the client takes them: each with its record's epoch, and for which log it is."""
        logs, states = self._restore.logs, self._consumer._subscription.assignment  # noqa: SLF001 (position() may block)
        found = {}
        for partition, at in offsets.items():
            tp = TopicPartition(*partition)
            known, state = (
                logs.get(partition) or self._restore.log_of(partition.topic),
                states.get(tp),
            )
            found[tp] = known.committable(at, None if state is None else state.position)
        return found

    # -- looking -----------------------------------------------------------------------

    def positions(self) -> Mapping[Partition, int]:
        """See the port."""
        waits_for = self._restore.waits_for
        return {
            partition: state.position.offset
            for tp, state in list(self._consumer._subscription.assignment.items())  # noqa: SLF001 (position() may block)
            if state.position is not None
            and not waits_for(partition := Partition(tp.topic, tp.partition))
        }

    def membership(self) -> Membership:
        """See the port."""
        return _STATES[self._consumer.group_metadata().state]

    def member(self) -> tuple[str, int]:
        """See the port."""
        known = self._consumer.group_metadata()
        return known.member_id, known.generation_id

    def assignment(self) -> frozenset[Partition]:
        """See the port."""
        return frozenset(Partition(tp.topic, tp.partition) for tp in self._consumer.assignment())

    def ends(self) -> Mapping[Partition, tuple[int, int]]:
        """See the port. Reads what fetch responses brought; no request is made."""
        found = {}
        for tp, state in list(self._consumer._subscription.assignment.items()):  # noqa: SLF001 (position() may block)
            if state.position is not None and state.highwater is not None:
                found[Partition(tp.topic, tp.partition)] = (state.position.offset, state.highwater)
        return found

    def topics(self) -> frozenset[str]:
        """See the port."""
        return self._topics.now()

    def missing_topics(self) -> frozenset[str]:
        """See the port. ``partitions_for_topic`` of the consumer would block on a request."""
        cluster = self._consumer._cluster  # noqa: SLF001
        return frozenset(t for t in self._topics.named if not cluster.partitions_for_topic(t))

    # -- rebalances, on the client's I/O thread ----------------------------------------

    def wake(self) -> None:
        """See the port. A client that is closed, or broken, has no revocation under way."""
        with contextlib.suppress(BaseException):  # whatever ended its I/O thread is raised here
            self._notifier.notify()

    async def revoke(self, partitions: Collection[Partition]) -> None:
        """Finish what is in flight on partitions that move away, commit it, let go.

        Awaits only things that the I/O thread itself resolves (traps 3 and 4): heartbeats go
        on, and the group waits for this member no longer than ``revoke_timeout``, nor than a
        drain that is under way has time for.
        """
        partitions = self._restore.forget(partitions)
        if not partitions:
            return
        self._rebalance.revoking(partitions)
        began = time.monotonic()
        commits = CommitsMeanwhile(
            self._begin_commit, self._rebalance, self._settings.commit_interval
        )
        while not self._rebalance.settled(partitions):
            now = time.monotonic()
            drained_by = self._rebalance.leave_by()
            until = began + (0 if self.closing else self._settings.revoke_timeout)
            left = (until if drained_by is None else min(until, drained_by)) - now
            if left <= 0:
                break
            commits.go_on(now, at_once=drained_by is not None)
            await self._notifier(min(left, 0.25))
        offsets = self._rebalance.committable(partitions)
        committed = not offsets or await self._commit_revoked(offsets)
        self._rebalance.revoked(partitions, committed=committed)
        for partition in partitions:
            self._restore.logs.pop(partition, None)

    def _begin_commit(self, offsets: Mapping[Partition, Position]) -> Any:
        return self._consumer.commit_async(self._committable(offsets))

    async def _commit_revoked(self, offsets: Mapping[Partition, Position]) -> bool:
        hurry = self.closing or self._rebalance.leave_by() is not None
        deadline = time.monotonic() + (1.0 if hurry else 5.0)
        while True:
            try:
                # Sent on the coordinator's one connection: it cannot overtake, nor be
                # overtaken by, the asynchronous commit that may be under way. Bounded: a
                # request into a dead network would be waited for half a minute.
                commit = self._begin_commit(offsets)
                left = max(0.1, deadline - time.monotonic())
                await self._client._manager.wait_for(commit, left * 1000)  # noqa: SLF001
            except k.RetriableError as error:
                if isinstance(error, k.UnknownTopicOrPartitionError):
                    offsets = self._still_there(offsets)
                    if not offsets:
                        return True
                if time.monotonic() >= deadline:
                    log.warning("commit at revocation failed", error=str(error))
                    return False
                await self._notifier(0.1)
            except Exception as error:
                log.warning("commit at revocation failed", error=str(error))
                return False
            else:
                return True

    def _still_there(self, offsets: Mapping[Partition, Position]) -> Mapping[Partition, Position]:
        """Without the topics that were deleted: nothing can be committed, or come again, there."""
        found = self._consumer._cluster.partitions_for_topic  # noqa: SLF001 (the public one blocks)
        return {p: at for p, at in offsets.items() if found(p.topic)}

    def gone(self, partitions: Collection[Partition]) -> None:
        """Partitions were lost."""
        if announced := self._restore.forget(partitions):
            self._rebalance.lost(announced)

    def listener_failed(self, what: str, error: Exception) -> None:
        """A fault of ours, on the I/O thread; the worker has to end."""
        log.error("a rebalance failed", what=what, exception=traceback_of(error))
        self._fault = f"{what} failed: {said(error)}"

    # -- closing -----------------------------------------------------------------------

    def close(self, seat: Seat, timeout: float) -> str | None:
        """See the port. A static member's seat is given up in a way of its own (trap 11)."""
        self.closing = True
        until = time.monotonic() + timeout
        member = self._consumer.group_metadata().member_id
        try:
            self._consumer.close(autocommit=False, timeout_ms=max(1, round(timeout * 1000)))
        except Exception as error:
            log.warning("closing the consumer failed", error=str(error))
        if self._instance is None or seat is Seat.KEEP:
            return None
        left = max(0.5, until - time.monotonic())
        return give_up(self._settings, self._group, self._instance, member, left)

    def _failure(self, error: BaseException) -> KafkaFailure | CommitRefused:
        ours = translate(error, principal=self._principal, group=self._group)
        assert isinstance(ours, KafkaFailure | CommitRefused)
        return ours


class _Commit:
    """An asynchronous commit; finished on the poll loop's thread, inside ``poll``."""

    __slots__ = ("_engine", "_outcome")

    def __init__(self, engine: KafkaPythonEngine) -> None:
        self._engine = engine
        self._outcome: Exception | bool = False

    def finished(self, _offsets: object, result: object) -> None:
        self._outcome = (
            self._engine._failure(result)  # noqa: SLF001 (same module)
            if isinstance(result, Exception)
            else True
        )

    def outcome(self) -> Exception | bool:
        return self._outcome


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc] # kafka-python has no types
    """Hands rebalances to the engine. Must not raise: it would be called for ever (trap 5).

    What it met is told by ``poll``: nobody knows any more what is owned.
    """

    def __init__(self, engine: KafkaPythonEngine) -> None:
        self._engine = engine

    async def on_partitions_assigned(self, assigned: Any) -> None:
        try:
            await self._engine.added(_ours(assigned))
        except Exception as error:
            self._engine.listener_failed("taking partitions in", error)

    async def on_partitions_revoked(self, revoked: Any) -> None:
        try:
            await self._engine.revoke(_ours(revoked))
        except Exception as error:
            self._engine.listener_failed("giving partitions up", error)

    async def on_partitions_lost(self, lost: Any) -> None:
        try:
            self._engine.gone(_ours(lost))
        except Exception as error:
            self._engine.listener_failed("dropping lost partitions", error)


def _ours(partitions: Any) -> list[Partition]:
    return sorted(Partition(tp.topic, tp.partition) for tp in partitions)
