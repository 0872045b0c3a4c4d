from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.batching import Batch
from penstock.board import Board
from penstock.offsets import Position
from penstock.policy import Retry, stop
from penstock.record import Partition, Record
from penstock.retry import Backoff
from penstock.telemetry.tally import Tally
from penstock.worker.dispatch import Dispatcher
from tests.unit.making import PATIENCE, Work, fresh, make_plan, orders, records

pytestmark = pytest.mark.usefixtures("no_log")

Make = Callable[..., "Desk"]
QUICK = {"retry_first": 0.001, "retry_limit": 0.004}


class Desk:
    """A dispatcher with real threads over a real board."""

    def __init__(self, handler: Any, *, concurrency: int = 1, **values: Any) -> None:
        backoff = values.pop("backoff", None)
        plan = make_plan(handler, concurrency=concurrency, **{**QUICK, **values})
        if backoff is not None:
            policy = dataclasses.replace(plan.policy, backoff=backoff)
            plan = dataclasses.replace(plan, policy=policy)
        self.board = Board.create(concurrency)
        self.tally = Tally()
        self.dispatcher = Dispatcher(plan, self.board, self.tally)
        self.rested = threading.Condition()
        self.dispatcher.on_settled = self._on_settled
        self.dispatcher.start()

    def _on_settled(self) -> None:
        with self.rested:
            self.rested.notify_all()

    def until_settled(self, partition: Partition) -> None:
        """Wait for what a rebalance waits for."""
        with self.rested:
            assert self.rested.wait_for(lambda: self.dispatcher.settled([partition]), PATIENCE)

    def outcomes(self) -> dict[str, int]:
        counts = self.tally.to_json()["topics"]["orders"]["records"]
        return {name: count for name, count in counts.items() if count}

    def rest(self) -> None:
        assert self.dispatcher.wait_idle(PATIENCE)


@pytest.fixture
def make() -> Iterator[Make]:
    desks: list[tuple[Desk, Any]] = []

    def build(handler: Any, **options: Any) -> Desk:
        desks.append((Desk(handler, **options), handler))
        return desks[-1][0]

    yield build
    for desk, handler in desks:
        if isinstance(handler, Work):
            handler.release()
        desk.dispatcher.drain()
        assert desk.dispatcher.end(PATIENCE)
        desk.board.close()


ZERO, ONE = orders(0), orders(1)


def test_records_of_a_partition_are_handled_in_order(make: Make) -> None:
    work = Work()
    dispatcher = make(work, concurrency=4).dispatcher
    partitions = [orders(n) for n in range(6)]
    dispatcher.assigned(fresh(*partitions))
    for start in range(0, 100, 5):
        for partition in partitions:
            dispatcher.feed({partition: records(partition.number, *range(start, start + 5))})
    work.until_finished(600)
    for partition in partitions:
        assert work.offsets(partition.number) == list(range(100))
    assert dispatcher.wait_idle(PATIENCE)
    assert dispatcher.committable() == dict.fromkeys(partitions, Position(100))
    assert dispatcher.waiting == 0


def test_threads_work_on_different_partitions_at_once_and_never_two_on_one(make: Make) -> None:
    work = Work(blocked={(0, 0), (1, 0)})
    dispatcher = make(work, concurrency=4).dispatcher
    dispatcher.assigned(fresh(ZERO, ONE))
    for partition in (ZERO, ONE):
        dispatcher.feed({partition: records(partition.number, 0)})
    work.until_started(2)
    for partition in (ZERO, ONE):
        dispatcher.feed({partition: records(partition.number, 1)})
    dispatcher.assigned(fresh(orders(2)))  # a third thread is free, and takes what it finds
    dispatcher.feed({orders(2): records(2, 0)})
    work.until_finished(1)
    assert sorted((r.partition, r.offset) for r in work.started) == [(0, 0), (1, 0), (2, 0)]
    work.release()
    work.until_finished(5)
    assert len(work.started) == 5


def test_the_board_names_the_record_in_flight(make: Make) -> None:
    work = Work(blocked={(0, 7)})
    desk = make(work)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 7)})
    work.until_started(1)
    [held] = desk.board.working()
    assert (str(held), held.key, held.count) == ("orders[0]@7", b"key-7", 1)
    work.release()
    desk.rest()
    assert desk.board.working() == []
    assert desk.board.done_at() is not None
    assert desk.board.taken_at() is not None


def test_quiet_finishes_the_record_in_flight_and_keeps_the_rest(make: Make) -> None:
    work = Work(blocked={(0, 1)})
    desk = make(work)
    dispatcher = desk.dispatcher
    dispatcher.assigned(fresh(ZERO))
    dispatcher.feed({ZERO: records(0, 0, 1, 2, 3)})
    work.until_started(2)
    dispatcher.quiet()
    assert dispatcher.is_quiet
    work.release()
    desk.rest()
    assert work.offsets(0) == [0, 1]
    assert dispatcher.committable() == {ZERO: Position(2)}
    dispatcher.feed({ZERO: records(0, 4)})  # was on its way when quiet came
    assert dispatcher.idle()
    dispatcher.resume()
    work.until_finished(5)
    assert work.offsets(0) == [0, 1, 2, 3, 4]
    assert desk.outcomes() == {"done": 5}


def test_what_comes_while_quiet_waits(make: Make) -> None:
    work = Work()
    dispatcher = make(work).dispatcher
    dispatcher.quiet()
    assert dispatcher.assigned(fresh(ZERO))  # the engine is to pause it
    dispatcher.feed({ZERO: records(0, 0)})
    assert dispatcher.waiting == 1
    assert dispatcher.idle()
    dispatcher.resume()
    work.until_finished(1)
    assert not dispatcher.assigned(fresh(ONE))


def test_drain_drops_what_no_handler_started(make: Make) -> None:
    work = Work(blocked={(0, 1)})
    desk = make(work)
    dispatcher = desk.dispatcher
    dispatcher.assigned(fresh(ZERO, ONE))
    dispatcher.feed({ZERO: records(0, 0, 1, 2)})
    work.until_started(2)
    dispatcher.feed({ZERO: records(0, 3, 4)})
    dispatcher.feed({ONE: records(1, 0)})
    dispatcher.drain()
    # The chunk in work is looked at when its thread lets go.
    assert desk.outcomes() == {"dropped": 3}
    assert not dispatcher.idle()
    assert not dispatcher.wait_idle(0.01)
    dispatcher.feed({ONE: records(1, 1)})  # too late
    work.release()
    desk.rest()
    assert work.offsets(0) == [0, 1]
    assert work.offsets(1) == []
    assert dispatcher.committable() == {ZERO: Position(2)}
    assert desk.outcomes() == {"done": 2, "dropped": 4}
    assert dispatcher.assigned(fresh(orders(2)))  # to be paused, too


def test_resume_does_not_undo_a_drain(make: Make) -> None:
    work = Work(blocked={(0, 0)})
    desk = make(work)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0, 1)})
    work.until_started(1)
    desk.dispatcher.drain()
    desk.dispatcher.resume()
    work.release()
    desk.rest()
    assert work.offsets(0) == [0]


def test_a_raising_handler_is_tried_again_while_other_partitions_go_on(make: Make) -> None:
    work = Work()
    work.failing[0, 1] = 3
    desk = make(work, retry_first=0.02, retry_limit=0.04)
    dispatcher = desk.dispatcher
    dispatcher.assigned(fresh(ZERO, ONE))
    dispatcher.feed({ZERO: records(0, 0, 1, 2)})
    work.until_started(2)
    dispatcher.feed({ONE: records(1, *range(5))})
    work.until_finished(8)
    assert work.offsets(0) == [0, 1, 2]
    order = [(r.partition, r.offset) for r in work.finished]
    assert order.index((1, 4)) < order.index((0, 1))
    desk.rest()
    assert dispatcher.committable() == {ZERO: Position(3), ONE: Position(5)}
    assert desk.outcomes() == {"done": 8, "retried": 3}


def test_a_partition_that_waits_for_its_retry_is_paused(make: Make) -> None:
    work = Work()
    work.failing[0, 0] = 1
    desk = make(work, retry_first=30.0, retry_limit=30.0)
    desk.dispatcher.assigned(fresh(ZERO, ONE))
    desk.dispatcher.flow()
    desk.dispatcher.feed({ZERO: records(0, 0)})
    work.until_started(1)
    desk.rest()
    assert desk.dispatcher.flow() == ([ZERO], [])


def test_each_record_has_its_own_attempts(make: Make) -> None:
    asked: list[int] = []

    class Noted(Backoff):
        def delay(self, attempt: int, random: Callable[[], float]) -> float:
            asked.append(attempt)
            return super().delay(attempt, random)

    work = Work()
    work.failing.update({(0, 0): 2, (0, 1): 2})
    desk = make(work, backoff=Noted(first=0.001, limit=0.004))
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0, 1, 2)})
    work.until_finished(3)
    assert asked == [1, 2, 1, 2]


def test_revocation_in_the_middle_of_a_chunk(make: Make) -> None:
    work = Work(blocked={(0, 1)})
    desk = make(work)
    dispatcher = desk.dispatcher
    settled: list[str] = []
    dispatcher.on_settled = lambda: settled.append("settled")
    dispatcher.assigned(fresh(ZERO, ONE))
    dispatcher.feed({ZERO: records(0, 0, 1, 2)})
    work.until_started(2)
    dispatcher.revoking([ZERO])
    dispatcher.feed({ZERO: records(0, 3)})
    dispatcher.resume()  # a resume meanwhile must not start it again
    assert not dispatcher.settled([ZERO])
    assert dispatcher.settled([ONE])
    assert dispatcher.committable([ZERO]) == {ZERO: Position(1)}
    work.release()
    desk.rest()
    assert dispatcher.settled([ZERO])
    assert dispatcher.committable([ZERO]) == {ZERO: Position(2)}
    dispatcher.revoked([ZERO], committed=True)
    assert dispatcher.committable() == {}
    assert dispatcher.abandoned == 0
    assert work.offsets(0) == [0, 1]
    assert dispatcher.end(PATIENCE)
    assert settled


@pytest.mark.parametrize("committed", [True, False])
def test_work_that_was_not_committed_is_abandoned(make: Make, *, committed: bool) -> None:
    work = Work()
    desk = make(work)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0)})
    work.until_finished(1)
    desk.rest()
    desk.dispatcher.revoking([ZERO])
    desk.dispatcher.revoked([ZERO], committed=committed)
    assert desk.dispatcher.abandoned == (0 if committed else 1)


def test_a_lane_that_comes_back_gets_nothing_of_the_old_one(make: Make) -> None:
    work = Work(blocked={(0, 10)})
    desk = make(work, concurrency=2)
    dispatcher = desk.dispatcher
    dispatcher.assigned(fresh(ZERO))
    dispatcher.feed({ZERO: records(0, 10, epoch=1)})
    work.until_started(1)
    dispatcher.lost([ZERO])
    assert dispatcher.abandoned == 1
    assert not dispatcher.idle()  # its handler still runs, though the lane is gone
    dispatcher.assigned(fresh(ZERO))
    dispatcher.feed({ZERO: records(0, 5, 6, epoch=2)})
    work.until_finished(2)
    work.release()
    work.until_finished(3)
    desk.rest()
    assert dispatcher.committable() == {ZERO: Position(7)}
    assert dispatcher.waiting == 0  # the old chunk is not taken from the new lane's count
    assert desk.outcomes() == {"done": 2, "lost": 1}


def test_lost_partitions_drop_what_waits(make: Make) -> None:
    work = Work(blocked={(0, 0)})
    desk = make(work)
    dispatcher = desk.dispatcher
    dispatcher.assigned(fresh(ZERO))
    dispatcher.feed({ZERO: records(0, 0, 1)})
    work.until_started(1)
    dispatcher.feed({ZERO: records(0, 2)})
    dispatcher.lost([ZERO])
    assert dispatcher.committable() == {}
    work.release()
    desk.rest()
    assert work.offsets(0) == [0]
    assert dispatcher.committable() == {}
    dispatcher.committed({ZERO: Position(9)})  # a late word about what is gone
    assert dispatcher.waiting == 0


def test_a_retry_of_an_old_lane_does_not_touch_the_new_one(make: Make) -> None:
    work = Work()
    work.failing[0, 0] = 1
    desk = make(work, retry_first=0.01, retry_limit=0.01)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0, epoch=1)})
    work.until_started(1)
    desk.rest()
    desk.dispatcher.lost([ZERO])
    desk.dispatcher.assigned(fresh(ZERO))
    work.failing[0, 0] = 1
    desk.dispatcher.feed({ZERO: records(0, 0, epoch=2)})
    work.until_finished(1)
    assert [r.value for r in work.finished] == [b"2"]
    assert [r.value for r in work.started] == [b"1", b"2", b"2"]


def test_a_retry_of_an_old_lane_does_not_let_the_new_one_flow(make: Make) -> None:
    delays = iter([0.02, 60.0])

    class Chosen(Backoff):
        def delay(self, attempt: int, random: Callable[[], float]) -> float:
            return next(delays)

    work = Work()
    work.failing[0, 0] = 2
    desk = make(work, backoff=Chosen())
    dispatcher = desk.dispatcher
    dispatcher.assigned(fresh(ZERO))
    dispatcher.feed({ZERO: records(0, 0, epoch=1)})
    work.until_started(1)
    desk.rest()
    dispatcher.lost([ZERO])
    dispatcher.assigned(fresh(ZERO))
    dispatcher.feed({ZERO: records(0, 0, epoch=2)})
    work.until_started(2)
    desk.rest()
    assert dispatcher.flow() == ([ZERO], [])
    over = time.monotonic() + PATIENCE
    later = dispatcher._desk._later
    with dispatcher._change:
        while len(later) > 1 and time.monotonic() < over:
            dispatcher._change.wait(0.005)
        assert len(later) == 1  # the old one's time has come and gone
    assert dispatcher.flow() == ((), ())


def test_positions_and_confirmations(make: Make) -> None:
    work = Work()
    desk = make(work)
    dispatcher = desk.dispatcher
    dispatcher.assigned(fresh(ZERO, ONE))
    dispatcher.feed({ZERO: records(0, 3, 4)})
    work.until_finished(2)
    desk.rest()
    assert dispatcher.committable() == {ZERO: Position(5)}
    assert dispatcher.unfinished() == {}
    dispatcher.committed({ZERO: Position(4)})
    assert dispatcher.committable() == {ZERO: Position(5)}
    dispatcher.committed({ZERO: Position(5)})
    assert dispatcher.committable() == {}
    dispatcher.revoking([ZERO])


def test_batches_are_done_as_a_whole(make: Make) -> None:
    work = Work(blocked={(0, 0)})
    work.failing[0, 3] = 1
    desk = make(work, batch=True)
    dispatcher = desk.dispatcher
    dispatcher.assigned(fresh(ZERO))
    dispatcher.feed({ZERO: records(0, 0, 1, 2)})
    work.until_started(3)
    dispatcher.feed({ZERO: records(0, 3, 4)})
    [held] = desk.board.working()
    assert (held.offset, held.count) == (0, 3)
    assert dispatcher.committable() == {}
    work.release()
    work.until_finished(5)
    desk.rest()
    assert work.offsets(0) == [0, 1, 2, 3, 4]
    assert [r.offset for r in work.started] == [0, 1, 2, 3, 4, 3, 4]
    assert dispatcher.committable() == {ZERO: Position(5)}
    assert dispatcher.waiting == 0


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_no_retry_can_mend_is_fatal(make: Make, error: BaseException) -> None:
    work = Work(error=error)
    work.failing[0, 1] = 1
    desk = make(work)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0, 1, 2)})
    work.until_started(2)
    desk.rest()
    assert desk.dispatcher.fatal is not None
    assert type(error).__name__ in desk.dispatcher.fatal
    assert work.offsets(0) == [0]
    assert desk.dispatcher.committable() == {ZERO: Position(1)}


def test_an_error_while_draining_is_not_tried_again(make: Make) -> None:
    work = Work(blocked={(0, 1)})
    work.failing[0, 1] = 5
    desk = make(work)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0, 1, 2)})
    work.until_started(2)
    desk.dispatcher.drain()
    work.release()
    desk.rest()
    assert desk.dispatcher.committable() == {ZERO: Position(1)}
    assert desk.dispatcher.end(PATIENCE)
    assert len(work.started) == 2
    assert desk.dispatcher.fatal is None


def test_a_failure_is_told_with_its_record(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []

    class Log:
        def warning(self, _event: str, **fields: Any) -> None:
            told.append(fields)

    monkeypatch.setattr("penstock.worker.dispatch.log", Log())
    work = Work(blocked={(0, 1)})
    work.failing[0, 1] = 1
    desk = make(work)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0, 1, 2)})
    work.until_started(2)
    desk.dispatcher.drain()
    work.release()
    assert desk.dispatcher.end(PATIENCE)
    assert [fields["record"] for fields in told] == ["orders[0]@1"]


@pytest.mark.parametrize("timestamp", [-1, 0, None])
def test_records_without_a_timestamp_have_no_age(make: Make, timestamp: Any) -> None:
    work = Work()
    desk = make(work)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0, timestamp=timestamp)})
    work.until_finished(1)
    desk.rest()
    topic = desk.tally.to_json()["topics"]["orders"]
    assert topic["records"]["done"] == 1
    assert Tally.from_json(desk.tally.to_json()).age["orders"].count == 0


def test_a_stuck_handler_keeps_the_end_waiting(make: Make) -> None:
    work = Work(blocked={(0, 0)})
    desk = make(work)
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0)})
    work.until_started(1)
    assert not desk.dispatcher.end(0.01)


def test_room_is_noticed_at_once(make: Make) -> None:
    work = Work(blocked={(0, 0)})
    desk = make(work, buffer_records=2, max_poll_records=2)
    dispatcher = desk.dispatcher
    dispatcher.assigned(fresh(ZERO))
    dispatcher.feed({ZERO: records(0, 0, 1)})
    dispatcher.flow()
    assert dispatcher.saturated
    work.until_started(1)
    work.release()
    dispatcher.wait_for_room(PATIENCE)
    desk.rest()
    assert dispatcher.flow() == ([], [ZERO])
    assert not dispatcher.saturated


@pytest.mark.parametrize("batch", [False, True])
def test_a_coroutine_that_a_decorator_hides_is_not_taken_for_done(
    make: Make, *, batch: bool
) -> None:
    """It has not run; the default policy, which tries for ever, makes that visible."""
    called = threading.Event()

    async def charge(_record: Record) -> None: ...

    def decorated(given: Any) -> object:
        called.set()
        return charge(given)

    desk = make(decorated, batch=batch, retry=Retry(attempts=1), then=stop())
    desk.dispatcher.assigned(fresh(ZERO))
    desk.dispatcher.feed({ZERO: records(0, 0, 1)})
    assert called.wait(PATIENCE)
    over = time.monotonic() + PATIENCE
    while desk.dispatcher.fatal is None and time.monotonic() < over:
        desk.rest()
    assert "returned a coroutine, and nothing awaits it" in (desk.dispatcher.fatal or "")
    assert desk.dispatcher.committable() == {}


def test_a_wait_of_centuries_ends_no_thread(make: Make) -> None:
    """Python refuses to wait longer than 292 years."""
    work = Work()
    desk = make(work, batch=Batch(count=2, wait=1e12))
    desk.dispatcher.assigned(fresh(ZERO, ONE))
    desk.dispatcher.feed({ZERO: records(0, 0)})  # waits for another
    desk.dispatcher.feed({ONE: records(1, 0, 1)})
    work.until_finished(2)
    desk.rest()
    desk.dispatcher.feed({ZERO: records(0, 1)})
    work.until_finished(4)


MET = {"done", "retried", "dropped"}


class Driver:
    """Feeds, quiets, revokes, loses and assigns at random, and knows what must come of it.

    Each ownership of a partition is an epoch of its own, told apart by the record's value.
    A handler blocks on some records until the driver releases it, so every step may meet a
    record in flight.
    """

    PARTITIONS = 5

    def __init__(self, seed: int, make: Make, *, batch: bool) -> None:
        self.random = random.Random(seed)
        self.work = Work()
        self.desk = make(
            self.work,
            concurrency=self.random.choice([1, 2, 4]),
            batch=batch,
            buffer_records=self.random.choice([1, 20, 200]),
            max_poll_records=5,
        )
        self.dispatcher = self.desk.dispatcher
        self.fed: dict[tuple[int, int], list[int]] = defaultdict(list)
        self.epoch: dict[int, int] = {}
        self.offset: dict[int, int] = defaultdict(int)
        self.paused: set[Partition] = set()
        self.ended: dict[tuple[int, int], int | None] = {}

    def step(self) -> None:
        self.random.choices(
            [self.feed, self.assign, self.revoke, self.lose, self.quiet, self.resume, self.free,
             self.commit],
            [12, 4, 2, 1, 1, 2, 6, 3],
        )[0]()  # fmt: skip
        self.flow()

    def flow(self) -> None:
        pause, resume = self.dispatcher.flow()
        self.paused.update(pause)
        self.paused.difference_update(resume)

    def feed(self) -> None:
        for number, epoch in self.epoch.items():
            if orders(number) in self.paused or self.random.random() < 0.4:
                continue
            start = self.offset[number]
            offsets = sorted(self.random.sample(range(start, start + 8), self.random.randint(1, 5)))
            self.offset[number] = offsets[-1] + 1
            with self.work.change:
                for offset in offsets:
                    if self.random.random() < 0.15:
                        self.work.blocked.add((number, offset))
                    if self.random.random() < 0.1:
                        self.work.failing[number, offset] = self.random.randint(1, 2)
            self.fed[number, epoch].extend(offsets)
            self.dispatcher.feed({orders(number): records(number, *offsets, epoch=epoch)})

    def assign(self) -> None:
        free = [n for n in range(self.PARTITIONS) if n not in self.epoch]
        if free:
            number = self.random.choice(free)
            self.epoch[number] = max([e for n, e in self.fed if n == number], default=0) + 1
            self.fed[number, self.epoch[number]] = []
            self.paused.discard(orders(number))
            self.dispatcher.assigned(fresh(orders(number)))

    def revoke(self) -> None:
        if self.epoch:
            number = self.random.choice(list(self.epoch))
            partition = orders(number)
            self.dispatcher.revoking([partition])
            if self.random.random() < 0.7:
                self.work.release()
                self.desk.rest() if self.dispatcher.is_quiet else None
                self.desk.until_settled(partition)
            found = self.dispatcher.committable([partition]).get(partition)
            position = found.offset if found else None
            settled = self.dispatcher.settled([partition])
            self.dispatcher.revoked([partition], committed=True)
            key = number, self.epoch.pop(number)
            self.ended[key] = position if settled else None
            if settled:
                self.check_settled(key)
            self.offset[number] = position or self.offset[number]

    def check_settled(self, key: tuple[int, int]) -> None:
        """What was committable at the revocation is exactly what finished."""
        finished = self.finished()[key]
        if (position := self.ended[key]) is not None:
            assert position == finished[-1] + 1

    def lose(self) -> None:
        if self.epoch:
            number = self.random.choice(list(self.epoch))
            self.dispatcher.lost([orders(number)])
            del self.epoch[number]

    def quiet(self) -> None:
        self.dispatcher.quiet()

    def resume(self) -> None:
        self.dispatcher.resume()

    def free(self) -> None:
        self.work.release()

    def commit(self) -> None:
        offsets = self.dispatcher.committable()
        finished = self.finished()
        for partition, position in offsets.items():
            done = finished[partition.number, self.epoch[partition.number]]
            assert position.offset - 1 in done  # never beyond what a handler returned for
        self.dispatcher.committed(offsets)

    def finished(self) -> dict[tuple[int, int], list[int]]:
        found: dict[tuple[int, int], list[int]] = defaultdict(list)
        with self.work.change:
            for record in self.work.finished:
                assert record.value is not None
                found[record.partition, int(record.value)].append(record.offset)
        return found

    def watermarks(self) -> dict[Partition, int]:
        lanes = self.dispatcher._desk._lanes.items()
        return {p: lane.position_at for p, lane in lanes if lane.position_at}

    def check_order(self) -> None:
        """In every ownership: in order, nothing left out, nothing twice."""
        for key, offsets in self.finished().items():
            assert offsets == self.fed[key][: len(offsets)]

    def check_no_stall(self) -> None:
        """Let everything go: all that the present owners were given gets done."""
        self.work.release()
        self.dispatcher.resume()
        self.work.until(
            lambda: all(
                len(self.finished()[n, e]) == len(self.fed[n, e]) for n, e in self.epoch.items()
            )
        )
        self.desk.rest()
        assert self.dispatcher.waiting == 0
        self.flow()
        assert not self.paused & {orders(n) for n in self.epoch}
        assert self.dispatcher.unfinished() == {}
        assert self.watermarks() == {
            orders(n): self.fed[n, e][-1] + 1 for n, e in self.epoch.items() if self.fed[n, e]
        }

    def check_drain(self) -> None:
        """Drain under load: what is in flight finishes, nothing else starts, and no retry."""
        self.assign()
        self.feed()
        self.dispatcher.drain()
        self.work.release()
        self.desk.rest()
        started = len(self.work.started)
        self.feed()
        self.dispatcher.resume()
        assert self.dispatcher.end(PATIENCE)
        assert len(self.work.started) == started
        self.check_order()
        finished = self.finished()
        for number, epoch in self.epoch.items():
            if done := finished[number, epoch]:
                assert self.watermarks()[orders(number)] == done[-1] + 1
            else:
                assert orders(number) not in self.watermarks()


@pytest.mark.parametrize("seed", range(30))
def test_no_interleaving_stalls_or_loses_anything(make: Make, seed: int) -> None:
    driver = Driver(seed, make, batch=seed % 5 == 4)
    for _ in range(3):
        for _ in range(60):
            driver.step()
        driver.check_no_stall()
        driver.check_order()
    driver.check_drain()


def test_the_driver_meets_what_it_is_made_for(make: Make) -> None:
    """A driver that never fed, failed or blocked would pass everything."""
    driver = Driver(1, make, batch=False)
    for _ in range(100):  # how soon depends on how the threads are scheduled
        for _ in range(60):
            driver.step()
        driver.check_no_stall()
        enough = len(driver.work.finished) > 50
        failed = len(driver.work.started) > len(driver.work.finished)
        if enough and failed and driver.ended and driver.desk.outcomes().keys() >= MET:
            return
    pytest.fail("the driver does not get to everything")


def test_a_record_is_not_changed_on_its_way(make: Make) -> None:
    given: list[Record] = []
    there = threading.Event()

    def note(record: Record) -> None:
        given.append(record)
        there.set()

    desk = make(note)
    desk.dispatcher.assigned(fresh(ZERO))
    [record] = records(0, 3)
    record = record._replace(headers=(("trace", b"1"),))
    desk.dispatcher.feed({ZERO: [replace_nothing(record)]})
    assert there.wait(PATIENCE)
    desk.rest()
    assert desk.dispatcher.waiting == 0
    assert given == [record]


def replace_nothing(record: Record) -> Record:
    return Record(*record)
