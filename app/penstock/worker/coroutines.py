"""Asynchronous handlers: coroutines on one event loop, in a thread named ``handlers``."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from penstock.board import Board, Slot
from penstock.errors import HandlerTimeout
from penstock.failure import Failure
from penstock.lane import Job
from penstock.plan import Plan
from penstock.worker.hands import Jobs

#: Seconds after which a task lets the others go on, if none has. A handler that never has to
#: wait (what it asks for is in a cache) would else keep the loop for as long as there is work.
_SLICE = 0.02


class Coroutines:
    """Up to ``concurrency`` tasks, each with a slot of the board."""

    def __init__(self, jobs: Jobs, plan: Plan, board: Board, call: Callable[[Any], Any]) -> None:
        self._jobs = jobs
        self._batch = plan.kind.batch
        self._call = call
        self._timeout = plan.policy.timeout
        self._slots = [board.slot(i) for i in range(plan.concurrency)]
        self._free = list(range(plan.concurrency))
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._timer: asyncio.TimerHandle | None = None
        #: A look for work is on its way to the loop; another would find nothing more.
        self._nudged = False
        self._closed = False
        #: When a task last let the others go on.
        self._yielded_at = 0.0
        self._thread = threading.Thread(target=self._live, name="handlers", daemon=True)

    # -- any thread --------------------------------------------------------------------

    def start(self) -> None:
        """See :class:`~penstock.worker.hands.Hands`."""
        self._thread.start()

    def nudge(self) -> None:
        """See the protocol."""
        if self._nudged or not self._free:
            return  # whoever becomes free looks for work itself
        self._nudged = True
        if threading.get_ident() == self._thread.ident:
            self._loop.call_soon(self._pump)  # without waking a loop that is awake
            return
        with contextlib.suppress(RuntimeError):  # closed between the look and the call
            self._loop.call_soon_threadsafe(self._pump)

    def end(self, timeout: float) -> bool:
        """See the protocol."""
        if self._thread.ident is None:
            self._loop.close()
            return True
        self._closed = True
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout)
        return not self._thread.is_alive() and not self._tasks

    def stack_of(self, slot: int) -> str | None:
        """See the protocol. Where the coroutine waits, down to the innermost ``await``."""
        task = self._tasks.get(slot)
        if task is None:
            return None
        lines: list[str] = []
        waiting: Any = task.get_coro()
        while waiting is not None:
            frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
            if frame is None:
                break
            lines += traceback.format_stack(frame, limit=1)
            waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
        return "".join(lines)

    # -- the loop's thread -------------------------------------------------------------

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._pump)
        while not self._closed and not self._loop.is_closed():
            # A handler may stop the loop, and what a task of its own raises may: SystemExit
            # does. Then the service ends, but the other handlers have to come to theirs.
            try:
                self._loop.run_forever()
                error: BaseException = RuntimeError("a handler stopped the event loop")
            except BaseException as raised:
                error = raised
            if not self._closed:
                self._jobs.broke(None, error)
        left = list(self._tasks.values())
        if not left and not self._loop.is_closed():
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def _pump(self) -> None:
        """Give work to every free slot, as far as there is some."""
        self._nudged = False
        job: Job | None = None
        try:
            while self._free and not self._closed:
                job = self._jobs.take()
                if job is None:
                    self._look_again()
                    return
                if job.letter is not None:
                    self._jobs.send(job)
                    continue
                slot = self._free.pop()
                self._tasks[slot] = self._loop.create_task(
                    self._work(job, slot), name=f"handler-{slot}"
                )
        except BaseException as error:  # the loop would only log it
            self._jobs.broke(job, error)

    def _look_again(self) -> None:
        """Back-offs that end, breakers that let one through: nobody else wakes the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._jobs.due()
        if due is not None:
            self._timer = self._loop.call_at(due, self._pump)

    async def _work(self, job: Job | None, index: int) -> None:
        """A task's life: one job after another, as long as there are some."""
        slot = self._slots[index]
        try:
            while job is not None:
                if job.letter is not None:
                    self._jobs.send(job)
                    job = self._jobs.take()
                    continue
                if not self._batch:
                    job = await self._run(job, slot)
                    continue
                job = await self._run_batch(job, slot)
                if time.monotonic() - self._yielded_at > _SLICE:
                    await self._yield()
        except BaseException as error:  # not the handler's: those are caught where it is called
            self._jobs.broke(job, error)
        del self._tasks[index]
        self._free.append(index)
        self._pump()  # something may have come between the look and the line before

    async def _run(self, job: Job, slot: Slot) -> Job | None:
        """Handle records one after another; see :meth:`penstock.worker.threads.Threads._run`."""
        lane = job.lane
        records = job.records
        number = lane.partition.number
        call, timeout = self._call, self._timeout
        clock = time.monotonic
        durations: list[float] = []
        failure: Failure | None = None
        slot.enter(lane.partition.topic)
        age = self._jobs.began(records[0])
        start = clock()
        try:
            job.check()
            for record in records:
                offset = record.offset
                slot.hold(start, offset, number, record.key)
                if lane.stop:
                    break
                if timeout is None:
                    await call(record)
                else:
                    await self._limited(record, timeout)
                now = clock()
                durations.append(now - start)
                start = now
                lane.done(offset)
                if now - self._yielded_at > _SLICE:
                    start = await self._yield()
        except BaseException as error:  # the desk decides
            failure = self._jobs.failed(error)
        job.done = len(durations)
        slot.clear()
        return self._jobs.give_back(job, failure, durations, age)

    async def _run_batch(self, job: Job, slot: Slot) -> Job | None:
        lane, records = job.lane, job.records
        first, count = records[0], len(records)
        durations: list[float] = []
        failure: Failure | None = None
        slot.enter(lane.partition.topic)
        age = self._jobs.began(first)
        start = time.monotonic()
        slot.hold_batch(start, records)
        try:
            job.check()
            if not lane.stop:
                if self._timeout is None:
                    await self._call(list(records))
                else:
                    await self._limited(list(records), self._timeout)
                durations = [(time.monotonic() - start) / count] * count
                lane.done_all(records)
                job.done = count
        except BaseException as error:  # as above
            failure = self._jobs.failed(error)
        slot.clear()
        return self._jobs.give_back(job, failure, durations, age)

    async def _yield(self) -> float:
        """Let every task that is ready go on; returns when that was over."""
        with contextlib.suppress(asyncio.CancelledError):  # of a handler that has returned
            await asyncio.sleep(0)
        self._yielded_at = time.monotonic()
        return self._yielded_at

    async def _limited(self, argument: Any, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds) as limit:
                await self._call(argument)
        except TimeoutError:
            if limit.expired():
                raise HandlerTimeout(f"took longer than {seconds:g} s") from None
            raise
