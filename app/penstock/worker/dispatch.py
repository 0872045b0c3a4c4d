"""The desk in a service: its lock, its runners, its clock, and what is told about it.

A record's way in: :meth:`Dispatcher.feed` hands what a poll brought to the
:class:`~penstock.desk.Desk`; a runner (:mod:`penstock.worker.threads`,
:mod:`penstock.worker.coroutines`) takes a job, calls the handler, and gives the job back; the
poll loop commits :meth:`Dispatcher.committable`.

A restart's way out: :meth:`Dispatcher.drain` stops every lane after the record in flight and
drops what no handler has started (uncommitted, so redelivered); :meth:`Dispatcher.idle`
tells when the last one finished.

One lock guards the desk. It is held for moves between queues, never while a handler runs and
never across I/O.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import structlog

from penstock.board import Board
from penstock.breaker import BreakerState
from penstock.deaths import Toll
from penstock.decoding import caller
from penstock.desk import Desk, Outcome
from penstock.error_text import forget_traceback, said, traceback_of
from penstock.failure import Failure, Kind, failure_of
from penstock.lane import Job
from penstock.letters import Letter
from penstock.offsets import Position
from penstock.plan import Plan
from penstock.policy import Again, Redelivered, Then
from penstock.record import Partition, Record
from penstock.telemetry.catalog import FailureReason
from penstock.telemetry.tally import Tally
from penstock.worker.hands import Hands
from penstock.worker.threads import Threads

log = structlog.get_logger("penstock.worker")

Post = Callable[[Letter, Callable[[Exception | None], None]], None]
"""Send a dead letter; the second argument is called with what became of it."""


class Dispatcher:
    """A desk and the runners that work on it. Also the engine's ``Rebalance``."""

    def __init__(self, plan: Plan, board: Board, tally: Tally, post: Post | None = None) -> None:
        self._plan = plan
        self._board = board
        self._tally = tally
        self._post = post
        self._desk = Desk(plan, random.random)
        lock = threading.Lock()
        #: Something to do for a runner thread.
        self._work = threading.Condition(lock)
        #: Something changed for the poll loop.
        self._change = threading.Condition(lock)
        #: One idle thread watches the clock; the others wait to be told.
        self._clock = threading.Condition(lock)
        self._watching = False
        self._watch_until = 0.0
        self._idle = 0
        #: Whether the poll loop waits for a change.
        self._looking = False
        self._ended = False
        #: When a drain under way must have its handlers finished.
        self._leave_by: float | None = None
        self._took_any = False
        #: The record that is handled with nothing beside it.
        self._alone: Record | None = None
        self._breaker = BreakerState.CLOSED
        #: Called before partitions that came are handed out.
        self.on_assigned: Callable[[], None] = lambda: None
        #: Called, without the lock, with the ids of tolls that the group's commits have now.
        self.on_merged: Callable[[list[str]], None] = lambda _: None
        #: Called, without the lock, whenever a stopped lane has come to rest.
        self.on_settled: Callable[[], None] = lambda: None
        self._hands = self._make_hands(caller(plan.handler, plan.kind))

    def _make_hands(self, call: Callable[[object], object]) -> Hands:
        if self._plan.kind.asynchronous:
            # asyncio is imported by those who have asynchronous handlers only.
            from penstock.worker.coroutines import Coroutines  # noqa: PLC0415

            return Coroutines(self, self._plan, self._board, call)
        return Threads(self, self._plan, self._board, call)

    # -- runners -----------------------------------------------------------------------

    def start(self) -> None:
        """Start the runners."""
        self._hands.start()

    def end(self, timeout: float) -> bool:
        """End and join the runners; false if one is still in a handler after ``timeout``."""
        with self._work:
            self._ended = True
            self._work.notify_all()
            self._clock.notify_all()
            self._change.notify_all()
        return self._hands.end(timeout)

    def stack_of(self, slot: int) -> str | None:
        """Where the handler is that holds this slot of the board."""
        return self._hands.stack_of(slot)

    def wait(self) -> Job | None:
        """The next job for a thread; waits for one. ``None`` at the end."""
        with self._work:
            while not self._ended:
                now = time.monotonic()
                job = self._take(now)
                if job is not None:
                    self._wake()
                    return job
                if self._watching:
                    self._idle += 1
                    self._work.wait()
                    self._idle -= 1
                else:
                    due = self._desk.due()
                    self._watching, self._watch_until = True, math.inf if due is None else due
                    # More than TIMEOUT_MAX, 292 years, is an error.
                    self._clock.wait(
                        None if due is None else min(max(0.0, due - now), threading.TIMEOUT_MAX)
                    )
                    self._watching = False
        return None

    def _wake(self) -> None:
        """Wake the threads that have something to do now. The lock is held."""
        ready = self._desk.ready
        if ready:
            idle = min(ready, self._idle)
            if idle:
                self._work.notify(idle)
            if ready > idle and self._watching:
                self._clock.notify()
        if self._watching or self._idle:
            due = self._desk.due()
            if due is not None and not self._watching:
                self._work.notify()
            elif due is not None and due < self._watch_until:
                self._clock.notify()

    def take(self) -> Job | None:
        """The next job if there is one now."""
        with self._work:
            return None if self._ended else self._take(time.monotonic())

    def _take(self, now: float) -> Job | None:
        """The desk's next job, with its mark on the board. The lock is held."""
        job = self._desk.take(now)
        if job is not None and job.alone:
            self._board.alone(True)  # before its record is noted
            self._alone = job.records[0]
        return job

    def due(self) -> float | None:
        """When :meth:`take` may have something that it has not now (monotonic)."""
        with self._work:
            return self._desk.due()

    def began(self, record: Record) -> float | None:
        """A runner begins with ``record``; returns its age in seconds, where that is known."""
        if record is self._alone:
            log.warning(
                "handling a record alone",
                why="its process died, several times, while it was in flight",
                record=str(record),
                deaths=self._plan.policy.deaths,
            )
        wall = time.time()
        if not self._took_any:
            self._took_any = True
            self._board.first_taken(wall)
        return wall - record.timestamp / 1000 if record.timestamp and record.timestamp > 0 else None

    def failed(self, error: BaseException) -> Failure:
        """Judge what a handler raised. Never raises, and lets go of the frames."""
        policy = self._plan.policy
        failure = failure_of(error, policy.retry.on, traced=policy.then.then is Then.DEAD_LETTER)
        forget_traceback(error)
        return failure

    def broke(self, job: Job | None, error: BaseException) -> None:
        """A runner cannot go on: the service ends, and says why. ``job`` is what it held."""
        self.ended(threading.current_thread().name, error, job)

    def ended(self, name: str, error: BaseException | None, job: Job | None = None) -> None:
        """A thread ended that should live; ``error`` is ``None`` if it just returned."""
        what = "it returned" if error is None else said(error)
        log.error(
            "a thread ended that should not",
            thread=name,
            error=what,
            exception=None if error is None else traceback_of(error),
        )
        with self._work:
            self._desk.broke(job, f"the thread {name} ended: {what}")
            for condition in (self._work, self._clock, self._change):
                condition.notify_all()
        self.on_settled()

    def give_back(
        self,
        job: Job,
        failure: Failure | None,
        durations: Sequence[float],
        age: float | None,
    ) -> Job | None:
        """Take a job back from its runner, and give it the next one if there is one."""
        desk, lane = self._desk, job.lane
        topic = lane.partition.topic
        now = time.monotonic()
        with self._work:
            outcome = desk.finish(job, failure, now)
            stopped = lane.stop
            if job.alone:
                self._board.alone(False)
                self._alone = None
            following = None if self._ended else self._take(now)
            dropped = desk.dropped
            if dropped:
                desk.dropped = {}
            more = desk.ready or failure is not None
            self._wake()
            if self._looking:
                self._change.notify_all()
        if job.alone:
            log.info("it was not this record: its process lives", record=str(job.records[0]))
        if durations:
            self._board.last_done(time.time())
            self._tally.handled(topic, "lost" if lane.gone else "done", durations, age)
        if failure is not None:
            self._tell(job, outcome, failure)
            if outcome is not None and outcome.letter is not None:
                self.send(outcome.letter)
        if dropped:
            self._count_dropped(dropped)
        if self._plan.policy.breaker is not None:
            self._tell_breaker()
        if more:
            self._hands.nudge()
        if stopped:
            self.on_settled()
        return following

    def _tell(self, job: Job, outcome: Outcome | None, failure: Failure) -> None:
        """Log and count a failure, with what follows from it."""
        topic = job.lane.partition.topic
        # A traceback names the error; what is expected is told without one.
        expected = failure.poison or failure.kind is Kind.TIMEOUT
        how = {"error": failure.text} if expected else {"exception": failure.traceback}
        if outcome is None:
            first = (job.records[job.done :] or job.records)[0]
            log.error("handler failed", record=str(first), **how)
            return
        verdict, how["record"] = outcome.verdict, str(outcome.record)
        if isinstance(verdict, Redelivered):
            when = "draining" if self._desk.draining else "its partition moved away"
            log.warning(
                "handler failed while leaving; the record will be delivered again",
                meanwhile=when,
                **how,
            )
            return
        self._tally.failure(topic, _reason(failure))
        attempts = outcome.attempts
        if isinstance(verdict, Again):
            self._tally.count(topic, "retried")
            log.error(
                "handler failed; the record will be tried again",
                attempt=attempts,
                delay=round(verdict.delay, 3),
                **how,
            )
        elif verdict.then is Then.SKIP:
            self._tally.count(topic, "skipped")
            log.error("record skipped", attempts=attempts, **how)
        elif verdict.then is Then.DEAD_LETTER:
            log.error(
                "record goes to the dead letters",
                attempts=attempts,
                dead_letter_topic=verdict.topic,
                **how,
            )
        else:
            log.error("record cannot be handled", attempts=attempts, **how)

    def _tell_breaker(self) -> None:
        state = self._desk.breaker
        if state is not self._breaker:
            self._breaker = state
            if state is BreakerState.OPEN:
                self._tally.breaker_opened(self._plan.group)
                log.warning("too many records fail: pausing, then trying one at a time")
            elif state is BreakerState.CLOSED:
                log.info("records succeed again: going on")

    def _count_dropped(self, dropped: Mapping[str, int]) -> None:
        for topic, number in dropped.items():
            self._tally.count(topic, "dropped", number)

    # -- dead letters ------------------------------------------------------------------

    def send(self, job: Job) -> None:
        """Post a job's dead letter; the job is over when its outcome is known."""
        refused = job.letter
        assert refused is not None
        assert self._post is not None
        failure = refused.failure
        letter = Letter(
            record=refused.record,
            topic=refused.topic,
            reason=failure.text,
            error=failure.name,
            traceback=failure.traceback,
            attempts=refused.attempts,
            group=self._plan.group,
            at=time.time(),
        )
        self._post(letter, lambda failure: self._sent(job, failure))

    def _sent(self, job: Job, failure: Exception | None) -> None:
        """On the thread that sends dead letters."""
        topic = job.lane.partition.topic
        assert job.letter is not None
        with self._work:
            delay = self._desk.sent(job, failure, time.monotonic())
            stopped = job.lane.stop
            dropped, self._desk.dropped = self._desk.dropped, {}
            self._wake()
            if self._looking:
                self._change.notify_all()
        self._tally.dead_letter(topic, "ok" if failure is None else "failed")
        self._count_dropped(dropped)
        if failure is None:
            self._tally.count(topic, "lost" if job.lane.gone else "dead_lettered")
        else:
            log.error(
                "a dead letter was not taken; its record waits",
                record=str(job.letter.record),
                dead_letter_topic=job.letter.topic,
                error=str(failure),
                delay=None if delay is None else round(delay, 3),
            )
        self._hands.nudge()
        if stopped:
            self.on_settled()

    def sending(self) -> list[str]:
        """The records whose dead letters are on their way to the broker, for people."""
        with self._work:
            return [f"{item.record} (to {item.topic})" for item in self._desk.sending()]

    # -- records in --------------------------------------------------------------------

    def feed(self, fetched: Mapping[Partition, list[Record]]) -> None:
        """Hand over what a poll brought. Records of a partition we do not own are ignored."""
        if not fetched:
            return
        now = time.monotonic()
        with self._work:
            for partition, records in fetched.items():
                self._desk.feed(partition, records, now)
            self._wake()
        self._hands.nudge()

    def flow(self) -> tuple[Collection[Partition], Collection[Partition]]:
        """``(partitions to pause, partitions to resume)`` since the last call."""
        with self._work:
            return self._desk.flow()

    def wait_for_room(self, timeout: float) -> None:
        """Return as soon as a handler finished something, at the latest after ``timeout``."""
        with self._change:
            if self._desk.saturated and not self._desk.draining:
                self._looking = True
                self._change.wait(timeout)
                self._looking = False

    @property
    def limit(self) -> int:
        """Records that the next poll may bring."""
        return self._desk.limit

    @property
    def saturated(self) -> bool:
        """Whether everything is paused because too much waits."""
        return self._desk.saturated

    @property
    def waiting(self) -> int:
        """Records handed over by Kafka that no handler has finished."""
        return self._desk.waiting

    @property
    def fatal(self) -> str | None:
        """Why the service must end, if a record says so."""
        return self._desk.fatal

    @property
    def abandoned(self) -> int:
        """Partitions given up with work that was not committed."""
        return self._desk.abandoned

    @property
    def abandoned_draining(self) -> int:
        """Those of them that were given up since the drain began."""
        return self._desk.abandoned_draining

    def facts(self) -> dict[str, object]:
        """What the metrics show of this moment."""
        with self._work:
            return {
                "retrying": self._desk.retrying,
                "breaker": str(self._desk.breaker),
            }

    # -- quiet, drain ------------------------------------------------------------------

    def quiet(self) -> None:
        """Start nothing new; keep what waits."""
        with self._work:
            self._desk.quiet()

    def resume(self) -> None:
        """Go on after :meth:`quiet`."""
        with self._work:
            self._desk.resume(time.monotonic())
            self._wake()
            self._change.notify_all()
        self._hands.nudge()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing new is to be started."""
        return self._desk.is_quiet

    def drain(self, by: float | None = None) -> None:
        """Start nothing new, ever; drop what waits. From any thread, and more than once.

        ``by``: when handlers must be finished (monotonic); tells whoever waits for them.
        """
        with self._work:
            first = not self._desk.draining
            if self._leave_by is None:
                self._leave_by = by
            self._desk.drain()
            dropped, self._desk.dropped = self._desk.dropped, {}
            self._change.notify_all()
        self._count_dropped(dropped)
        if first:
            self.on_settled()

    def idle(self) -> bool:
        """Whether no handler is running, and no dead letter under way."""
        with self._work:
            return self._desk.running == 0

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is running, or ``timeout`` seconds."""
        with self._change:
            self._looking = True
            idle = self._change.wait_for(lambda: self._desk.running == 0, timeout)
            self._looking = False
            return idle

    # -- offsets -----------------------------------------------------------------------

    def committable(
        self, partitions: Collection[Partition] | None = None
    ) -> dict[Partition, Position]:
        """Positions that are finished and not yet confirmed by the broker."""
        with self._work:
            return self._desk.committable(partitions)

    def reached(self, offsets: Mapping[Partition, int]) -> None:
        """Where the client goes on reading; everything that it brought before was fed."""
        with self._work:
            self._desk.reached(offsets)

    def committed(self, positions: Mapping[Partition, Position]) -> None:
        """The broker confirmed these positions."""
        with self._work:
            self._desk.committed(positions)
        self._look_for_merged()

    # -- deaths ------------------------------------------------------------------------

    def tolls(self, tolls: Iterable[Toll]) -> None:
        """Deaths of which the group's commits do not tell yet. Before any partition comes."""
        with self._work:
            self._desk.tolls(tolls)

    def forget_tolls(self, ids: Iterable[str]) -> None:
        """Another worker has committed these."""
        with self._work:
            self._desk.forget_tolls(ids)

    @property
    def owes(self) -> bool:
        """Whether records wait for the commit that tells of deaths."""
        with self._work:
            return self._desk.owes

    def _look_for_merged(self) -> None:
        with self._work:
            merged = self._desk.merged(time.monotonic())
            ready = self._desk.ready
            self._wake()
        if ready:
            self._hands.nudge()
        if merged:
            self.on_merged(merged)

    def unfinished(self) -> dict[Partition, int]:
        """The first offset that was handed over and is not finished, where there is one."""
        with self._work:
            return self._desk.unfinished()

    # -- Rebalance, on the engine's thread ---------------------------------------------

    def assigned(self, partitions: Mapping[Partition, Position | None]) -> bool:
        """See :class:`penstock.kafka.port.Rebalance`."""
        self._tally.rebalance("assigned")
        self.on_assigned()
        with self._work:
            complaints = self._desk.assigned(partitions)
            pause = self._desk.is_quiet or self._desk.draining
        for complaint in complaints:
            log.warning("records that were finished will be handled again", reason=complaint)
        self._look_for_merged()
        return pause

    def revoking(self, partitions: Collection[Partition]) -> None:
        """See :class:`penstock.kafka.port.Rebalance`."""
        with self._work:
            self._desk.revoking(partitions)
            dropped, self._desk.dropped = self._desk.dropped, {}
        self._count_dropped(dropped)

    def leave_by(self) -> float | None:
        """See :class:`penstock.kafka.port.Rebalance`."""
        return self._leave_by

    def settled(self, partitions: Collection[Partition]) -> bool:
        """See :class:`penstock.kafka.port.Rebalance`."""
        with self._work:
            return self._desk.settled(partitions)

    def revoked(self, partitions: Collection[Partition], *, committed: bool) -> None:
        """See :class:`penstock.kafka.port.Rebalance`."""
        self._tally.rebalance("revoked")
        self._forget(partitions, committed=committed)

    def lost(self, partitions: Collection[Partition]) -> None:
        """See :class:`penstock.kafka.port.Rebalance`."""
        self._tally.rebalance("lost")
        log.warning("partitions were taken away", partitions=[str(p) for p in partitions])
        self.revoking(partitions)
        self._forget(partitions, committed=False)

    def _forget(self, partitions: Collection[Partition], *, committed: bool) -> None:
        with self._work:
            cut_off = self._desk.forget(partitions, committed=committed)
            self._change.notify_all()
        self._look_for_merged()
        for partition in cut_off:
            log.warning(
                "a partition was given up with a record in flight; it will be delivered again",
                partition=str(partition),
            )


def _reason(failure: Failure) -> FailureReason:
    if failure.kind is Kind.KILLED:
        return "killed"
    if failure.poison:
        return "poison"
    return "timeout" if failure.kind is Kind.TIMEOUT else "error"
