"""Handler threads, for plain functions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from penstock import stacks
from penstock.board import Board, Slot
from penstock.decoding import check_result
from penstock.failure import Failure
from penstock.lane import Job
from penstock.plan import Plan
from penstock.worker.hands import Jobs
from penstock.worker.time_limit import TimeLimit


class Threads:
    """``concurrency`` threads, named ``handler-0``, ``handler-1`` and so on."""

    def __init__(self, jobs: Jobs, plan: Plan, board: Board, call: Callable[[Any], Any]) -> None:
        self._jobs = jobs
        self._batch = plan.kind.batch
        self._call = call
        timeout = plan.policy.timeout
        self._limit = None if timeout is None else TimeLimit(timeout, jobs.ended)
        self._threads = [
            threading.Thread(
                target=self._work, args=(board.slot(i),), name=f"handler-{i}", daemon=True
            )
            for i in range(plan.concurrency)
        ]

    def start(self) -> None:
        """See :class:`~penstock.worker.hands.Hands`."""
        for thread in self._threads:
            thread.start()
        if self._limit is not None:
            self._limit.start()

    def nudge(self) -> None:
        """See the protocol. Threads wait at a condition that tells them itself."""

    def end(self, timeout: float) -> bool:
        """See the protocol."""
        until = time.monotonic() + timeout
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))
        if self._limit is not None:
            self._limit.end()
        return not any(thread.is_alive() for thread in self._threads)

    def stack_of(self, slot: int) -> str | None:
        """See the protocol."""
        return stacks.of_thread(f"handler-{slot}")

    def _work(self, slot: Slot) -> None:
        """A thread's life."""
        call = self._call if self._limit is None else self._limit.around(self._call)
        run = self._run_batch if self._batch else self._run
        held: Job | None = None
        try:
            while (held := self._jobs.wait()) is not None:
                while held is not None:
                    if held.letter is not None:
                        self._jobs.send(held)
                        held = self._jobs.take()
                        continue
                    held = run(held, slot, call)
        except BaseException as error:  # not the handler's: those are caught where it is called
            self._jobs.broke(held, error)

    def _run(self, job: Job, slot: Slot, call: Callable[[Any], Any]) -> Job | None:
        """Handle records one after another; the hot path, without a lock."""
        lane = job.lane
        records = job.records
        number = lane.partition.number
        hold = slot.hold
        done = lane.done
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
                # Noted before looking at ``stop``: who sees the lane stopped and the board
                # empty may rely on no handler being about to start.
                hold(start, offset, number, record.key)
                if lane.stop:
                    break
                result = call(record)
                if result is not None:
                    check_result(result)
                now = clock()
                durations.append(now - start)
                start = now
                done(offset)
        except BaseException as error:  # tried again or given up on, or fatal: the desk decides
            failure = self._jobs.failed(error)
        job.done = len(durations)
        slot.clear()
        return self._jobs.give_back(job, failure, durations, age)

    def _run_batch(self, job: Job, slot: Slot, call: Callable[[Any], Any]) -> Job | None:
        """Hand over all records at once."""
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
                check_result(call(list(records)))
                durations = [(time.monotonic() - start) / count] * count
                lane.done_all(records)
                job.done = count
        except BaseException as error:  # as above
            failure = self._jobs.failed(error)
        slot.clear()
        return self._jobs.give_back(job, failure, durations, age)
