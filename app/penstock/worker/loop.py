"""The poll loop: Kafka on one side, the dispatcher on the other; and the worker's drain.

``consume`` is a record's way in, ``drain`` a restart's way out. Both run on the worker's main
thread, which never does anything slow: membership depends on its polling.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from penstock.board import Board, Working
from penstock.budget import Budget
from penstock.caught_up import CaughtUp
from penstock.error_text import said, traceback_of
from penstock.errors import CommitRefused, KafkaFailure, PenstockError
from penstock.exits import Exit
from penstock.kafka.port import Commit, Engine, Membership
from penstock.offsets import Position
from penstock.plan import Plan
from penstock.record import Partition, printable
from penstock.seat import Seat
from penstock.steps import Steps
from penstock.telemetry.tally import Tally
from penstock.worker.dispatch import Dispatcher

log = structlog.get_logger("penstock.worker")

#: There is no wakeup() in kafka-python: this is how late a drain, or room in the buffer, is
#: noticed. The engine waits longer by itself while it joins.
_POLL = 0.1
_LIMITED_POLL = 0.01
_FACTS_INTERVAL = 0.5
#: Between tries to commit what records wait for (deaths in their company).
_OWED = 0.1
_DRAIN_TICK = 0.02
#: Seconds until a commit that was refused is tried again, at the earliest.
_COMMIT_AGAIN = 0.25


@dataclass(frozen=True, slots=True)
class Stuck:
    """A record still in a handler at the deadline: what blocked the drain."""

    working: Working
    age: float
    stack: str | None

    def to_json(self) -> dict[str, Any]:
        """For the control channel; keys that are not text are shown in hex."""
        w = self.working
        return {
            "topic": w.topic,
            "partition": w.partition,
            "offset": w.offset,
            "key": printable(w.key),
            "age_seconds": round(self.age, 3),
            "stack": self.stack,
        }


@dataclass(frozen=True, slots=True)
class Ending:
    """How a drain went. ``clean`` is what makes 0 and 4 earned."""

    code: int
    clean: bool
    reason: str
    stuck: tuple[Stuck, ...] = ()

    @classmethod
    def nothing_left(cls, restart: bool) -> Ending:
        """Clean: nothing is left to finish, or nothing ever was."""
        return cls(Exit.RESTART if restart else Exit.STOPPED, clean=True, reason="")

    @classmethod
    def seated(cls, why: str) -> Ending:
        """All was done, but the seat may still be held: somebody has to know."""
        return cls(Exit.FORCED, clean=False, reason=why)

    @classmethod
    def blocked(cls, stuck: tuple[Stuck, ...]) -> Ending:
        """The deadline passed with records in handlers."""
        names = ", ".join(str(s.working) for s in stuck)
        reason = f"the drain deadline passed with {names} in flight"
        return cls(Exit.FORCED, clean=False, reason=reason, stuck=stuck)


class PollLoop:
    """One engine, one dispatcher, and the commits between them."""

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        dispatcher: Dispatcher,
        board: Board,
        tally: Tally,
        report: Callable[[dict[str, Any]], None],
        steps: Steps,
        warnings: Callable[[], list[str]] = list,
    ) -> None:
        """``warnings``: what else ``/status`` is to warn of."""
        self._plan = plan
        self._engine = engine
        self._dispatcher = dispatcher
        self._board = board
        self._tally = tally
        self._report = report
        self._steps = steps
        self._warnings = warnings
        self._limit = plan.settings.max_poll_records
        self._flow_paused: set[Partition] = set()
        self._quiet = False
        self._joined = False
        self._membership = Membership.UNJOINED
        self._commit: tuple[Commit, dict[Partition, Position]] | None = None
        self._commit_due = 0.0
        self._owed_due = 0.0
        self._facts_due = 0.0
        self._missing: frozenset[str] = frozenset()
        settings = plan.settings
        self._batch = (
            CaughtUp(settle=2 * settings.heartbeat_interval)
            if settings.stop_when_caught_up
            else None
        )
        self._caught_up = False
        self._state = "joining"
        self._seat = Seat.LEAVE
        self._restart = False
        self._reseated = False
        #: What blocked the drain, once the handlers' time was up.
        self.stuck: tuple[Stuck, ...] = ()
        #: What this thread does at the moment, for whoever finds that it does so for too long.
        self.doing = "polling"
        #: How the drain ends, as far as that is known before the client is closed.
        self.so_far: Ending | None = None
        #: What was done with the seat when the client was closed.
        self.closed: Seat | None = None

    # -- a record's way in -------------------------------------------------------------

    def consume(self, leaving: Callable[[], bool]) -> PenstockError | None:
        """Poll and hand over until ``leaving()``; returns what made going on impossible."""
        try:
            while not leaving():
                self._board.beat()
                self._apply_pauses()
                full = self._dispatcher.saturated
                # A partition that is paused comes back in a moment: look more often.
                patience = 0 if full else _LIMITED_POLL if self._flow_paused else _POLL
                self._dispatcher.feed(self._engine.poll(patience, self._dispatcher.limit))
                self._tend(time.monotonic())
                if self._dispatcher.fatal is not None:
                    return PenstockError(self._dispatcher.fatal)
                if full:
                    self._dispatcher.wait_for_room(_POLL)
        except KafkaFailure as failure:
            return failure
        except Exception as error:  # a fault of ours: what is finished can still be committed
            log.critical("a fault of Penstock's", exception=traceback_of(error))
            return PenstockError(f"an unexpected error in the poll loop: {said(error)}")
        return None

    def _apply_pauses(self) -> None:
        """Bring the client's paused set in line with back-pressure and with quiet."""
        pause, resume = self._dispatcher.flow()
        self._flow_paused.update(pause)
        self._flow_paused.difference_update(resume)
        quiet = self._dispatcher.is_quiet
        if quiet != self._quiet:
            self._quiet = quiet
            everything = self._engine.assignment()
            if quiet:
                self._engine.pause(everything)
            else:
                self._engine.resume(everything - self._flow_paused)
        elif not quiet:
            if pause:
                self._engine.pause(pause)
            if resume:
                self._engine.resume(resume)

    def _tend(self, now: float) -> None:
        """What is done now and then: commit, tell the supervisor."""
        self._look_at_commit()
        if now >= self._commit_due or (now >= self._owed_due and self._dispatcher.owes):
            self._owed_due = now + _OWED
            self._commit_due = now + self._plan.settings.commit_interval
            self._dispatcher.reached(self._engine.positions())
            self._commit_soon(self._dispatcher.committable())
        membership = self._engine.membership()
        if now >= self._facts_due or membership is not self._membership:
            self._facts_due = now + _FACTS_INTERVAL
            self._membership = membership
            self._look_if_caught_up(now)
            self._tell()

    # -- commits -----------------------------------------------------------------------

    def _commit_soon(self, offsets: dict[Partition, Position]) -> None:
        if not offsets or self._commit is not None:
            return
        self._commit = self._engine.commit_soon(offsets), offsets

    def _look_at_commit(self) -> None:
        """Take the outcome of the commit under way.

        Raises:
            KafkaFailure: fenced, or not authorized any more.
        """
        if self._commit is None:
            return
        commit, offsets = self._commit
        outcome = commit.outcome()
        if outcome is False:
            return
        self._commit = None
        self._committed(offsets, None if outcome is True else outcome)

    def _committed(self, offsets: dict[Partition, Position], error: object) -> None:
        if error is None:
            self._tally.commit("ok")
            self._dispatcher.committed(offsets)
            return
        self._tally.commit("failed")
        if isinstance(error, KafkaFailure):
            raise error
        self._commit_due = max(self._commit_due, time.monotonic() + _COMMIT_AGAIN)
        log.info("a commit was refused and will be tried again", error=str(error))

    # -- a restart's way out -----------------------------------------------------------

    def reseat(self, seat: Seat, *, restart: bool) -> None:
        """A stop came after a restart, while draining: the seat is given up after all."""
        self._seat, self._restart = seat, restart
        self._reseated = True

    def drain(
        self, budget: Budget, seat: Seat, *, restart: bool, fatal: PenstockError | None
    ) -> Ending:
        """Finish what is held, commit, close. Keeps polling, so that membership survives."""
        if not self._reseated:  # the control thread may have been quicker
            self._seat, self._restart = seat, restart
        self._state = "draining"
        self._dispatcher.drain(budget.handlers_by)  # the control thread may have been quicker
        if fatal is None:  # else a poll may have moved the client past what was never fed
            # For the last time: what the polls below bring is not fed.
            self._dispatcher.reached(self._engine.positions())
        self._tell()
        kafka = fatal if isinstance(fatal, KafkaFailure) else self._finish_handlers(budget)
        if kafka is not None:
            self._commit = None  # its outcome shows inside poll() only, which raises now
            self._dispatcher.wait_idle(budget.handlers_left(time.monotonic()))
        fatal = fatal or kafka or self._fatal()
        stuck = self.stuck = self._name_stuck() if not self._dispatcher.idle() else ()
        sending = self._dispatcher.sending()
        self.doing = "committing"
        committed = self._commit_all(budget)
        if not stuck:
            self._dispatcher.end(1.0)
        self.doing = "closing the client"
        seat, restart = self._seat, self._restart  # of one moment: a stop may be coming
        abandoned = self._dispatcher.abandoned_draining
        ending = self.so_far = self._ending(
            fatal, stuck, sending, committed=committed, abandoned=abandoned, restart=restart
        )
        self.closed = seat
        held = self._engine.close(seat, max(0.1, budget.worker_left(time.monotonic()) / 2))
        self._state = "drained"
        self._tell(closed=True)
        return Ending.seated(held) if ending.clean and held is not None else ending

    def _fatal(self) -> PenstockError | None:
        why = self._dispatcher.fatal
        return None if why is None else PenstockError(why)

    def _finish_handlers(self, budget: Budget) -> KafkaFailure | None:
        """Poll, all partitions paused, until no handler runs or the deadline has come.

        What finishes is committed as soon as the commit before it is confirmed: there is little
        of it, and a platform that kills before the budget's end must find it done.
        """
        self.doing = "waiting for handlers"
        self._commit_due = 0.0
        try:
            self._engine.pause(self._engine.assignment())
            while not self._dispatcher.idle():
                self._board.beat()
                now = time.monotonic()
                left = budget.handlers_left(now)
                if left <= 0:
                    break
                self._engine.poll(0, self._limit)  # brings nothing; what it did would be refused
                self._look_at_commit()
                if now >= self._commit_due:
                    self._commit_soon(self._dispatcher.committable())
                self._dispatcher.wait_idle(min(left, _DRAIN_TICK))
        except KafkaFailure as failure:
            return failure
        return None

    def stuck_now(self) -> tuple[Stuck, ...]:
        """The records in handlers at this moment. From any thread."""
        now = time.monotonic()
        return tuple(
            Stuck(w, now - w.since, self._dispatcher.stack_of(w.slot))
            for w in self._board.working()
        )

    def _name_stuck(self) -> tuple[Stuck, ...]:
        found = self.stuck_now()
        for stuck in found:
            log.error(
                "the drain deadline passed with a record in a handler; it will be delivered again",
                record=str(stuck.working),
                key=printable(stuck.working.key),
                age=round(stuck.age, 1),
                stack=stuck.stack,
            )
        return found

    def _commit_all(self, budget: Budget) -> bool:
        """Commit everything that is finished, until it is taken or the reserve is used up."""
        while True:
            left = budget.commit_left(time.monotonic())
            try:
                if self._commit is not None:  # its outcome shows inside poll() only
                    self._engine.poll(0, self._limit)
                    self._look_at_commit()
                offsets = self._dispatcher.committable()
                if not offsets:
                    return True
                if left <= 0:
                    break
                self._engine.commit(offsets, min(left, 1.0))
                self._commit = None  # what an earlier one still says is older news
                self._committed(offsets, None)
            except CommitRefused as refused:
                log.info("the last commit was refused; trying again", error=str(refused))
                self._tally.commit("failed")
                try:
                    self._engine.poll(min(left, _POLL), self._limit)  # lets a rebalance finish
                except KafkaFailure as failure:
                    log.error("the last commit failed", error=str(failure))  # noqa: TRY400 (a sentence, not a trace)
                    break
            except KafkaFailure as failure:
                log.error("the last commit failed", error=str(failure))  # noqa: TRY400 (a sentence, not a trace)
                break
        return not self._dispatcher.committable()

    def _ending(
        self,
        fatal: PenstockError | None,
        stuck: tuple[Stuck, ...],
        sending: list[str],
        *,
        committed: bool,
        abandoned: int,
        restart: bool,
    ) -> Ending:
        if fatal is not None:
            return Ending(fatal.exit_code, clean=False, reason=str(fatal), stuck=stuck)
        if stuck:
            return Ending.blocked(stuck)
        if sending:
            return Ending(
                Exit.FORCED,
                clean=False,
                reason="the drain ended before the dead letters of "
                f"{', '.join(sending)} were confirmed",
            )
        if not committed:
            return Ending(
                Exit.FORCED,
                clean=False,
                reason="finished records could not be committed before the deadline",
            )
        if abandoned:
            return Ending(
                Exit.FORCED,
                clean=False,
                reason="partitions were taken away before their work was committed",
            )
        return Ending.nothing_left(restart)

    # -- telling -----------------------------------------------------------------------

    def _tell(self, *, closed: bool = False) -> None:
        """Put together what the supervisor shows, and hand it on."""
        if closed:
            self._report({"state": self._state, "joined": False, "assignment": {}, "lag": {}})
            return
        membership = self._engine.membership()
        if membership is not Membership.REBALANCING:
            if membership is Membership.STABLE and not self._joined:
                self._steps.mark("join")
                log.info("joined the group", **self._steps.taken)
            self._joined = membership is Membership.STABLE
            if self._joined:
                self._board.member(*self._engine.member())
        if self._state in ("joining", "running", "quiet"):
            self._state = "joining" if not self._joined else "quiet" if self._quiet else "running"
        self._watch_topics()
        assignment: dict[str, list[int]] = {}
        for topic, number in sorted(self._engine.assignment()):
            assignment.setdefault(topic, []).append(number)
        self._report(
            {
                "state": self._state,
                "joined": self._joined,
                "assignment": assignment,
                "lag": self._lag(),
                "waiting": self._dispatcher.waiting,
                "work": self._dispatcher.facts(),
                "caught_up": self._caught_up,
                "warnings": [
                    *(f"topic {t!r} does not exist" for t in sorted(self._missing)),
                    *self._warnings(),
                ],
            }
        )

    def _lag(self) -> dict[str, dict[str, int]]:
        """Records between what is finished and the end of the log, where both are known."""
        lag: dict[str, dict[str, int]] = {}
        for partition, (at, end) in self._progress().items():
            lag.setdefault(partition.topic, {})[str(partition.number)] = max(0, end - at)
        return lag

    def _progress(self) -> dict[Partition, tuple[int, int]]:
        """``(next offset that is not finished, end of the log)``, where both are known.

        A finished record's offset + 1 is not it: what follows may be a transaction's marker,
        which is never handed over, and the lag would stay at one for ever.
        """
        ends = self._engine.ends()
        unfinished = self._dispatcher.unfinished()
        return {p: (unfinished.get(p, position), end) for p, (position, end) in ends.items()}

    def _look_if_caught_up(self, now: float) -> None:
        """Batch runs: tell whether everything that was there at the start is finished now."""
        if self._batch is None or self._dispatcher.is_quiet:
            return
        before = self._caught_up
        progress = self._progress()
        self._caught_up = self._batch.look(
            now,
            stable=self._membership is Membership.STABLE and not self._missing,
            assignment=self._engine.assignment(),
            finished={p: at for p, (at, _) in progress.items()},
            ends={p: end for p, (_, end) in progress.items()},
        )
        if self._caught_up and not before:
            log.info("caught up: everything that was there at the start is done")

    def _watch_topics(self) -> None:
        missing = self._engine.missing_topics() if self._joined else self._missing
        for topic in sorted(missing - self._missing):
            log.warning("topic does not exist; waiting for it", topic=topic)
        for topic in sorted(self._missing - missing):
            log.info("topic appeared", topic=topic)
        self._missing = missing
