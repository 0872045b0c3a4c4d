"""One partition's way through a worker: what waits, what runs, how far it is finished.

A :class:`Lane` is a partition that the worker owns. Its records are in strands: a
:class:`Strand` is what is handled one after another, the whole partition, the records of one
key, or a single record, as the subscription's ``order_by`` wants it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from operator import attrgetter

from penstock import offset_map
from penstock.app import Order
from penstock.errors import KilledItsProcess
from penstock.failure import Failure
from penstock.offset_map import Deaths
from penstock.offsets import Position, Tracker
from penstock.record import Partition, Record

_OFFSET = attrgetter("offset")


class Stand(Enum):
    """Where a strand is."""

    IDLE = "idle"
    READY = "ready"
    LATER = "later"
    BUSY = "busy"
    SENDING = "sending"


class Strand:
    """Records that are handled one after another."""

    __slots__ = (
        "attempts",
        "key",
        "lane",
        "letter",
        "letter_tries",
        "since",
        "sizes",
        "stand",
        "ticket",
        "waiting",
    )

    def __init__(self, lane: Lane, key: object) -> None:
        self.lane = lane
        #: Under which the lane finds it.
        self.key = key
        self.waiting: deque[Record] = deque()
        self.stand = Stand.IDLE
        #: Failed tries of the first record that waits.
        self.attempts = 0
        #: Sizes of the next batches, and whether each has one try left: a batch is tried again
        #: as the same batch, and one that failed for good record by record.
        self.sizes: deque[tuple[int, bool]] = deque()
        #: When the first record that waits came.
        self.since = 0.0
        #: Tells a place in the queue of those that wait from one that was given up.
        self.ticket = 0
        #: A record given up on, until its dead letter is confirmed.
        self.letter: Refused | None = None
        self.letter_tries = 0

    def back(self, records: Sequence[Record]) -> None:
        """Records that were taken and not handled."""
        self.waiting.extendleft(reversed(records))

    def drop(self) -> int:
        """Forget what no handler has started; how many records that was."""
        dropped = len(self.waiting) + (self.letter is not None and self.stand is not Stand.SENDING)
        if self.letter is not None and self.stand is not Stand.SENDING:
            self.lane.cut_at(self.letter.record.offset)
        if self.waiting:
            self.lane.cut_at(self.waiting[0].offset)
        self.waiting.clear()
        self.sizes.clear()
        if self.stand is not Stand.BUSY:  # they are those of the record in flight
            self.attempts = 0
        if self.stand is not Stand.SENDING:
            self.letter = None
        return dropped


class Refused:
    """A record that will not be tried again, and why."""

    __slots__ = ("attempts", "failure", "record", "topic")

    def __init__(self, record: Record, failure: Failure, attempts: int, topic: str) -> None:
        self.record = record
        self.failure = failure
        self.attempts = attempts
        #: The dead-letter topic.
        self.topic = topic


class Job:
    """What a runner is to do: call the handler with ``records``, or send ``letter``.

    The runner counts in ``done`` how many it finished, looks at ``lane.stop`` between two, and
    gives the job back to :meth:`penstock.desk.Desk.finish`.
    """

    __slots__ = ("alone", "done", "lane", "letter", "probe", "records", "refused", "strand")

    def __init__(
        self,
        strand: Strand,
        records: list[Record],
        *,
        probe: bool = False,
        letter: Refused | None = None,
        alone: bool = False,
    ) -> None:
        self.strand = strand
        self.lane = strand.lane
        self.records = records
        self.done = 0
        #: The one that a circuit breaker lets through.
        self.probe = probe
        self.letter = letter
        #: With nothing beside it in this process, to see whether the record kills.
        self.alone = alone
        #: To be raised in place of calling the handler: the record kills.
        self.refused: KilledItsProcess | None = None

    def check(self) -> None:
        """Called in place of the handler, and before it, once for the job.

        Raises:
            KilledItsProcess: the handler must not be called.
        """
        if self.refused is not None:
            raise self.refused


class Lane:
    """A partition that this worker owns.

    ``stop`` is looked at between two records: set, a runner lets go after the record in
    flight. A lane is thrown away when its partition goes; one that comes back gets a new
    lane, so that work finished for the old ownership can never be committed under the new one.
    """

    __slots__ = (
        "at",
        "backlog",
        "busy",
        "committed",
        "cut",
        "deaths",
        "done",
        "finished",
        "gone",
        "known",
        "leaving",
        "order",
        "partition",
        "passed",
        "reached",
        "said_deaths",
        "seen",
        "stalled_at",
        "stop",
        "strands",
        "tolls",
        "tracker",
    )

    def __init__(self, partition: Partition, order: Order, committed: Position | None) -> None:
        """``committed``: what the group has committed, with what is finished beyond it.

        Raises:
            offset_map.BadMap: the text is damaged.
        """
        self.partition = partition
        self.order = order
        #: The position the broker has confirmed; ``None``: to be found out by committing.
        self.committed: Position | None = committed
        said = offset_map.decode(*committed) if committed else offset_map.NOTHING
        #: Only what can finish out of order needs its offsets followed one by one.
        self.tracker = (
            Tracker(said.finished) if said.finished or order is not Order.PARTITION else None
        )
        #: Which records were in the company of deaths, oldest first; committed with the map.
        #: Replaced as a whole by whoever counts, who need not take out what is finished.
        self.deaths: tuple[Deaths, ...] = said.deaths
        #: Whether the commit that was found tells of some.
        self.said_deaths = bool(said.deaths)
        #: Deaths among these that the group's commit does not have yet; nothing is handed out
        #: before it has, or the next owner would begin to count anew.
        self.tolls: tuple[str, ...] = ()
        self.strands: dict[object, Strand] = {}
        #: Came, but may not be handed out yet: what finishes of it would not fit the metadata.
        self.backlog: deque[Record] = deque()
        #: Came again, but an earlier owner had finished them; the desk takes them out.
        self.known: list[Record] = []
        #: The position at which the backlog found no room; it finds none before that moves.
        self.stalled_at: int | None = None
        #: Finished since the tracker was last told. Runners append, without the lock.
        self.finished: deque[int] = deque()
        #: Next offset to commit of a lane that is handled in order, ``None`` until one finished.
        self.at: int | None = None
        #: Called by runners, without the lock, with each offset that finished.
        self.done: Callable[[int], None] = (
            self._done_in_order if self.tracker is None else self.finished.append
        )
        #: Jobs and dead letters under way.
        self.busy: set[Job] = set()
        self.stop = False
        #: Being revoked: ``resume`` after a quiet must not start it again.
        self.leaving = False
        #: Revoked or lost: nothing of it may be committed any more.
        self.gone = False
        #: Where the client goes on reading, as far as that is known: what lies before was
        #: handed over, or is no record.
        self.reached: int | None = None
        #: As far as it was when nothing was unfinished: nothing before comes any more.
        self.passed = -1
        #: The first record that was handed over and dropped, without a handler having begun.
        self.cut: int | None = None
        #: The position last made, and of what.
        self.seen: tuple[object, Position] | None = None

    def _done_in_order(self, offset: int) -> None:
        self.at = offset + 1

    def done_all(self, records: Sequence[Record]) -> None:
        """A batch finished. By runners, without the lock."""
        if self.tracker is None:
            self.at = records[-1].offset + 1
        else:
            self.finished.extend(r.offset for r in records)

    def spread(self) -> Iterable[tuple[Strand, bool]]:
        """Put what may be handed out of the backlog into strands; each once, and if it was empty.

        In the order of their first record.
        """
        backlog = self.backlog
        if self.tolls:
            return ()
        if self.tracker is None:
            if not backlog:
                return ()
            strand = self._strand(None)
            fresh = not strand.waiting
            strand.waiting.extend(backlog)
            backlog.clear()
            return ((strand, fresh),)
        self.settle()
        if not backlog or (self.stalled_at is not None and self.stalled_at == self.position_at):
            return ()
        ready: list[Record] = []
        while backlog:
            offsets = [r.offset for r in backlog]
            count = self.tracker.room(offsets)
            whole = count == len(backlog)
            self.stalled_at = None if whole else self.tracker.position
            if whole:
                taken = list(backlog)
                backlog.clear()
            else:
                taken = [backlog.popleft() for _ in range(count)]
                del offsets[count:]
            todo = self.tracker.admit(offsets)
            if len(todo) == count:
                ready += taken
                break
            # Those that are finished make room at once; nobody may come back to look again.
            left = set(todo)
            self.known.extend(r for r in taken if r.offset not in left)
            ready += [r for r in taken if r.offset in left]
        return self._into_strands(ready)

    def _into_strands(self, records: Iterable[Record]) -> Iterable[tuple[Strand, bool]]:
        """The hot path of every order but by partition: little is done once a record."""
        strands = self.strands
        by_key, by_partition = self.order is Order.KEY, self.order is Order.PARTITION
        touched: dict[Strand, bool] = {}
        for record in records:
            key: object = record.key if by_key else None
            if key is None and not by_partition:
                key = record.offset
            strand = strands.get(key)
            if strand is None:
                strand = strands[key] = Strand(self, key)
            if strand not in touched:
                touched[strand] = not strand.waiting
            strand.waiting.append(record)
        return touched.items()

    @property
    def position_at(self) -> int | None:
        """The offset to commit next."""
        return self.at if self.tracker is None else self.tracker.position

    def _strand(self, key: object) -> Strand:
        strand = self.strands.get(key)
        if strand is None:
            strand = self.strands[key] = Strand(self, key)
        return strand

    def settle(self) -> None:
        """Tell the tracker what finished."""
        finished, tracker = self.finished, self.tracker
        if tracker is not None and finished:  # runners may append meanwhile
            tracker.done_all([finished.popleft() for _ in range(len(finished))])

    def cut_at(self, offset: int) -> None:
        """A record was dropped: this worker will never finish it."""
        self.cut = offset if self.cut is None else min(offset, self.cut)

    def position(self) -> Position | None:
        """What may be committed, ``None`` as long as nothing is known.

        As long as something is unfinished, as far as everything is finished; else where the
        client is, which may be further on: behind a transaction's marker, or what compaction
        left of a log's end.
        """
        reached, at = self.reached, self._finished()
        if reached is not None and reached > self.passed and self.lowest() is None:
            self.passed = reached
        if self.passed >= 0:
            at = self.passed if at is None else max(at, self.passed)
        if at is None and (self.deaths or self.said_deaths):
            # There may be deaths to tell of, or to take back, before anything finished.
            if self.committed is not None:
                at = self.committed.offset
            elif self.backlog:
                at = self.backlog[0].offset
        return None if at is None else self._with_text(at)

    def _finished(self) -> int | None:
        """Up to where everything that was handed over is finished; ``None`` if nothing is."""
        if self.tracker is None:
            return self.at
        self.settle()
        return self.tracker.position if self.tracker.version else None

    def _with_text(self, at: int) -> Position:
        version = 0 if self.tracker is None else self.tracker.version
        made_of = at, version, self.deaths
        if self.seen is None or self.seen[0] != made_of:
            beyond = () if self.tracker is None else self.tracker.beyond
            finished = [offset for offset in beyond if offset >= at]
            self.seen = made_of, Position(at, offset_map.encode(at, finished, self.deaths))
        return self.seen[1]

    @property
    def dirty(self) -> bool:
        """Whether something is finished that the broker does not know of."""
        at, committed = self._finished(), self.committed
        if at is None or (committed is not None and at < committed.offset):
            return False
        return self._with_text(at) != committed

    def lowest(self) -> int | None:
        """The first offset that was handed over and is not finished, ``None`` if all are."""
        lowest = self._lowest()
        if self.cut is None or lowest is None:
            return self.cut if lowest is None else lowest
        return min(lowest, self.cut)

    def _lowest(self) -> int | None:
        if self.tracker is not None:
            self.settle()
            lowest = self.tracker.lowest
            if lowest is None and self.backlog:
                return self.backlog[0].offset
            return lowest
        candidates: Iterator[list[Record]] = (job.records for job in self.busy)
        for records in candidates:
            index = 0 if self.at is None else bisect_left(records, self.at, key=_OFFSET)
            if index < len(records):
                return records[index].offset
        for strand in self.strands.values():
            if strand.letter is not None:
                return strand.letter.record.offset
            if strand.waiting:
                return strand.waiting[0].offset
        return self.backlog[0].offset if self.backlog else None
