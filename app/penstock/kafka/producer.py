"""Produces records and says, of each, whether the broker confirmed it.

Not with kafka-python's ``KafkaProducer`` (traps 18 to 22): it refuses records that Kafka knows
(a header without a value, neither key nor value), one record that is too large ends it for
every topic after, a record that nobody waits for any more is still sent when a broker comes
back, beside its second try, and a close with something left leaves its thread. Dead letters
need little of what it is for: a batch goes out, its confirmations come back, within a deadline.
So this speaks Kafka's produce request itself, on the same connections as the consumer's.

Everything happens on the calling thread; only :meth:`Producer.abandon` comes from another.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from kafka import errors as k
from kafka.future import Future
from kafka.partitioner import murmur2
from kafka.protocol.producer import ProduceRequest
from kafka.record.memory_records import MemoryRecordsBuilder

from penstock.errors import KafkaFailure, NotSent, PenstockError, TooLarge, Unconfirmed
from penstock.kafka.config import client_options
from penstock.kafka.failures import principal_of, translate
from penstock.kafka.lookup import Found, look_up
from penstock.kafka.net import NetClient
from penstock.settings import Settings

#: Private attributes this module reaches into, as dotted paths from the network client.
PRIVATE: Final = (
    "_manager._conns",
    "_manager.bootstrap",
    "_manager.least_loaded_node",
    "_manager.send",
    "_manager.wait_for",
    "_net.call_soon_threadsafe",
    "_net.run",
    "_net.sleep",
)

#: Records and bytes of one partition in one request. A batch must not be larger than the
#: topic's ``max.message.bytes``, 1 MB unless it is set; one that is gets halved.
_BATCH_RECORDS: Final = 500
_BATCH_BYTES: Final = 500_000
#: Bytes of one request. Brokers end the connection at ``socket.request.max.bytes``, 100 MiB.
_REQUEST_BYTES: Final = 8_000_000
_MOST_BYTES: Final = 100_000_000
#: A record costs about so much beside its key, value and headers.
_OVERHEAD: Final = 30

_BACKOFF: Final = 0.1  # seconds between tries
_REFRESH: Final = 30.0  # seconds that the leaders of a topic are believed

_TOO_LARGE: Final = (k.MessageSizeTooLargeError, k.RecordListTooLargeError)
#: About a single record: the others of its batch are innocent.
_ONE_OF: Final = (*_TOO_LARGE, k.InvalidRecordError, k.InvalidTimestampError)
#: Not about records at all, and no second try will help.
_FINAL: Final = (
    k.AuthorizationError,
    k.SaslAuthenticationFailedError,
    k.UnsupportedSaslMechanismError,
    k.IncompatibleBrokerVersion,
    k.UnsupportedVersionError,
)

#: A partition: topic and number.
_At = tuple[str, int]


class Outgoing(NamedTuple):
    """A record to produce. Its timestamp is that of producing.

    ``partition`` is where it goes if the topic has that one; else its key decides.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    partition: int | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        named = sum(len(name.encode()) + len(value or b"") + 4 for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + named + _OVERHEAD


@dataclass(slots=True)
class _Item:
    record: Outgoing
    outcome: NotSent | None = None


class _Lane:
    """What is still to be sent to one partition, in order."""

    def __init__(self) -> None:
        self.items: deque[_Item] = deque()
        #: Why the last try failed, while it may still succeed.
        self.error: BaseException | None = None
        self._limit = _BATCH_RECORDS

    def next(self) -> list[_Item]:
        chosen: list[_Item] = []
        size = 0
        for item in self.items:
            size += item.record.size
            if chosen and (len(chosen) >= self._limit or size > _BATCH_BYTES):
                break
            chosen.append(item)
        return chosen

    def over(self, chosen: list[_Item], outcome: NotSent | None = None) -> None:
        """The first ones, just taken by :meth:`next`, are confirmed, or refused."""
        for item in chosen:
            item.outcome = outcome
            self.items.popleft()
        self.error = None
        self._limit = min(_BATCH_RECORDS, 2 * self._limit)

    def halve(self, chosen: list[_Item]) -> None:
        """One of these is refused; find out which."""
        self._limit = len(chosen) // 2


class Producer:
    """A connection to the cluster on which records are produced, acks=all."""

    def __init__(self, settings: Settings) -> None:
        self._principal = principal_of(settings.sasl_username)
        self._topics: dict[str, tuple[Found, float]] = {}
        self._turn = random.randrange(1_000)  # noqa: S311 (spreads records without a key)
        self._abandoned = False
        self._client = NetClient(**client_options(settings))
        self._manager = self._client._manager  # noqa: SLF001 (PRIVATE)
        self._net = self._client._net  # noqa: SLF001 (PRIVATE)

    def connect(self, timeout: float) -> None:
        """Find a broker. Comes first; close the producer when it raises.

        Raises:
            TimeoutError: none answered within ``timeout`` seconds.
            KafkaFailure: one answered no.
        """
        try:
            self._manager.bootstrap(max(1, round(timeout * 1000)))
        except (k.KafkaError, OSError, ValueError) as error:
            refused, why = self._client.refused, self._client.last_error or error
            if refused is None and isinstance(error, k.KafkaTimeoutError):
                raise TimeoutError(f"no broker answered within {timeout:.3g} s ({why})") from error
            raise self._failure(refused or error) from error

    def send(self, records: Iterable[Outgoing], timeout: float) -> list[NotSent | None]:
        """Produce ``records``; of each, in order: ``None`` when confirmed, else why not.

        Records of one partition are written in order, unless one of them is refused. Returns
        within ``timeout`` seconds; what is not confirmed by then is not tried any more.
        """
        items = [_Item(record) for record in records]
        self._net.run(self._send(items, time.monotonic() + timeout))
        return [item.outcome for item in items]

    def look_up(self, topics: Collection[str], timeout: float) -> Mapping[str, Found]:
        """What the cluster says of ``topics``. Never creates one.

        Raises:
            Unconfirmed: no answer within ``timeout`` seconds.
            KafkaFailure: the broker refused us.
        """
        self._topics.clear()
        try:
            self._net.run(self._ask(topics, time.monotonic() + timeout))
        except _FINAL as error:
            raise self._failure(error) from error
        except k.KafkaError as error:
            raise Unconfirmed(f"no broker told about topic {', '.join(topics)}: {error}") from error
        return {name: found for name, (found, _) in self._topics.items()}

    def abandon(self) -> None:
        """End what is under way: what is not confirmed yet fails. From any thread."""
        self._abandoned = True
        with contextlib.suppress(RuntimeError):  # closed already
            self._net.call_soon_threadsafe(self._hang_up)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # -- on the client's loop, which the calling thread drives -------------------------

    def _hang_up(self) -> None:
        # With an error: without one a connection waits for what it has still to write.
        for connection in list(self._manager._conns.values()):  # noqa: SLF001 (PRIVATE)
            connection.close(k.KafkaConnectionError("given up"))
        self._manager.close()

    async def _send(self, items: list[_Item], until: float) -> None:
        try:
            await self._know({item.record.topic for item in items}, until)
        except k.KafkaError as error:
            self._give_up(items, error)
            return
        lanes = self._lanes(items)
        while lanes and self._going(until):
            await self._round(lanes, until)
            lanes = {at: lane for at, lane in lanes.items() if lane.items}
            if lanes and any(lane.error is not None for lane in lanes.values()):
                await self._look_again(lanes, until)
        for lane in lanes.values():
            self._give_up(lane.items, lane.error)

    def _going(self, until: float) -> bool:
        return not self._abandoned and time.monotonic() < until

    def _lanes(self, items: Iterable[_Item]) -> dict[_At, _Lane]:
        """Give each record its partition; those that cannot be sent at all fail here."""
        lanes: dict[_At, _Lane] = defaultdict(_Lane)
        for item in items:
            record = item.record
            found, _ = self._topics[record.topic]
            if found.error is not None:
                item.outcome = self._refused(record, found.error)
            elif record.size > _MOST_BYTES:
                item.outcome = self._refused(record, k.MessageSizeTooLargeError)
            else:
                lanes[record.topic, self._partition(record, found)].items.append(item)
        return lanes

    def _partition(self, record: Outgoing, found: Found) -> int:
        """As asked, or by the key, as Java's clients do it; records without one take turns."""
        if record.partition is not None and record.partition in found.leaders:
            return record.partition
        numbers = sorted(found.leaders)
        if record.key is not None:
            hashed: int = murmur2(record.key)
            return numbers[(hashed & 0x7FFFFFFF) % len(numbers)]
        self._turn += 1
        return numbers[self._turn % len(numbers)]

    async def _round(self, lanes: Mapping[_At, _Lane], until: float) -> None:
        """One request to each leader, with one batch for each of its partitions."""
        requests: dict[int, dict[_At, list[_Item]]] = defaultdict(dict)
        sizes: dict[int, int] = defaultdict(int)
        for at, lane in lanes.items():
            leader = self._topics[at[0]][0].leaders.get(at[1], -1)
            if leader < 0:
                lane.error = k.LeaderNotAvailableError(f"{at[0]}[{at[1]}] has no leader")
                continue
            chosen = lane.next()
            size = sum(item.record.size for item in chosen)
            if sizes[leader] and sizes[leader] + size > _REQUEST_BYTES:
                continue  # in the next round
            sizes[leader] += size
            requests[leader][at] = chosen
        futures = {node: self._post(node, batches, until) for node, batches in requests.items()}
        for node, batches in requests.items():
            try:
                left = max(0.0, until - time.monotonic())
                answers = _answers(await self._manager.wait_for(futures[node], left * 1000))
            except (k.KafkaError, OSError) as error:
                for at, chosen in batches.items():
                    self._failed(lanes[at], chosen, error)
                continue
            for at, chosen in batches.items():
                self._answered(lanes[at], chosen, *answers[at])

    def _post(self, node: int, batches: Mapping[_At, list[_Item]], until: float) -> Any:
        left = max(1, round((until - time.monotonic()) * 1000))
        by_topic: dict[str, list[Any]] = defaultdict(list)
        for (topic, number), chosen in batches.items():
            data = ProduceRequest.TopicProduceData.PartitionProduceData(
                index=number, records=_batch(chosen)
            )
            by_topic[topic].append(data)
        request = ProduceRequest(
            transactional_id=None,
            acks=-1,
            timeout_ms=left,
            topic_data=[
                ProduceRequest.TopicProduceData(name=topic, partition_data=data)
                for topic, data in by_topic.items()
            ],
            min_version=3,  # record batches with headers
            max_version=9,  # from 13 on, topics go by their ids
        )
        try:
            return self._manager.send(request, node, request_timeout_ms=left)
        except k.KafkaError as error:  # a broker that is gone, or that refused the credentials
            return Future().failure(error)

    def _answered(
        self, lane: _Lane, chosen: list[_Item], error: type[k.KafkaError], message: str | None
    ) -> None:
        if error is k.NoError:
            lane.over(chosen)
        elif issubclass(error, _ONE_OF) and len(chosen) > 1:
            lane.halve(chosen)
        elif issubclass(error, k.RetriableError):
            lane.error = error(message)
        else:
            lane.over(chosen, self._refused(chosen[0].record, error, message))

    def _failed(self, lane: _Lane, chosen: list[_Item], error: BaseException) -> None:
        """No answer to the request."""
        if isinstance(error, _FINAL):
            lane.over(chosen, NotSent(str(self._failure(error))))
        else:
            lane.error = error

    async def _look_again(self, lanes: dict[_At, _Lane], until: float) -> None:
        """Something failed that may pass: after a moment, find out who leads now."""
        await self._net.sleep(max(0.0, min(_BACKOFF, until - time.monotonic())))
        topics = {topic for (topic, _), lane in lanes.items() if lane.error is not None}
        before = {topic: self._topics.pop(topic) for topic in topics}
        try:
            await self._know(topics, until)
        except k.KafkaError:
            self._topics.update(before)
        for at, lane in list(lanes.items()):
            if (error := self._topics[at[0]][0].error) is not None:  # gone meanwhile
                for item in lane.items:
                    item.outcome = self._refused(item.record, error)
                del lanes[at]

    async def _know(self, topics: Collection[str], until: float) -> None:
        """Have the leaders of ``topics``, not older than they may be."""
        oldest = time.monotonic() - _REFRESH
        unknown = [
            topic
            for topic in topics
            if topic not in self._topics
            or self._topics[topic][1] < oldest
            or self._topics[topic][0].error is not None
        ]
        if unknown:
            await self._ask(unknown, until)

    async def _ask(self, topics: Collection[str], until: float) -> None:
        """Ask until a broker tells."""
        while True:
            if self._abandoned:  # the client would connect anew
                raise k.KafkaConnectionError("given up")
            try:
                found = await look_up(self._manager, topics, until - time.monotonic())
                passing = [f.error for f in found.values() if f.error is not None and f.passing]
                if passing:
                    raise passing[0]
            except (k.KafkaError, OSError) as error:
                if isinstance(error, _FINAL) or not self._going(until - _BACKOFF):
                    raise
                await self._net.sleep(_BACKOFF)
            else:
                now = time.monotonic()
                self._topics.update({name: (each, now) for name, each in found.items()})
                return

    # -- what to say -------------------------------------------------------------------

    def _refused(
        self, record: Outgoing, error: type[BaseException], message: str | None = None
    ) -> NotSent:
        topic = record.topic
        if issubclass(error, k.UnknownTopicOrPartitionError):
            return NotSent(f"topic {topic} does not exist: create it")
        if issubclass(error, k.InvalidTopicError):
            return NotSent(f"{topic!r} is not a name that a topic can have")
        if issubclass(error, k.TopicAuthorizationFailedError):
            return NotSent(
                f"principal {self._principal} may not write to topic {topic}: "
                f"grant it WRITE on Topic:{topic}"
            )
        if issubclass(error, _TOO_LARGE):
            return TooLarge(
                f"topic {topic} takes no record of about {record.size:,} bytes: raise its "
                "max.message.bytes"
            )
        return NotSent(f"topic {topic} refused a record: {message or error.__name__}")

    def _give_up(self, items: Iterable[_Item], error: BaseException | None) -> None:
        why = f" ({error})" if error is not None else ""
        for item in items:
            item.outcome = (
                NotSent(str(self._failure(error)))
                if isinstance(error, _FINAL)
                else Unconfirmed(
                    f"no broker confirmed a record for topic {item.record.topic} in time{why}: "
                    "is the cluster up, and has the topic enough replicas in sync?"
                )
            )

    def _failure(self, error: BaseException) -> PenstockError:
        found = translate(error, principal=self._principal, group="")
        return found if isinstance(found, KafkaFailure) else KafkaFailure(str(found))


def _batch(items: Sequence[_Item]) -> Any:
    now = int(time.time() * 1000)
    builder = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=2 * _MOST_BYTES)
    for item in items:
        record = item.record
        if builder.append(now, record.key, record.value, list(record.headers)) is None:
            raise ValueError("a batch grew beyond all limits")  # Lane.next() does not let it
    builder.close()
    return builder.buffer()


def _answers(response: Any) -> dict[_At, tuple[type[k.KafkaError], str | None]]:
    return {
        (topic.name, each.index): (k.for_code(each.error_code), each.error_message)
        for topic in response.responses
        for each in topic.partition_responses
    }
