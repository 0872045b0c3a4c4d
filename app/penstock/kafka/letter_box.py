"""Reads a dead-letter topic as it is now, and marks letters as dealt with.

The marks are a consumer group's commits: the next offset to deal with, and in its metadata what
is dealt with beyond (:mod:`penstock.offset_map`), believed as a worker believes it
(:mod:`penstock.kafka.note`). The consumer here is no member of the group,
it reads partitions that it names itself, so nothing is rebalanced and nothing waits for it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from kafka import TopicPartition
from kafka import errors as k

from penstock import offset_map
from penstock.errors import AuthorizationFailed, KafkaFailure, NotSent, PenstockError
from penstock.kafka.config import consumer_options
from penstock.kafka.failures import principal_of, translate
from penstock.kafka.lookup import look_up
from penstock.kafka.net import NotOpened, open_consumer
from penstock.kafka.note import Came, Log, believe, tells_epochs, topic_id
from penstock.letter_filter import Stored
from penstock.letters import origin
from penstock.offsets import Position, Tracker
from penstock.record import Record
from penstock.settings import Settings

#: Private attributes this module reaches into, as dotted paths from the consumer.
PRIVATE: Final = (
    "_manager.broker_version",
    "_manager.cluster",
    "_manager.send",
    "_manager.wait_for",
    "_net.run",
)

#: Seconds for each question to the cluster.
_ANSWER: Final = 10.0
#: Seconds without a record, or any progress, until reading is given up.
_PATIENCE: Final = 30.0
_AGAIN: Final = 0.2  # seconds until a question that failed is asked again
#: Letters that are sent, and then marked, at a time; fewer when they are large.
BATCH: Final = 100
_BATCH_BYTES: Final = 16_000_000

#: Sends letters back; of each, ``None`` when confirmed.
Send = Callable[[Sequence[Stored]], Sequence[NotSent | None]]


class LetterBox:
    """A dead-letter topic as it is when this is made: what comes later is not looked at.

    Raises:
        KafkaFailure: no broker, no such topic, or it may not be read.
    """

    def __init__(self, settings: Settings, topic: str, group: str) -> None:
        self.topic = topic
        self.group = group
        #: What to tell besides: marks that cannot be read.
        self.warnings: list[str] = []
        self._may_mark = False
        self._principal = principal_of(settings.sasl_username)
        options = consumer_options(settings, group, None) | {
            "auto_offset_reset": "earliest",  # retention may take away what is being read
            "bootstrap_timeout_ms": round(_ANSWER * 1000),
        }
        self._consumer = self._open(options)
        try:
            with self._translated():
                self._begins, self._ends = self._bounds()
                self._committed = {number: self._fetch(number) for number in self.partitions}
                came = self._believed()
            self._logs = {n: each.log for n, each in came.items()}
            self._marks = {n: self._told(n, came.get(n)) for n in self.partitions}
        except BaseException:
            self.close()
            raise

    def _open(self, options: dict[str, Any]) -> Any:
        try:
            return open_consumer(options)[0]
        except NotOpened as failed:
            if failed.nobody_answered:
                raise KafkaFailure(
                    f"no broker answered within {_ANSWER:g} s ({failed.why or failed.error}): is "
                    "PENSTOCK_BOOTSTRAP_SERVERS right?"
                ) from failed.error
            raise self._failure(failed.error) from failed.error

    @property
    def partitions(self) -> list[int]:
        """The partitions' numbers."""
        return sorted(self._ends)

    def count(self, *, settled: bool = False) -> int:
        """How many :meth:`letters` there are at most: gaps in the offsets count as well."""
        return sum(self._ends[n] - self._first(n, settled=settled) for n in self.partitions)

    def _first(self, number: int, *, settled: bool) -> int:
        position, _ = self._marks[number]
        return max(self._begins[number], 0 if settled else position)

    def letters(
        self, number: int, *, settled: bool = False, start: int = 0, end: int | None = None
    ) -> Iterator[Stored]:
        """What lies in one partition from ``start`` to before ``end``.

        ``settled``: also what is dealt with.
        """
        position, beyond = self._marks[number]
        first = max(start, self._first(number, settled=settled))
        last = self._ends[number] if end is None else min(end, self._ends[number])
        for record in self._read(number, first, last):
            done = record.offset < position or record.offset in beyond
            if settled or not done:
                yield Stored(record, origin(record.headers), done)

    def settle(
        self,
        number: int,
        chosen: AbstractSet[int],
        send: Send | None,
        told: Callable[[int], None],
        halt: Callable[[], bool],
    ) -> None:
        """Send the ``chosen`` letters of one partition, and mark them; without ``send``, mark.

        Marked every hundred letters: whatever ends this, only letters of the last hundred can
        have been sent without being marked. ``told`` gets the number of those that are done;
        ``halt`` is asked between batches.

        Raises:
            KafkaFailure: one was not taken, the marks have no room, or somebody else marks.
        """
        _, beyond = self._marks[number]
        tracker = Tracker(beyond)
        batch: list[Stored] = []
        for stored in self._open_ones(number, chosen, tracker):
            batch.append(stored)
            while _full(batch):
                if halt():
                    return
                batch = self._settle(number, tracker, batch, send, told)
        while batch and not halt():
            batch = self._settle(number, tracker, batch, send, told)

    def _open_ones(
        self, number: int, chosen: AbstractSet[int], tracker: Tracker
    ) -> Iterator[Stored]:
        """The chosen letters, while the tracker gets to know everything that lies between."""
        if not chosen:
            return
        first = self._first(number, settled=False)
        for record in self._read(number, first, max(chosen) + 1):
            if tracker.admit([record.offset]) and record.offset in chosen:
                yield Stored(record, origin(record.headers), settled=False)

    def _settle(
        self,
        number: int,
        tracker: Tracker,
        batch: list[Stored],
        send: Send | None,
        told: Callable[[int], None],
    ) -> list[Stored]:
        """Deal with the first ones, as many as the marks have room for; returns the rest."""
        count = _room(tracker, [stored.record.offset for stored in batch])
        if not count:
            at = f"{number}:{tracker.lowest}-{batch[0].record.offset - 1}"
            raise KafkaFailure(
                f"the marks of group {self.group} have no room for "
                f"{number}:{batch[0].record.offset}: too much is dealt with beyond open letters. "
                f"Deal with those first, with --at {at}: list them, then replay (with --to: "
                "elsewhere) or drop them"
            )
        self._unshared(number)
        if send is not None and not self._may_mark:
            self._mark(number, tracker, 0)  # what cannot be marked must not be sent
            self._may_mark = True
        now, rest = batch[:count], batch[count:]
        outcomes = [None] * count if send is None else send(now)
        done = [s for s, outcome in zip(now, outcomes, strict=True) if outcome is None]
        for stored in done:
            tracker.done(stored.record.offset)
        if done:
            self._mark(number, tracker, len(done) if send is not None else 0)
            told(len(done))
        for stored, outcome in zip(now, outcomes, strict=True):
            if outcome is not None:
                raise KafkaFailure(
                    f"the letter at {number}:{stored.record.offset} was not replayed: {outcome}"
                ) from outcome
        return rest

    def _mark(self, number: int, tracker: Tracker, sent: int) -> None:
        assert tracker.position is not None
        text = _encoded(tracker.position, tracker.beyond)
        at = self._log(number).committable(Position(tracker.position, text))
        try:
            with self._translated():
                self._commit({number: at})
        except PenstockError as error:
            lost = (
                f"; {sent} letters were sent and are not marked, so they stay open" if sent else ""
            )
            raise KafkaFailure(f"the marks were not taken: {error}{lost}") from error
        self._committed[number] = at

    def _log(self, number: int) -> Log:
        if number not in self._logs:
            manager = self._consumer._manager  # noqa: SLF001 (PRIVATE)
            self._logs[number] = Log(
                topic_id(manager.cluster, self.topic), told=tells_epochs(manager)
            )
        return self._logs[number]

    def renew(self) -> None:
        """Commit all marks once more, as they are now: the cluster forgets those that are old."""
        with self._translated():
            for number in self.partitions:
                now = self._fetch(number)  # somebody may be at work in another partition
                if now is not None:
                    self._commit({number: now})

    def close(self) -> None:
        """Close the consumer."""
        with contextlib.suppress(k.KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=1_000)

    # -- the cluster -------------------------------------------------------------------

    def _bounds(self) -> tuple[dict[int, int], dict[int, int]]:
        consumer = self._consumer
        manager = consumer._manager  # noqa: SLF001 (PRIVATE: partitions_for_topic asks for all)
        found = consumer._net.run(look_up, manager, [self.topic], _ANSWER)[self.topic]  # noqa: SLF001 (PRIVATE)
        if found.missing:
            raise KafkaFailure(
                f"topic {self.topic} does not exist: is its name right, and is it this cluster's?"
            )
        if found.error is not None:
            if issubclass(found.error, k.AuthorizationError):
                raise AuthorizationFailed(
                    f"principal {self._principal} may not see topic {self.topic}: grant it READ "
                    f"on Topic:{self.topic}"
                )
            raise found.error
        tps = [TopicPartition(self.topic, number) for number in found.leaders]
        begins = consumer.beginning_offsets(tps, timeout_ms=_ANSWER * 1000)
        ends = consumer.end_offsets(tps, timeout_ms=_ANSWER * 1000)
        return (
            {tp.partition: int(offset) for tp, offset in begins.items()},
            {tp.partition: int(offset) for tp, offset in ends.items()},
        )

    def _fetch(self, number: int) -> Any:
        """What the group has committed, as the client tells it; ``None`` for nothing."""
        tp = TopicPartition(self.topic, number)
        return _patiently(
            lambda: self._consumer.committed(tp, metadata=True, timeout_ms=_ANSWER * 1000)
        )

    def _commit(self, at: dict[int, Any]) -> None:
        offsets = {TopicPartition(self.topic, number): each for number, each in at.items()}
        _patiently(lambda: self._consumer.commit(offsets, timeout_ms=_ANSWER * 1000))

    def _believed(self) -> dict[int, Came]:
        """What of the commits is believed, by partition."""
        committed = {
            TopicPartition(self.topic, number): at
            for number, at in self._committed.items()
            if at is not None
        }

        def ask() -> dict[int, Came]:
            manager = self._consumer._manager  # noqa: SLF001 (PRIVATE)
            found = self._consumer._net.run(believe, manager, committed, _ANSWER)  # noqa: SLF001 (PRIVATE)
            if len(found) < len(committed):
                raise k.LeaderNotAvailableError(f"some partitions of {self.topic}")
            return {tp.partition: came for tp, came in found.items()}

        came: dict[int, Came] = _patiently(ask)
        return came

    def _told(self, number: int, came: Came | None) -> tuple[int, frozenset[int]]:
        """What is dealt with: everything before an offset, and some beyond it."""
        if came is None or came.elsewhere or came.position.offset > self._ends[number]:
            return 0, frozenset()  # nothing, or of a topic that had this name before
        offset, text = came.position
        complaint = came.complaint
        try:
            finished = offset_map.decode(offset, text).finished
        except offset_map.BadMap as error:
            complaint, finished = f"damaged: {error}", frozenset()
        if complaint is not None:
            self.warnings.append(
                f"the marks of group {self.group} for {self.topic}[{number}] are not believed "
                f"({complaint}): letters from {number}:{offset} on count as open"
            )
        return offset, finished

    def _unshared(self, number: int) -> None:
        """Two at once would undo each other's marks."""
        with self._translated():
            now = self._fetch(number)
        if now != self._committed[number]:
            raise KafkaFailure(
                f"somebody else is marking letters of {self.topic}[{number}] in group "
                f"{self.group}: wait until that has ended, and start again"
            )

    def _read(self, number: int, start: int, end: int) -> Iterator[Record]:
        """Records from ``start`` to before ``end``, ended also by gaps and transaction markers."""
        if start >= end:
            return
        tp = TopicPartition(self.topic, number)
        with self._translated():
            self._consumer.assign([tp])
            self._consumer.seek(tp, start)
        position, since = start, time.monotonic()
        while position < end:
            fetched = self._poll(tp)
            if fetched:
                self._log(number).saw(fetched)
            for found in fetched:
                if found.offset >= end:
                    return
                if found.offset >= start:
                    yield _record(found)
            with self._translated():
                reached = self._consumer.position(tp, timeout_ms=_ANSWER * 1000)
            if fetched or reached != position:
                position, since = reached or position, time.monotonic()
            elif time.monotonic() - since > _PATIENCE:
                raise KafkaFailure(
                    f"nothing arrives from {self.topic}[{number}]@{position}, and it should go on "
                    f"to {end}"
                )
            elif not fetched:
                with self._translated():  # truncated meanwhile?
                    end = min(end, self._consumer.end_offsets([tp], _ANSWER * 1000)[tp])

    def _poll(self, tp: Any) -> list[Any]:
        try:
            fetched = self._consumer.poll(timeout_ms=1_000)
        except Exception as error:
            failure = translate(error, principal=self._principal, group=self.group)
            if isinstance(failure, KafkaFailure):
                raise failure from error
            return []  # it passes; patience has an end
        records: list[Any] = fetched.get(tp, [])
        return records

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except k.KafkaError as error:
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> KafkaFailure:
        if isinstance(
            error, k.UnknownMemberIdError | k.IllegalGenerationError | k.CommitFailedError
        ):
            return KafkaFailure(
                f"consumer group {self.group} has members, a running consumer: its marks are not "
                "ours to make; choose another --group"
            )
        found = translate(error, principal=self._principal, group=self.group)
        return found if isinstance(found, KafkaFailure) else KafkaFailure(str(found))


def _patiently(ask: Callable[[], Any]) -> Any:
    """A broker that is restarted between sending and marking is waited for."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return ask()
        except k.RetriableError:
            if time.monotonic() > until:
                raise
            time.sleep(_AGAIN)


def _full(batch: Sequence[Stored]) -> bool:
    if len(batch) >= BATCH:
        return True
    return sum(len(stored.record.value or b"") for stored in batch) >= _BATCH_BYTES


def _record(found: Any) -> Record:
    return Record(
        found.topic,
        found.partition,
        found.offset,
        found.timestamp,
        found.key,
        found.value,
        found.headers,
    )


def _room(tracker: Tracker, offsets: Sequence[int]) -> int:
    """How many of ``offsets`` can be marked now; one that is the oldest open letter always."""
    assert tracker.position is not None
    beyond = tracker.beyond

    def has_room(count: int) -> bool:
        chosen = beyond.union(offsets[:count])
        assert tracker.position is not None
        if offset_map.fits(tracker.position, max(chosen), len(chosen)):
            return True
        try:
            offset_map.encode(tracker.position, chosen)
        except ValueError:
            return False
        return True

    if has_room(len(offsets)):
        return len(offsets)
    low, high = int(offsets[0] == tracker.lowest), len(offsets) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if has_room(middle) else (low, middle - 1)
    return low


def _encoded(position: int, beyond: AbstractSet[int]) -> str:
    """The map; where some of a batch failed in between, without the farthest if it must be."""
    marked = sorted(beyond)
    while True:
        try:
            return offset_map.encode(position, marked)
        except ValueError:
            marked.pop()
