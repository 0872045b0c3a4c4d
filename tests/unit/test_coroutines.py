"""Asynchronous handlers on a real dispatcher: one loop, limits, timeouts, stacks."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.batching import Batch
from penstock.board import Board
from penstock.errors import NotSent, Poison
from penstock.letters import Letter
from penstock.offsets import Position
from penstock.policy import Retry, dead_letter, skip
from penstock.record import Record
from penstock.telemetry.tally import Tally
from penstock.worker.coroutines import Coroutines
from penstock.worker.dispatch import Dispatcher, Post
from tests.unit.making import PATIENCE, fresh, make_plan, orders, records

pytestmark = pytest.mark.usefixtures("no_log")

ZERO, ONE = orders(0), orders(1)


async def waits_in_here(gate: asyncio.Event) -> None:
    await gate.wait()


class Work:
    """A handler of coroutines that wait until they are let go."""

    def __init__(self, *, waits: bool = True) -> None:
        self.waits = waits
        self.failing: Counter[tuple[int, int]] = Counter()
        self.error: BaseException = ValueError("not today")
        self.started: list[tuple[int, int]] = []
        self.finished: list[tuple[int, int]] = []
        self.cancelled: list[tuple[int, int]] = []
        self.threads: set[str] = set()
        self.most = 0
        self._now = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gates: dict[tuple[int, int], asyncio.Event] = {}
        self.change = threading.Condition()

    async def __call__(self, given: Record | list[Record]) -> None:
        several = given if isinstance(given, list) else [given]
        at = (several[0].partition, several[0].offset)
        self._loop = asyncio.get_running_loop()
        gate = self._gates[at] = asyncio.Event()
        with self.change:
            self.threads.add(threading.current_thread().name)
            self._now += 1
            self.most = max(self.most, self._now)
            self.started.append(at)
            self.change.notify_all()
        try:
            if self.waits:
                await waits_in_here(gate)
            else:
                await asyncio.sleep(0)
            if self.failing[at]:
                self.failing[at] -= 1
                raise self.error
        except asyncio.CancelledError:
            self.cancelled.append(at)
            raise
        finally:
            self._now -= 1
        with self.change:
            self.finished.extend((r.partition, r.offset) for r in several)
            self.change.notify_all()

    def release(self, *at: tuple[int, int]) -> None:
        """Let these go on; without an argument all, also those that come."""
        if not at:
            self.waits = False
        for each in at or list(self._gates):
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._gates[each].set)

    def until(self, condition: Callable[[], bool]) -> None:
        with self.change:
            assert self.change.wait_for(condition, PATIENCE), (self.started, self.finished)

    def until_started(self, count: int) -> None:
        self.until(lambda: len(self.started) >= count)

    def until_finished(self, count: int) -> None:
        self.until(lambda: len(self.finished) >= count)


class Desk:
    def __init__(self, work: Any, concurrency: int, post: Post | None, values: Any) -> None:
        values = {"retry_first": 0.001, "retry_limit": 0.004, **values}
        plan = make_plan(work, concurrency=concurrency, **values)
        assert plan.kind.asynchronous
        self.board, self.tally = Board.create(concurrency), Tally()
        self.dispatcher = Dispatcher(plan, self.board, self.tally, post)
        assert isinstance(self.dispatcher._hands, Coroutines)
        self.dispatcher.start()

    def counts(self) -> dict[str, int]:
        return {n: c for n, c in self.tally.to_json()["topics"]["orders"]["records"].items() if c}


Make = Callable[..., Desk]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[tuple[Desk, Any]] = []

    def build(work: Any, *, concurrency: int = 1, post: Post | None = None, **values: Any) -> Desk:
        made.append((Desk(work, concurrency, post, values), work))
        return made[-1][0]

    yield build
    for desk, work in made:
        if isinstance(work, Work):
            work.release()
        desk.dispatcher.drain()
        assert desk.dispatcher.wait_idle(PATIENCE)
        assert desk.dispatcher.end(PATIENCE)
        desk.board.close()


@pytest.mark.parametrize("order_by", ["key", "none"])
def test_as_many_at_once_as_allowed_and_no_more(make: Make, order_by: str) -> None:
    work = Work()
    desk = make(work, concurrency=3, order_by=order_by)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, *range(20))})
    work.until_started(3)
    assert len(desk.board.working()) == 3
    for n in range(17):  # each that ends lets one in
        work.release(work.started[n])
        work.until_started(n + 4)
    work.release()
    work.until_finished(20)
    assert desk.dispatcher.wait_idle(PATIENCE)
    assert work.most == 3
    assert work.threads == {"handlers"}
    assert desk.board.working() == []
    assert desk.dispatcher.committable() == {ZERO: Position(20)}


def test_one_after_another_where_the_order_is_kept(make: Make) -> None:
    work = Work(waits=False)
    desk = make(work, concurrency=8)
    partitions = [orders(n) for n in range(3)]
    desk.dispatcher.assigned(fresh(*partitions))
    for start in range(0, 60, 6):
        desk.dispatcher.feed({p: records(p.number, *range(start, start + 6)) for p in partitions})
    work.until_finished(180)
    for partition in partitions:
        assert [o for p, o in work.finished if p == partition.number] == list(range(60))
    assert 1 < work.most <= 3


def test_a_loop_that_rests_wakes_for_what_comes(make: Make) -> None:
    work = Work(waits=False)
    desk = make(work, concurrency=2)
    desk.dispatcher.assigned(fresh(ZERO))
    for n in range(50):
        desk.dispatcher.feed({ZERO: records(0, n)})
        work.until_finished(n + 1)
        assert desk.dispatcher.wait_idle(PATIENCE)


def test_a_back_off_that_ends_wakes_a_loop_that_rests(make: Make) -> None:
    work = Work(waits=False)
    work.failing[0, 0] = 3
    desk = make(work, retry_first=0.02, retry_limit=0.05)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0, 1)})
    work.until_finished(2)
    assert work.started == [(0, 0)] * 4 + [(0, 1)]
    assert desk.counts()["retried"] == 3


@pytest.mark.parametrize("batch", [False, Batch(count=2)])
def test_what_takes_too_long_is_cancelled_and_has_failed(make: Make, *, batch: Any) -> None:
    work = Work()
    desk = make(
        work, timeout=0.02, batch=batch, retry=Retry(attempts=1), then=skip(), concurrency=2
    )
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0)})
    work.until_started(1)
    assert desk.dispatcher.wait_idle(PATIENCE)
    assert work.cancelled == [(0, 0)]
    assert desk.tally.failures["orders"]["timeout"] == 1
    assert desk.counts() == {"skipped": 1}
    assert desk.dispatcher.committable() == {ZERO: Position(1)}


def test_a_timeout_of_the_handlers_own_is_an_error_like_others(make: Make) -> None:
    seen = threading.Event()

    async def handler(_: Record) -> None:
        seen.set()
        raise TimeoutError("the database took its time")

    desk = make(handler, timeout=60.0, retry=Retry(attempts=1), then=skip())
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0)})
    assert seen.wait(PATIENCE)
    assert desk.dispatcher.wait_idle(PATIENCE)
    assert desk.tally.failures["orders"] == {"error": 1, "timeout": 0, "poison": 0, "killed": 0}


def test_a_handler_that_cancels_itself_has_failed_and_the_loop_goes_on(make: Make) -> None:
    work = Work(waits=False)
    work.error = asyncio.CancelledError()
    work.failing[0, 0] = 1
    desk = make(work)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0, 1)})
    work.until_finished(2)
    assert desk.counts()["retried"] == 1
    assert desk.dispatcher.fatal is None


def test_sys_exit_ends_the_service(make: Make) -> None:
    work = Work(waits=False)
    work.error = SystemExit(3)
    work.failing[0, 1] = 1
    desk = make(work)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0, 1, 2)})
    work.until_started(2)
    assert desk.dispatcher.wait_idle(PATIENCE)
    assert desk.dispatcher.fatal is not None
    assert "SystemExit" in desk.dispatcher.fatal
    assert work.finished == [(0, 0)]
    assert desk.dispatcher.committable() == {ZERO: Position(1)}


def test_the_stack_goes_down_to_the_innermost_await(make: Make) -> None:
    work = Work()
    desk = make(work, concurrency=2)
    desk.dispatcher.assigned(fresh(ZERO, ONE))
    desk.dispatcher.feed({ONE: records(1, 4)})
    work.until_started(1)
    [held] = desk.board.working()
    assert (str(held), held.key) == ("orders[1]@4", b"key-4")
    stack = desk.dispatcher.stack_of(held.slot)
    assert stack is not None
    at = [stack.index(f"in {name}\n") for name in ("_run", "__call__", "waits_in_here", "wait")]
    assert at == sorted(at)
    assert "await gate.wait()" in stack
    assert desk.dispatcher.stack_of(1 - held.slot) is None
    work.release((1, 4))
    work.until_finished(1)
    assert desk.dispatcher.wait_idle(PATIENCE)


def test_drain_waits_for_what_is_in_flight_and_starts_nothing(make: Make) -> None:
    work = Work()
    desk = make(work, concurrency=2, order_by="key")
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, *range(9))})
    work.until_started(2)
    desk.dispatcher.drain()
    assert not desk.dispatcher.idle()
    work.release()
    assert desk.dispatcher.wait_idle(PATIENCE)
    assert len(work.started) == len(work.finished) == 2
    assert desk.counts() == {"done": 2, "dropped": 7}


def test_quiet_and_resume(make: Make) -> None:
    work = Work()
    desk = make(work)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0, 1, 2)})
    work.until_started(1)
    desk.dispatcher.quiet()
    work.release()
    assert desk.dispatcher.wait_idle(PATIENCE)
    assert work.started == [(0, 0)]
    desk.dispatcher.resume()
    work.until_finished(3)


def test_a_stuck_handler_keeps_the_end_waiting() -> None:
    work = Work()
    desk = Desk(work, 1, None, {})
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0)})
    work.until_started(1)
    assert not desk.dispatcher.end(0.05)
    [held] = desk.board.working()
    assert "waits_in_here" in (desk.dispatcher.stack_of(held.slot) or "")
    hands = desk.dispatcher._hands
    assert isinstance(hands, Coroutines)
    hands._thread.join(PATIENCE)
    for task in list(hands._tasks.values()):  # the process would end; a test cleans up
        task.get_coro().close()
    hands._tasks.clear()
    hands._loop.close()
    desk.board.close()


def test_a_loop_that_never_ran_ends() -> None:
    async def handler(_: Record) -> None: ...

    plan, board = make_plan(handler), Board.create(1)
    dispatcher = Dispatcher(plan, board, Tally())
    assert dispatcher.end(PATIENCE)
    board.close()


def test_a_batch_is_one_call(make: Make) -> None:
    work = Work()
    desk = make(work, batch=Batch(count=4))
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, *range(6))})
    work.until_started(1)
    [held] = desk.board.working()
    assert (held.offset, held.count) == (0, 4)
    assert desk.dispatcher.committable() == {}
    work.release()
    work.until_finished(6)
    assert desk.dispatcher.wait_idle(PATIENCE)
    assert work.started == [(0, 0), (0, 4)]
    assert desk.dispatcher.committable() == {ZERO: Position(6)}


def test_a_dead_letter_is_sent_again_until_it_is_taken(make: Make) -> None:
    posted: list[Callable[[Exception | None], None]] = []
    there = threading.Condition()

    def post(_: Letter, over: Callable[[Exception | None], None]) -> None:
        with there:
            posted.append(over)
            there.notify_all()

    def answer(number: int, error: Exception | None) -> None:
        with there:
            assert there.wait_for(lambda: len(posted) == number, PATIENCE)
        posted[-1](error)

    work = Work(waits=False)
    work.error = Poison("never")
    work.failing[0, 0] = 1
    desk = make(work, post=post, then=dead_letter("orders.dead"))
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0, 1)})
    answer(1, NotSent("no such topic"))
    assert desk.dispatcher.sending() == []
    assert (desk.dispatcher.committable(), work.finished) == ({}, [])
    answer(2, None)  # half a second later
    work.until_finished(1)
    assert desk.dispatcher.wait_idle(PATIENCE)
    assert desk.counts() == {"done": 1, "dead_lettered": 1}
    assert desk.dispatcher.committable() == {ZERO: Position(2)}
