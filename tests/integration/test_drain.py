"""Drains and revocations on a real broker: they begin at once, and commit as they go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer

from devtools.broker import Admin, Broker
from penstock.app import App
from penstock.board import Board
from penstock.budget import Budget
from penstock.errors import PenstockError
from penstock.exits import Exit
from penstock.kafka.kafka_python import KafkaPythonEngine
from penstock.plan import plans
from penstock.record import Record
from penstock.seat import Seat
from penstock.steps import Steps
from penstock.telemetry.tally import Tally
from penstock.worker.dispatch import Dispatcher
from penstock.worker.loop import Ending, PollLoop
from tests.integration.member import Member

pytestmark = pytest.mark.kafka

PATIENCE = 30.0


class Work:
    """A handler whose records with a value wait until their value is let go."""

    def __init__(self) -> None:
        self.started: list[tuple[int, int]] = []
        self.finished: list[tuple[int, int]] = []
        self.free: set[bytes] = set()
        self.change = threading.Condition()

    def __call__(self, record: Record) -> None:
        with self.change:
            self.started.append((record.partition, record.offset))
            self.change.notify_all()
            if record.value:
                self.change.wait_for(lambda: record.value in self.free)
            self.finished.append((record.partition, record.offset))
            self.change.notify_all()

    def release(self, *values: bytes) -> None:
        with self.change:
            self.free.update(values)
            self.change.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        with self.change:
            assert self.change.wait_for(condition, PATIENCE), (self.started, self.finished)


class Worker:
    """The real engine, poll loop and runners; the test is the control thread."""

    def __init__(self, bootstrap: str, topic: str, group: str, *, concurrency: int) -> None:
        self.work = Work()
        app = App(bootstrap_servers=bootstrap, commit_interval=0.3, heartbeat_interval=0.5)
        app.subscribe(topic, group=group, concurrency=concurrency, order_by="none")(self.work)
        [plan] = plans(app)
        self.board = Board.create(concurrency)
        self.dispatcher = Dispatcher(plan, self.board, Tally())
        self.engine = KafkaPythonEngine(
            plan.settings, (topic,), group, None, self.dispatcher, PATIENCE
        )
        steps = Steps(time.monotonic, began=time.monotonic())
        self.loop = PollLoop(
            plan, self.engine, self.dispatcher, self.board, Tally(), lambda _: None, steps
        )
        self.dispatcher.on_settled = self.engine.wake
        self.dispatcher.start()
        self.budget: Budget | None = None
        self.ending: Ending | None = None
        self.thread = threading.Thread(target=self._live)
        self.thread.start()

    def _live(self) -> None:
        fatal: PenstockError | None = self.loop.consume(lambda: self.budget is not None)
        budget = self.budget or Budget.of(5.0, now=time.monotonic())
        self.ending = self.loop.drain(budget, Seat.LEAVE, restart=True, fatal=fatal)

    def order(self, seconds: float) -> None:
        self.budget = Budget.of(seconds, now=time.monotonic())
        self.dispatcher.drain(self.budget.handlers_by)

    def end(self) -> Ending:
        self.thread.join(PATIENCE)
        assert self.ending is not None
        return self.ending

    def moving(self) -> set[int]:
        return {p.number for p, lane in self.dispatcher._desk._lanes.items() if lane.leaving}


@pytest.fixture
def begin(broker: Broker, topic4: str, group: str) -> Iterator[Callable[[int], Worker]]:
    made: list[Worker] = []

    def start(concurrency: int) -> Worker:
        made.append(Worker(broker.bootstrap, topic4, group, concurrency=concurrency))
        return made[-1]

    yield start
    for worker in made:
        worker.work.release(b"late", *(b"long%d" % n for n in range(4)), b"tick")
        if worker.budget is None:
            worker.order(5.0)
        worker.thread.join(PATIENCE)
        assert worker.dispatcher.end(PATIENCE)
        assert worker.dispatcher.fatal is None
        worker.board.close()


@pytest.fixture
def topic4(admin: Admin, group: str) -> str:
    name = f"drain-{group}"
    admin.create_topic(name, 4)
    return name


def send(bootstrap: str, topic: str, *records: tuple[int, bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for partition, value in records:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(PATIENCE) == 0


def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def test_what_finishes_during_a_drain_is_committed_before_its_end(
    broker: Broker, admin: Admin, topic4: str, group: str, begin: Callable[[int], Worker]
) -> None:
    """A platform may kill in the middle of it."""
    worker = begin(3)
    send(broker.bootstrap, topic4, (0, b"late"), (0, b"late"), (0, b"long0"))
    worker.work.until(lambda: len(worker.work.started) == 3)
    worker.order(PATIENCE)
    worker.work.release(b"late")
    until(
        lambda: admin.committed_offsets(group, topic4).get(0) == 2,
        lambda: admin.committed_offsets(group, topic4),
    )
    assert worker.ending is None
    worker.work.release(b"long0")
    assert worker.end() == Ending(Exit.RESTART, clean=True, reason="")
    assert admin.committed_offsets(group, topic4)[0] == 3


@pytest.mark.parametrize("finishes", [True, False])
def test_a_drain_does_not_wait_for_a_revocation_that_waits(
    broker: Broker,
    admin: Admin,
    topic4: str,
    group: str,
    begin: Callable[[int], Worker],
    *,
    finishes: bool,
) -> None:
    """``revoke_timeout`` is longer than the drain's budget, and what it waits for takes long."""
    worker = begin(4)
    work = worker.work
    head = [(p, v) for p in range(4) for v in (b"", b"", b"long%d" % p)]
    send(broker.bootstrap, topic4, *head)
    work.until(lambda: len(work.started) == 12)
    send(broker.bootstrap, topic4, *[(p, b"tick") for p in range(4) for _ in range(200)])
    until(lambda: worker.dispatcher.waiting >= 800, lambda: worker.dispatcher.waiting)
    over = threading.Event()
    other = Member(broker.bootstrap, group, topic4, heartbeat_interval=0.5)

    def join() -> None:
        while not over.is_set():
            other.poll()

    joining = threading.Thread(target=join)
    joining.start()
    try:
        until(lambda: len(worker.moving()) == 2, worker.moving)
        kept = min({0, 1, 2, 3} - worker.moving())
        work.release(b"long%d" % kept)  # on a partition that stays
        until(
            lambda: admin.committed_offsets(group, topic4).get(kept) == 3,
            lambda: admin.committed_offsets(group, topic4),
        )
        assert worker.moving(), "it still waits"
        work.until(lambda: len(work.started) == 13)  # the next one waits for its turn
        ordered = time.monotonic()
        worker.order(8.0)
        work.release(b"tick")
        work.until(lambda: len(work.finished) == 10)
        if finishes:
            work.release(*(b"long%d" % n for n in range(4)))
        ending = worker.end()
        took = time.monotonic() - ordered
        assert len(work.started) == 13, "records were started after the drain began"
        at = admin.committed_offsets(group, topic4)
        if finishes:
            assert ending == Ending(Exit.RESTART, clean=True, reason="")
            assert took < 6.0
            assert sum(at.values()) == 13
        else:
            assert (ending.code, ending.clean) == (Exit.FORCED, False)
            assert len(ending.stuck) == 3
            assert took < 8.0
            assert at[kept] == 3 + (work.started[12][0] == kept)
    finally:
        over.set()
        joining.join(PATIENCE)
        other.close()
