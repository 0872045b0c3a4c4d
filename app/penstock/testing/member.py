"""A member of the group: a desk, and runners in virtual time.

What :class:`penstock.worker.dispatch.Dispatcher` and its threads or coroutines are to a
service; the decisions are the desk's in both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

from penstock.decoding import caller, check_result
from penstock.desk import Desk, Outcome
from penstock.errors import HandlerTimeout
from penstock.failure import Failure, failure_of
from penstock.lane import Job, Refused
from penstock.letters import Letter
from penstock.offsets import Position
from penstock.plan import Plan
from penstock.policy import Again, Last, Then
from penstock.record import Partition, Record
from penstock.testing.calls import Expired, Spending, Try
from penstock.testing.errors import KitError
from penstock.testing.virtual import EPOCH
from penstock.testing.world import World


class Member:
    """One worker, as far as its group sees it."""

    def __init__(self, plan: Plan, world: World, shuffle: Random | None) -> None:
        self._plan = plan
        self._world = world
        self._shuffle = shuffle
        self.desk = Desk(plan, shuffle.random if shuffle else lambda: 0.0)
        self._call = caller(plan.handler, plan.kind)
        self._next: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._commit_timer: asyncio.TimerHandle | None = None
        #: The handler calls under way.
        self.calls: list[Try] = []
        self.dead = False

    # -- partitions --------------------------------------------------------------------

    @property
    def owned(self) -> list[Partition]:
        """The partitions it reads."""
        return list(self._next)

    def assign(self, partitions: Iterable[Partition], *, fresh: bool = False) -> None:
        """Take partitions over where the group left them; ``fresh`` ones did not exist before.

        Where it had committed nothing, where to begin is committed before anything comes.
        """
        topics = self._world.topics
        latest = self._plan.settings.auto_offset_reset == "latest" and not fresh
        wanted = list(partitions)
        topics.commit(
            {p: Position(topics.end(p) if latest else 0) for p in wanted if p not in topics.commits}
        )
        found = {p: topics.commits[p] for p in wanted}
        for complaint in self.desk.assigned(found):
            raise KitError(complaint)
        for partition, committed in found.items():
            self._next[partition] = committed.offset
            self._paused.discard(partition)

    def give_up(self, partitions: Iterable[Partition], *, committed: bool) -> None:
        """They are somebody else's now."""
        gone = list(partitions)
        self.desk.forget(gone, committed=committed)
        for partition in gone:
            del self._next[partition]
        self.count_dropped()

    # -- work --------------------------------------------------------------------------

    def pump(self) -> None:
        """Give work to every free runner, as far as there is some."""
        if self.dead:
            self._world.noticed()
            return
        desk, now = self.desk, self._world.loop.time()
        self._poll()
        while len(self._tasks) < self._plan.concurrency:
            if self._shuffle and desk.ready:
                desk.rotate(self._shuffle.randrange(desk.ready))
            job = desk.take(now)
            if job is None:
                break
            if job.letter is not None:
                self._send(job)
                continue
            task = self._world.loop.create_task(self._work(job))
            self._tasks.add(task)
            task.add_done_callback(self._over)
        self._look_again()
        self._commit_later()
        self._world.noticed()

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._world.escaped(task.exception() or KitError("a runner ended"))
        self.pump()

    def _look_again(self) -> None:
        """Back-offs that end, breakers that let one through."""
        if self._timer is not None:
            self._timer.cancel()
        free = len(self._tasks) < self._plan.concurrency  # whoever ends looks for work, too
        due = self.desk.due() if free else None
        self._timer = None if due is None else self._world.loop.call_at(due, self.pump)

    def _poll(self) -> None:
        """Fetch as long as back-pressure lets us, and there is something."""
        desk, topics = self.desk, self._world.topics
        while not desk.draining and not desk.is_quiet:
            pause, resume = desk.flow()
            self._paused.update(pause)
            self._paused.difference_update(resume)
            room = self._plan.settings.max_poll_records
            owned = self.owned
            for index in range(len(owned)):
                partition = owned[(self._turn + index) % len(owned)]
                if partition in self._paused:
                    continue
                records = topics.fetch(partition, self._next[partition], room)
                if records:
                    room -= len(records)
                    self._next[partition] = records[-1].offset + 1
                    desk.feed(partition, records, self._world.loop.time())
                if not room:
                    break
            self._turn += 1
            if room == self._plan.settings.max_poll_records:
                return

    @property
    def ended(self) -> bool:
        """Whether no handler of it runs, or goes on running after the process died."""
        return not self._tasks

    @property
    def at_rest(self) -> bool:
        """Whether nothing is left to do, now or later."""
        desk, topics = self.desk, self._world.topics
        return not (
            self._tasks
            or desk.running
            or desk.ready
            or desk.due() is not None
            or desk.waiting
            or any(at < topics.end(p) for p, at in self._next.items())
        )

    async def _work(self, job: Job) -> None:
        """See :meth:`penstock.worker.coroutines.Coroutines._run`, of which this is the twin."""
        lane, batch = job.lane, self._plan.kind.batch
        failure: Failure | None = None
        try:
            job.check()
            for records in [job.records] if batch else [[r] for r in job.records]:
                if lane.stop:
                    break
                await self._handle(records)
                if self.dead:
                    return
                lane.done_all(records)
                job.done += len(records)
                self._commit_later()
                self._world.completed(records, gone=lane.gone)
                self._world.noticed()
                await asyncio.sleep(0)  # whoever waits for just this may stop here
        except BaseException as error:  # tried again or given up on, or fatal: the desk decides
            if self.dead:
                return
            if _is_the_tests(error):
                raise
            failure = failure_of(error, self._plan.policy.retry.on)
        self._give_back(job, failure)

    async def _handle(self, records: list[Record]) -> None:
        """Call the handler; takes as long as it does, in virtual time."""
        world, loop = self._world, self._world.loop
        call = Try(tuple(records), loop.time())
        world.begins(call)
        self.calls.append(call)
        world.noticed()
        argument = list(records) if self._plan.kind.batch else records[0]
        try:
            if self._plan.kind.asynchronous:
                await self._limited(argument)
            else:
                await self._spent(argument)
        except asyncio.CancelledError as error:
            if self.dead:
                raise
            call.error = RuntimeError("the handler was cancelled from within")
            raise call.error from error
        except BaseException as error:
            call.error = error
            raise
        finally:
            self.calls.remove(call)
            if not self.dead:
                call.ended = loop.time()

    async def _limited(self, argument: Any) -> None:
        seconds = self._plan.policy.timeout
        try:
            async with asyncio.timeout(seconds) as limit:
                await self._call(argument)
        except TimeoutError:
            if limit.expired():
                raise HandlerTimeout(f"took longer than {seconds:g} s") from None
            raise

    async def _spent(self, argument: Any) -> None:
        """A plain function runs at once; then the time passes that it said it spends."""
        seconds = self._plan.policy.timeout
        spending = self._world.spending = Spending(seconds)
        failure: BaseException | None = None
        try:
            check_result(self._call(argument))
        except Expired:
            failure = HandlerTimeout(f"took longer than {seconds:g} s")
        except BaseException as error:
            failure = error
        finally:
            self._world.spending = None
        if spending.seconds:
            await asyncio.sleep(spending.seconds)
        if failure is not None:
            raise failure

    def _give_back(self, job: Job, failure: Failure | None) -> None:
        outcome = self.desk.finish(job, failure, self._world.loop.time())
        self.count_dropped()
        if failure is not None and outcome is not None:
            self._settle(outcome)

    def _settle(self, outcome: Outcome) -> None:
        verdict = outcome.verdict
        if isinstance(verdict, Again):
            self._world.counts["retried"] += 1
        elif isinstance(verdict, Last) and verdict.then is Then.SKIP:
            self._world.finished(outcome.record, "skipped")
        if outcome.letter is not None:
            self._send(outcome.letter)

    def count_dropped(self) -> None:
        """Count what the desk dropped."""
        self._world.counts["dropped"] += sum(self.desk.dropped.values())
        self.desk.dropped = {}

    # -- dead letters ------------------------------------------------------------------

    def _send(self, job: Job) -> None:
        self._world.loop.call_soon(self._sent, job)

    def _sent(self, job: Job) -> None:
        refused = job.letter
        if self.dead or refused is None:
            return
        failure = self._world.post(self._letter(refused))
        self.desk.sent(job, failure, self._world.loop.time())
        self.count_dropped()
        if failure is None:
            self._world.finished(refused.record, "dead_lettered")
        self.pump()

    def _letter(self, refused: Refused) -> Letter:
        return Letter(
            record=refused.record,
            topic=refused.topic,
            reason=refused.failure.text,
            error=refused.failure.name,
            traceback=refused.failure.traceback,
            attempts=refused.attempts,
            group=self._plan.group,
            at=EPOCH + self._world.loop.time(),
        )

    # -- commits, the end --------------------------------------------------------------

    def commit(self) -> None:
        """Commit what is finished."""
        if self._commit_timer is not None:
            self._commit_timer.cancel()
            self._commit_timer = None
        self._commit(self.desk.committable())

    def _commit_later(self) -> None:
        """At the latest an interval after something finished."""
        if self._commit_timer is None and self.desk.committable():
            pause = self._plan.settings.commit_interval
            self._commit_timer = self._world.loop.call_later(pause, self.commit)

    def commit_these(self, partitions: Iterable[Partition]) -> None:
        """Commit what is finished of partitions that move away."""
        self._commit(self.desk.committable(list(partitions)))

    def _commit(self, offsets: Mapping[Partition, Position]) -> None:
        if offsets and not self.dead:
            self._world.topics.commit(offsets)
            self.desk.committed(offsets)

    def die(self) -> None:
        """The process is gone, with whatever it knew."""
        self.dead = True
        for timer in (self._timer, self._commit_timer):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._next.clear()


def _is_the_tests(error: BaseException) -> bool:
    """Ctrl-C, ``pytest.fail`` or a timeout of pytest's: no service would ever see them."""
    return isinstance(error, KitError | KeyboardInterrupt) or any(
        base.__module__ == "_pytest.outcomes" for base in type(error).__mro__
    )
