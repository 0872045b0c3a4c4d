"""Who works on what next. All decisions between a record's arrival and its commit; pure.

    feed ──▶ lane ──▶ strand ──▶ take ──▶ (handler) ──▶ finish ──▶ committable
                        ▲                                  │
                        └── back-off, dead letter, skip ◀──┘

No threads, no clock, no I/O: the caller brings the time, holds the lock, and runs handlers.
:class:`penstock.worker.dispatch.Dispatcher` is that caller in a service,
:mod:`penstock.testing` in a test.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import count

from penstock import deaths
from penstock.app import Order
from penstock.breaker import BreakerState, Circuit
from penstock.deaths import Toll
from penstock.failure import Failure, Kind
from penstock.flow import Flow, weight
from penstock.isolation import Isolation
from penstock.lane import Job, Lane, Refused, Stand, Strand
from penstock.offset_map import BadMap
from penstock.offsets import Position
from penstock.plan import Plan
from penstock.policy import Again, Last, Redelivered, Then, decide, stays
from penstock.record import Partition, Record
from penstock.retry import Backoff

#: Records taken from a strand at once. A partition is handled in order anyway; between keys,
#: a short turn keeps a hot one from holding a runner for long.
_TURN = {Order.PARTITION: 500, Order.KEY: 16, Order.NONE: 1}

#: Tries to send a dead letter: its topic may be missing until somebody makes it.
_SENDING = Backoff(first=0.5, limit=30.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What :meth:`Desk.finish` decided about the record that failed."""

    record: Record
    verdict: Again | Last | Redelivered
    attempts: int
    #: For :meth:`Desk.sent`, with what became of it.
    letter: Job | None = None


class Desk:
    """The lanes of one worker. Not thread-safe; every method is quick."""

    def __init__(self, plan: Plan, random: Callable[[], float]) -> None:
        """``random`` gives numbers in [0, 1), for the jitter of delays."""
        settings = plan.settings
        self._plan = plan
        self._policy = plan.policy
        self._random = random
        self._flow = Flow(
            total=settings.buffer_records,
            batch=settings.max_poll_records,
            size=settings.buffer_bytes,
            poll=settings.fetch_bytes,
        )
        self._lanes: dict[Partition, Lane] = {}
        self._ready: deque[Strand] = deque()
        #: Strands with a dead letter to send: no breaker holds those up.
        self._letters: deque[Strand] = deque()
        self._later: list[tuple[float, int, int, Strand]] = []
        self._tickets = count()
        self._circuit = Circuit(plan.policy.breaker) if plan.policy.breaker else None
        self._isolation = Isolation(plan.policy.deaths)
        self.is_quiet = False
        self.draining = False
        #: Handlers that run and letters under way, those of partitions that are gone included.
        self.running = 0
        #: Set when a record must end the service.
        self.fatal: str | None = None
        #: A runner met a fault: what it held may be nowhere.
        self.broken = False
        #: Partitions given up with finished work uncommitted, or work still in flight; and how
        #: many of them since the drain began: then the exit is not a clean one.
        self.abandoned = self.abandoned_draining = 0
        #: Tolls by their ids, those committed since last asked, and lanes that waited for that.
        self._tolls: dict[str, Toll] = {}
        self._merged: list[str] = []
        self._opened: list[Lane] = []
        #: Records dropped before a handler started them, by topic, since last asked.
        self.dropped: dict[str, int] = {}

    # -- in ----------------------------------------------------------------------------

    def feed(self, partition: Partition, records: list[Record], now: float) -> int:
        """Take in what a poll brought; returns how many strands became ready.

        Records of a partition we do not own are ignored: the next owner gets them.
        """
        lane = self._lanes.get(partition)
        if lane is None:
            return 0
        if lane.leaving or self.draining:
            if records:
                lane.cut_at(records[0].offset)
            return 0
        self._flow.add(partition, len(records), weight(records))
        lane.backlog.extend(records)
        return self._spread(lane, now)

    def _spread(self, lane: Lane, now: float) -> int:
        before = self.ready
        for strand, fresh in lane.spread():
            if fresh:
                strand.since = now
            self._enqueue(strand, now)
        if lane.tracker is not None:
            if lane.known:
                self._free(lane, lane.known)
                lane.known.clear()
            if lane.backlog:
                self._flow.hold(lane.partition)
            elif not _waits(lane):
                self._flow.release(lane.partition)
        return self.ready - before

    def _enqueue(self, strand: Strand, now: float) -> None:
        """Make a strand ready if it has work; or have it wait until its batch is full."""
        if strand.lane.stop or not (strand.waiting or strand.letter):
            return
        filling = strand.stand is Stand.LATER and not strand.attempts and strand.letter is None
        if strand.stand is not Stand.IDLE and not filling:
            return
        batch = self._plan.batch
        if (
            self._plan.kind.batch
            and batch.wait
            and not strand.sizes
            and not batch.take(strand.waiting)[1]
        ):
            due = strand.since + batch.wait
            if due > now:
                if not filling:
                    self._put_off(strand, due)
                return
        strand.ticket = next(self._tickets)
        self._line_up(strand)

    def _line_up(self, strand: Strand) -> None:
        strand.stand = Stand.READY
        (self._ready if strand.letter is None else self._letters).append(strand)

    def _put_off(self, strand: Strand, due: float) -> None:
        strand.stand = Stand.LATER
        strand.ticket = next(self._tickets)
        heapq.heappush(self._later, (due, strand.ticket, strand.ticket, strand))

    def flow(self) -> tuple[Collection[Partition], Collection[Partition]]:
        """``(partitions to pause, partitions to resume)`` since the last call."""
        return self._flow.changes()

    @property
    def limit(self) -> int:
        """Records that the next poll may bring."""
        return self._flow.limit

    @property
    def saturated(self) -> bool:
        """Whether everything is paused because too much waits."""
        return self._flow.saturated

    @property
    def waiting(self) -> int:
        """Records handed over by Kafka that no handler has finished."""
        return self._flow.waiting

    @property
    def retrying(self) -> int:
        """Records that wait for their next try, or for their dead letter."""
        return sum(
            1
            for _, ticket, _, strand in self._later
            if ticket == strand.ticket and not strand.lane.gone and _failed(strand)
        )

    # -- work --------------------------------------------------------------------------

    def take(self, now: float) -> Job | None:
        """The next thing to do, ``None`` if there is nothing now."""
        self._wake_due(now)
        if (strand := self._next(self._letters)) is not None:
            return self._begin(Job(strand, [], letter=strand.letter), Stand.SENDING)
        if (strand := self._next_to_handle(now)) is None:
            return None
        probe = False
        if self._circuit is not None:
            if not self._circuit.may_start(now):
                if self._isolation.waiting is None:
                    self._ready.appendleft(strand)
                return None
            probe = self._circuit.state is BreakerState.PROBING
        job = Job(strand, self._turn(strand, probe), probe=probe)
        self._isolation.begin(job)
        return self._begin(job, Stand.BUSY)

    def _next_to_handle(self, now: float) -> Strand | None:
        """The strand whose turn it is; one whose first record must be alone waits for that."""
        isolation = self._isolation
        if isolation.waiting is None:
            strand = self._next(self._ready)
            if strand is None or not isolation.wants_alone(strand):
                return strand
            isolation.wait(strand, now)
            self._set_stops()
        strand = isolation.waiting
        assert strand is not None
        if strand.stand is Stand.BUSY:
            return None
        if strand.lane.gone or strand.lane.leaving or not strand.waiting:
            self._end_isolation(now)
            return self._next_to_handle(now)
        patient = isolation.may_wait(now)
        if isolation.handling or self.is_quiet or self.draining:
            return None
        if patient and self.committable():
            return None
        strand.lane.stop = False
        return strand

    def _set_stops(self) -> None:
        every = self.is_quiet or self.draining or self._isolation.waiting is not None
        for lane in self._lanes.values():
            lane.stop = every or lane.leaving

    def _end_isolation(self, now: float) -> None:
        """What had to wait for a record that was alone goes on."""
        self._isolation.waiting = self._isolation.until = None
        self._set_stops()
        if not self.is_quiet:
            self._line_up_all(now)

    @staticmethod
    def _next(queue: deque[Strand]) -> Strand | None:
        """The first that is still ready; those that are not any more are forgotten."""
        while queue:
            strand = queue.popleft()
            if strand.lane.gone or strand.stand is not Stand.READY:
                continue
            if not strand.lane.stop and (strand.waiting or strand.letter):
                return strand
            strand.stand = Stand.IDLE
        return None

    def _begin(self, job: Job, stand: Stand) -> Job:
        job.strand.stand = stand
        job.lane.busy.add(job)
        self.running += 1
        return job

    def _turn(self, strand: Strand, probe: bool) -> list[Record]:
        """Take records off a strand: a batch, or as many as a runner may handle in a row."""
        waiting = strand.waiting
        if self._plan.kind.batch:
            size = strand.sizes[0][0] if strand.sizes else self._plan.batch.take(waiting)[0]
        else:
            size = 1 if probe else _TURN[strand.lane.order]
        if strand.lane.deaths:
            size = self._isolation.bounded(strand, size)
        if size >= len(waiting):
            records = list(waiting)
            waiting.clear()
            return records
        return [waiting.popleft() for _ in range(size)]

    def _wake_due(self, now: float) -> None:
        later = self._later
        while later and later[0][0] <= now:
            _, ticket, _, strand = heapq.heappop(later)
            lane = strand.lane
            if ticket != strand.ticket or strand.stand is not Stand.LATER:
                continue
            strand.stand = Stand.IDLE
            if lane.gone:  # the partition may be back, with a lane of its own
                continue
            if lane.order is Order.PARTITION and not lane.backlog:
                self._flow.release(lane.partition)
            if lane.stop or not (strand.waiting or strand.letter):
                continue
            self._line_up(strand)

    def due(self) -> float | None:
        """When :meth:`take` may have something that it has not now, ``None`` if never."""
        times = [self._later[0][0]] if self._later else []
        if self._circuit is not None and (self._ready or self._isolation.waiting):
            again = self._circuit.again_at()
            if again is not None:
                times.append(again)
        if self._isolation.until is not None:
            times.append(self._isolation.until)
        return min(times, default=None)

    @property
    def ready(self) -> int:
        """How many strands wait for a runner."""
        if self._isolation.waiting is not None:
            return (not self._isolation.handling) + len(self._letters)
        return len(self._ready) + len(self._letters)

    def rotate(self, by: int) -> None:
        """Let another of those that are ready go first: any may."""
        self._ready.rotate(-by)

    @property
    def breaker(self) -> BreakerState:
        """Where the circuit breaker stands; closed if there is none."""
        return BreakerState.CLOSED if self._circuit is None else self._circuit.state

    @property
    def opened(self) -> int:
        """How often the circuit breaker opened."""
        return 0 if self._circuit is None else self._circuit.opened

    # -- back from work ----------------------------------------------------------------

    def finish(self, job: Job, failure: Failure | None, now: float) -> Outcome | None:
        """Take a job back, with how its handler failed; tells what became of the record."""
        strand, lane, records, done = job.strand, job.lane, job.records, job.done
        self.running -= 1
        lane.busy.discard(job)  # at once: a fault below must not count it a second time
        self._isolation.end(job, failure)
        if job.alone:
            self._end_isolation(now)
        rest = records[done:]
        leaving = lane.leaving or self.draining
        alone = len(rest) <= 1 or not self._plan.kind.batch
        back = failure is not None and leaving and stays(failure, alone=alone)
        if self._circuit is not None:
            self._count(job, None if back else failure, not strand.attempts, now)
        if done:
            strand.attempts = 0  # they are the next record's now
            if strand.sizes:
                strand.sizes.popleft()
            self._free(lane, records if not rest else records[:done])
        strand.stand = Stand.IDLE
        if lane.gone:
            return None
        outcome = None
        if rest:
            if failure is None:
                strand.back(rest)
            elif back:
                outcome = Outcome(rest[0], Redelivered(), strand.attempts + 1)
                strand.back(rest)
            elif failure.kind is Kind.CRASH:
                self._end(f"a handler raised {failure}")
                strand.back(rest)
            else:
                outcome = self._failed(job, strand, rest, failure, now)
        if leaving:
            self._drop(strand)
        self._go_on(strand, now)
        return outcome

    def broke(self, job: Job | None, why: str) -> None:
        """A runner came to an end that it should not have come to; ``job`` is what it held.

        Nothing is known of it: its records stay uncommitted, and the service has to end.
        """
        if job is not None and job in job.lane.busy:
            self.running -= 1
            self._isolation.handling -= job.letter is None
            job.lane.busy.discard(job)
        # The fault may have left records where nobody finds them: only what is known to be
        # finished may be committed from now on, not where the client is.
        self.broken = True
        for lane in self._lanes.values():
            lane.reached = None
        self._end(why)

    def _go_on(self, strand: Strand, now: float) -> None:
        """What follows when something of a strand is over."""
        lane = strand.lane
        if strand.waiting or strand.letter:
            self._enqueue(strand, now)
        elif strand.stand is Stand.IDLE:
            lane.strands.pop(strand.key, None)
        if lane.backlog and not lane.stop:
            self._spread(lane, now)

    def _free(self, lane: Lane, records: list[Record]) -> None:
        """Records wait no more. A partition that is back has a count that is another lane's."""
        if not lane.gone:
            self._flow.take(lane.partition, len(records), weight(records))

    def _count(self, job: Job, failure: Failure | None, first_try: bool, now: float) -> None:
        """Tell the circuit breaker. Poison says nothing about the handler's health."""
        circuit = self._circuit
        if circuit is None or job.letter is not None:
            return
        if (failure is None and not job.done) or (failure is not None and failure.poison):
            if job.probe:
                circuit.probe_abandoned()
            return
        if job.probe:
            circuit.finished(now, ok=failure is None, probe=True)
            return
        done = min(1, job.done) if self._plan.kind.batch else job.done
        for _ in range(done):
            circuit.finished(now, ok=True)
        if failure is not None and (first_try or job.done):
            circuit.finished(now, ok=False)

    def _failed(
        self, job: Job, strand: Strand, rest: list[Record], failure: Failure, now: float
    ) -> Outcome:
        """Decide about the first of ``rest``, whose handler raised."""
        strand.attempts += 1
        attempts = strand.attempts
        record = rest[0]
        if len(rest) > 1 and self._plan.kind.batch:
            return self._failed_batch(strand, rest, failure, now)
        last_try = bool(strand.sizes and strand.sizes[0][1])
        spared = self.breaker is not BreakerState.CLOSED and not job.probe
        verdict = decide(self._policy, failure, attempts, self._random, spared=spared)
        if last_try and isinstance(verdict, Again) and not spared:
            verdict = self._policy.then
        if isinstance(verdict, Again):
            strand.back(rest)
            if self._plan.kind.batch and not strand.sizes:
                strand.sizes.append((1, False))
            self._again(strand, verdict.delay, now)
            return Outcome(record, verdict, attempts)
        strand.attempts = 0
        if verdict.then is Then.STOP:
            self._end(
                f"{record}: {failure} after {attempts} "
                f"{'attempt' if attempts == 1 else 'attempts'}; it stays uncommitted. Mend the "
                "handler, or give the subscription then=dead_letter(…) or skip()"
            )
            strand.back(rest)
            if job.refused is not None:
                # Started again, perhaps with a handler that was mended, it is tried once more.
                strand.lane.deaths = deaths.another_chance(strand.lane.deaths, record.offset)
            return Outcome(record, verdict, attempts)
        if strand.sizes:
            strand.sizes.popleft()
        strand.back(rest[1:])
        if verdict.then is Then.SKIP:
            self._over(strand, record)
            return Outcome(record, verdict, attempts)
        strand.letter = Refused(record, failure, attempts, verdict.topic)
        strand.letter_tries = 0
        letter = self._begin(Job(strand, [], letter=strand.letter), Stand.SENDING)
        return Outcome(record, verdict, attempts, letter)

    def _failed_batch(
        self, strand: Strand, rest: list[Record], failure: Failure, now: float
    ) -> Outcome:
        """A batch is tried again as it was; given up on, it is handed over record by record."""
        if strand.sizes:
            strand.sizes.popleft()
        attempts = strand.attempts
        strand.back(rest)
        culprit = failure.index
        if culprit is not None and 0 <= culprit < len(rest):
            strand.attempts = 0
            parts = [(culprit, False), (1, False), (len(rest) - culprit - 1, False)]
            strand.sizes.extendleft(reversed([p for p in parts if p[0]]))
            return Outcome(rest[culprit], Again(0.0), attempts)
        spared = self.breaker is not BreakerState.CLOSED
        verdict = decide(self._policy, failure, attempts, self._random, spared=spared)
        if isinstance(verdict, Again):
            strand.sizes.appendleft((len(rest), False))
            self._again(strand, verdict.delay, now)
        else:
            strand.attempts = 0
            strand.sizes.extendleft([(1, True)] * len(rest))
            verdict = Again(0.0)
        return Outcome(rest[0], verdict, attempts)

    def _again(self, strand: Strand, delay: float, now: float) -> None:
        if strand.lane.order is Order.PARTITION:
            self._flow.hold(strand.lane.partition)
        self._put_off(strand, now + delay)

    def _over(self, strand: Strand, record: Record) -> None:
        """A record is finished without its handler."""
        strand.lane.done(record.offset)
        strand.lane.deaths = deaths.without(strand.lane.deaths, record.offset)
        self._free(strand.lane, [record])

    def sent(self, job: Job, error: Exception | None, now: float) -> float | None:
        """A dead letter was confirmed, or not; then tells after how long it is sent again."""
        strand, lane = job.strand, job.lane
        assert strand.letter is not None
        self.running -= 1
        lane.busy.discard(job)
        strand.stand = Stand.IDLE
        if lane.gone:
            return None
        delay = None
        if error is None:
            self._over(strand, strand.letter.record)
            strand.letter = None
        elif not (lane.leaving or self.draining):
            strand.letter_tries += 1
            delay = _SENDING.delay(strand.letter_tries, self._random)
            self._again(strand, delay, now)
        if lane.leaving or self.draining:
            self._drop(strand)
        self._go_on(strand, now)
        return delay

    def _end(self, why: str) -> None:
        """The service has to end; nothing is started any more, this record least of all."""
        self.fatal = self.fatal or why
        self.quiet()

    # -- quiet, drain ------------------------------------------------------------------

    def quiet(self) -> None:
        """Start nothing new; keep what waits."""
        self.is_quiet = True
        self._set_stops()

    def resume(self, now: float) -> None:
        """Go on after :meth:`quiet`; not if the service has to end."""
        if self.fatal is not None:
            return
        self.is_quiet = False
        self._set_stops()
        self._line_up_all(now)

    def _line_up_all(self, now: float) -> None:
        for lane in self._lanes.values():
            for strand in list(lane.strands.values()):
                self._enqueue(strand, now)
            if not lane.stop:
                self._spread(lane, now)

    def drain(self) -> None:
        """Start nothing new, ever; drop what waits."""
        self.draining = True
        for lane in self._lanes.values():
            lane.stop = True
            self._drop_lane(lane)
        self._later.clear()
        self._ready.clear()
        self._letters.clear()

    def _drop_lane(self, lane: Lane) -> None:
        self._drop_count(lane, len(lane.backlog))
        if lane.backlog:
            lane.cut_at(lane.backlog[0].offset)
        lane.backlog.clear()
        for strand in lane.strands.values():
            self._drop(strand)

    def _drop(self, strand: Strand) -> None:
        self._drop_count(strand.lane, strand.drop())
        if strand.stand in (Stand.LATER, Stand.READY):
            strand.stand = Stand.IDLE

    def _drop_count(self, lane: Lane, number: int) -> None:
        if number:
            topic = lane.partition.topic
            self.dropped[topic] = self.dropped.get(topic, 0) + number

    def sending(self) -> list[Refused]:
        """The dead letters that are on their way to the broker."""
        return [
            job.letter
            for lane in self._lanes.values()
            for job in lane.busy
            if job.letter is not None
        ]

    # -- offsets -----------------------------------------------------------------------

    def committable(
        self, partitions: Collection[Partition] | None = None
    ) -> dict[Partition, Position]:
        """Positions that are finished and not yet confirmed by the broker."""
        lanes = self._lanes.values() if partitions is None else self._of(partitions)
        found = {}
        for lane in lanes:
            position = lane.position()
            if position is not None and position != lane.committed and not lane.gone:
                found[lane.partition] = position
        return found

    def reached(self, offsets: Mapping[Partition, int]) -> None:
        """Where the client goes on reading; everything that it brought before was fed.

        What was fed and refused counts as unfinished (:attr:`penstock.lane.Lane.cut`).
        """
        for partition, offset in offsets.items():
            lane = self._lanes.get(partition)
            if lane is not None and not self.broken:
                lane.reached = offset

    def committed(self, positions: Mapping[Partition, Position]) -> None:
        """The broker confirmed these positions."""
        for partition, position in positions.items():
            lane = self._lanes.get(partition)
            if lane is not None:
                lane.committed = position
                if lane.tolls and position == lane.position():
                    self._merged += lane.tolls
                    lane.tolls = ()
                    self._opened.append(lane)

    def tolls(self, tolls: Iterable[Toll]) -> None:
        """Deaths of which the group's commits do not tell yet, for partitions that come later."""
        for toll in tolls:
            self._tolls[toll.id] = toll

    def forget_tolls(self, ids: Iterable[str]) -> None:
        """Another worker has committed these."""
        for each in ids:
            self._tolls.pop(each, None)

    def merged(self, now: float) -> list[str]:
        """The ids of the tolls that were committed since last asked; their records go on."""
        merged, self._merged = self._merged, []
        self.forget_tolls(merged)
        for lane in self._opened:
            if not lane.gone:
                self._spread(lane, now)
        self._opened.clear()
        return merged

    @property
    def owes(self) -> bool:
        """Whether records wait for a commit: one that tells of deaths, or before one of them."""
        if self._isolation.waiting is not None and not self._isolation.handling:
            return True
        return bool(self._tolls) and any(lane.tolls for lane in self._lanes.values())

    def unfinished(self) -> dict[Partition, int]:
        """The first offset that was handed over and is not finished, where there is one.

        A partition that is not here has finished everything up to the client's position.
        """
        found = {p: lane.lowest() for p, lane in self._lanes.items()}
        return {p: lowest for p, lowest in found.items() if lowest is not None}

    # -- partitions come and go --------------------------------------------------------

    def assigned(self, partitions: Mapping[Partition, Position | None]) -> list[str]:
        """Partitions came, with what the group has committed for them; returns complaints."""
        complaints = []
        for partition, committed in partitions.items():
            try:
                lane = Lane(partition, self._plan.order, committed)
            except BadMap as error:
                complaints.append(f"{partition}: the commit's metadata is damaged: {error}")
                lane = Lane(partition, self._plan.order, None)
            tolls = [t for t in self._tolls.values() if t.partition == partition]
            if tolls:
                lane.deaths = deaths.summed(lane.deaths, *(t.deaths for t in tolls))
                lane.tolls = tuple(t.id for t in tolls)
                if lane.committed is not None and lane.position() == lane.committed:
                    self._merged += lane.tolls  # nothing to add: those records are finished
                    lane.tolls = ()
            self._lanes[partition] = lane
            self._flow.own(partition)
        self._set_stops()
        return complaints

    def revoking(self, partitions: Collection[Partition]) -> None:
        """Partitions are moving away: start nothing new on them."""
        for lane in self._of(partitions):
            lane.leaving = lane.stop = True
            self._drop_lane(lane)

    def settled(self, partitions: Collection[Partition]) -> bool:
        """Whether nothing is in flight on them any more."""
        return not any(lane.busy for lane in self._of(partitions))

    def forget(self, partitions: Collection[Partition], *, committed: bool) -> list[Partition]:
        """They are gone; returns those that had work in flight."""
        cut_off = []
        for lane in self._of(partitions):
            if lane.busy:
                cut_off.append(lane.partition)
            if lane.busy or (lane.dirty and not committed):
                self.abandoned += 1
                self.abandoned_draining += self.draining
            if committed:
                self._merged += lane.tolls
            lane.gone = True
            del self._lanes[lane.partition]
            self._flow.disown(lane.partition)
        return cut_off

    def _of(self, partitions: Iterable[Partition]) -> list[Lane]:
        return [self._lanes[p] for p in partitions if p in self._lanes]


def _failed(strand: Strand) -> bool:
    return bool(strand.attempts or strand.letter)


def _waits(lane: Lane) -> bool:
    """Whether the whole partition waits for a record's next try, or for its dead letter."""
    strand = lane.strands.get(None) if lane.order is Order.PARTITION else None
    return strand is not None and strand.stand is Stand.LATER and _failed(strand)
