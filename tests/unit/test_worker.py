"""A worker without its process: its threads and channel are real, its client is not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.board import Board
from penstock.budget import Budget
from penstock.channel import Channel, Message
from penstock.errors import CommitRefused
from penstock.kafka.port import Connect
from penstock.seat import Seat
from penstock.steps import Steps
from penstock.worker import process
from penstock.worker.process import Order, Worker
from tests.unit.fake_engine import FakeEngine
from tests.unit.making import PATIENCE, Work, make_plan, orders, records

pytestmark = pytest.mark.usefixtures("no_log")


class Left(BaseException):
    """The process would be gone here."""


class Host:
    """The supervisor's end of the channel, and the worker's main thread."""

    def __init__(self, connect: Connect, **options: Any) -> None:
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        give_up = options.pop("give_up", None)
        plan = make_plan(options.pop("work", None) or Work(), **options)
        steps = Steps(time.monotonic, began=time.monotonic())
        self.board = Board.create(plan.concurrency)
        self.worker = Worker(plan, self.board, Channel(theirs), connect, steps, give_up)
        self.code: int | None = None
        self.told: list[Message] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.code = self.worker.run()

    def drain(self, *, restart: bool = False, seat: Seat = Seat.LEAVE, seconds: float = 9) -> None:
        self.channel.send("drain", restart=restart, seat=seat, seconds=seconds)

    def until(self, kind: str) -> Message:
        """The next message of this kind."""
        over = time.monotonic() + PATIENCE
        while time.monotonic() < over:
            self.told += self.channel.receive()
            for message in self.told:
                if message["t"] == kind:
                    self.told.remove(message)
                    return message
            time.sleep(0.01)
        raise AssertionError(f"no {kind}: {self.told}")

    def end(self) -> int:
        self.thread.join(PATIENCE)
        assert self.code is not None
        return self.code


@pytest.fixture
def host() -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def build(connect: Connect, **options: Any) -> Host:
        made.append(Host(connect, **options))
        return made[-1]

    yield build
    for each in made:
        each.channel.close()
        each.thread.join(PATIENCE)


def budget() -> Budget:
    return Budget.of(9.0, now=time.monotonic())


def absent(*_: object) -> Any:
    raise TimeoutError("no broker answered")


@pytest.mark.parametrize("hangs", [True, False])
@pytest.mark.parametrize(
    ("seat", "restart", "code", "asked"),
    [(Seat.LEAVE, False, 0, 1), (Seat.LEAVE, True, 4, 1), (Seat.KEEP, True, 4, 0)],
)
def test_a_seat_is_given_up_before_there_is_a_client(
    host: Callable[..., Host], hangs: bool, seat: Seat, restart: bool, code: int, asked: int
) -> None:
    """It is one that the process before this one kept; nor does a try that hangs matter."""
    given_up: list[float] = []
    trying, over = threading.Event(), threading.Event()

    def connect(*_: object) -> Any:
        trying.set()
        if hangs:
            over.wait(PATIENCE)
        return absent()

    worker = host(connect, give_up=given_up.append)
    worker.channel.send("start")
    assert trying.wait(PATIENCE)
    worker.drain(seat=seat, restart=restart)
    told = worker.until("drained")
    over.set()
    assert (worker.end(), told["code"], told["clean"]) == (code, code, True)
    assert len(given_up) == asked
    assert all(0 < seconds <= 9 for seconds in given_up)


def test_a_seat_that_may_still_be_held_is_no_clean_end(host: Callable[..., Host]) -> None:
    worker = host(absent, give_up=lambda _: "its partitions wait")
    worker.drain()
    told = worker.until("drained")
    assert (worker.end(), told["clean"], told["reason"]) == (2, False, "its partitions wait")


def test_a_seat_that_the_client_cannot_give_up_is_no_clean_end(host: Callable[..., Host]) -> None:
    class Engine(FakeEngine):
        def close(self, seat: Seat, timeout: float) -> str:  # type: ignore[override]
            super().close(seat, timeout)
            return "its partitions wait"

    worker = host(lambda rebalance, _: Engine(rebalance))
    worker.channel.send("start")
    while worker.until("status")["state"] == "connecting":
        pass
    worker.drain()
    told = worker.until("drained")
    assert (worker.end(), told["clean"], told["reason"]) == (2, False, "its partitions wait")


def test_a_dynamic_member_without_a_client_just_goes(host: Callable[..., Host]) -> None:
    worker = host(absent)
    worker.drain()
    assert worker.end() == 0


@pytest.mark.parametrize("error", [TypeError("a bug"), SystemExit(3), KeyboardInterrupt()])
def test_a_client_that_cannot_be_made_ends_the_service(
    host: Callable[..., Host], error: BaseException
) -> None:
    """Tried again it would be for ever: no broker is the reason."""

    def connect(*_: object) -> Any:
        raise error

    worker = host(connect)
    told = worker.until("fatal")
    assert worker.end() == 1
    assert f"making the Kafka client failed: {type(error).__name__}" in told["reason"]


@pytest.mark.parametrize("when", ["connecting", "waiting", "consuming"])
def test_a_control_thread_that_ends_ends_the_service(
    host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    connected = threading.Event()

    def connect(rebalance: Any, _: float) -> Any:
        connected.set()
        return absent() if when == "connecting" else FakeEngine(rebalance)

    worker = host(connect)
    if when == "consuming":
        worker.channel.send("start")
        worker.until("status")
    assert connected.wait(PATIENCE)

    def fault() -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(worker.worker, "_send_status", fault)
    told = worker.until("fatal")
    monkeypatch.undo()
    assert "the thread control ended: AssertionError: a bug" in told["reason"]
    assert worker.end() == 1


def test_a_fault_in_the_poll_loop_is_told_and_what_is_finished_is_committed(
    host: Callable[..., Host],
) -> None:
    work, engines = Work(), list[FakeEngine]()

    def connect(rebalance: Any, _: float) -> Any:
        engine = FakeEngine(rebalance)
        engine.write(orders(0), records(0, 0, 1))
        engine.assign(orders(0))
        engines.append(engine)
        return engine

    def fault() -> None:
        if len(work.finished) == 2 and not worker.worker._dispatcher._desk.draining:
            raise AssertionError("a bug")

    worker = host(connect, work=work, commit_interval=3600.0)
    worker.channel.send("start")
    work.until_finished(2)
    engines[0].on_poll = fault
    told = worker.until("fatal")
    assert "an unexpected error in the poll loop: AssertionError: a bug" in told["reason"]
    assert worker.end() == 1
    assert engines[0].committed[orders(0)].offset == 2


def test_a_drain_that_a_rebalance_holds_says_so_and_names_what_is_in_flight(
    host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control thread ends the process; nothing is started meanwhile."""
    left = threading.Event()

    def leave(code: int) -> None:
        left.set()
        raise Left(code)

    monkeypatch.setattr(process, "abandon", leave)
    work, held, over = Work(blocked={(0, 0)}), threading.Event(), threading.Event()

    def connect(rebalance: Any, _: float) -> Any:
        engine = FakeEngine(rebalance)
        engine.write(orders(0), records(0, 0, 1))
        engine.assign(orders(0))

        def on_poll() -> None:
            if work.started:
                held.set()
                over.wait(PATIENCE)

        engine.on_poll = on_poll
        return engine

    worker = host(connect, work=work)
    worker.channel.send("start")
    assert held.wait(PATIENCE)
    worker.drain(seconds=1.0)
    told = worker.until("drained")
    assert told["clean"] is False
    assert told["reason"] == "the drain deadline passed with orders[0]@0 in flight"
    assert [item["offset"] for item in told["stuck"]] == [0]
    assert left.wait(PATIENCE)
    work.release()
    over.set()
    worker.end()
    assert [r.offset for r in work.started] == [0]


def test_a_stop_that_comes_while_the_client_closes_for_a_restart_gives_the_seat_up(
    host: Callable[..., Host],
) -> None:
    given_up: list[float] = []

    class Engine(FakeEngine):
        def close(self, seat: Seat, timeout: float) -> None:
            super().close(seat, timeout)
            order = worker.worker._order
            worker.drain(restart=False, seat=Seat.LEAVE)
            over = time.monotonic() + PATIENCE
            while worker.worker._order is order:
                assert time.monotonic() < over
                time.sleep(0.001)

    worker = host(lambda rebalance, _: Engine(rebalance), give_up=given_up.append)
    worker.channel.send("start")
    while worker.until("status")["state"] == "connecting":
        pass
    worker.drain(restart=True, seat=Seat.KEEP)
    told = worker.until("drained")
    assert (worker.end(), told["code"], told["clean"]) == (0, 0, True)
    assert len(given_up) == 1


@pytest.mark.parametrize("connected", [True, False])
def test_a_later_order_to_leave_counts_though_it_is_a_restart_still(
    host: Callable[..., Host], connected: bool
) -> None:
    """A held restart takes the pod with it: a seat that a reload has kept is given up."""
    given_up: list[float] = []
    work = Work(blocked={(0, 0)})
    engines: list[FakeEngine] = []

    def connect(rebalance: Any, _: float) -> Any:
        if not connected:
            return absent()
        engine = FakeEngine(rebalance)
        engine.write(orders(0), records(0, 0, 1))
        engine.assign(orders(0))
        engines.append(engine)
        return engine

    worker = host(connect, give_up=given_up.append, work=work)
    if connected:
        worker.channel.send("start")
        work.until_started(1)
    worker.worker._take_order(Order(restart=True, seat=Seat.KEEP, budget=budget()))
    worker.worker._take_order(Order(restart=True, seat=Seat.LEAVE, budget=budget()))
    work.release()
    told = worker.until("drained")
    assert (worker.end(), told["clean"], told["seat"]) == (4, True, "leave")
    assert [engine.closed for engine in engines] == [Seat.LEAVE] * connected


@pytest.mark.parametrize(
    ("orders_given", "restart", "seat"),
    [
        ([(True, Seat.KEEP), (True, Seat.KEEP)], True, Seat.KEEP),
        ([(True, Seat.KEEP), (True, Seat.LEAVE)], True, Seat.LEAVE),
        ([(True, Seat.KEEP), (False, Seat.LEAVE)], False, Seat.LEAVE),
        ([(True, Seat.LEAVE), (False, Seat.KEEP)], False, Seat.LEAVE),
        ([(False, Seat.LEAVE), (True, Seat.KEEP)], False, Seat.LEAVE),
    ],
)
def test_of_two_orders_the_stop_and_the_leave_count(
    orders_given: list[tuple[bool, Seat]], restart: bool, seat: Seat
) -> None:
    first, second = (Order(restart=r, seat=s, budget=budget()) for r, s in orders_given)
    assert first.outranked_by(second) == Order(restart=restart, seat=seat, budget=first.budget)


def test_a_worker_tells_that_it_kept_its_seat(host: Callable[..., Host]) -> None:
    worker = host(absent)
    worker.drain(restart=True, seat=Seat.KEEP)
    assert worker.until("drained")["seat"] == "keep"
    assert worker.end() == 4


def test_a_close_that_hangs_does_not_hide_what_was_not_committed(
    host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    over = threading.Event()

    def leave(code: int) -> None:
        codes.append(code)
        over.set()
        raise Left(code)

    monkeypatch.setattr(process, "abandon", leave)
    work = Work()

    class Engine(FakeEngine):
        def close(self, seat: Seat, timeout: float) -> None:
            over.wait(PATIENCE)
            super().close(seat, timeout)

    def connect(rebalance: Any, _: float) -> Any:
        engine = Engine(rebalance)
        engine.always_refuse = CommitRefused("no broker")
        engine.write(orders(0), records(0, 0, 1))
        engine.assign(orders(0))
        return engine

    worker = host(connect, work=work, commit_interval=3600.0)
    worker.channel.send("start")
    work.until_finished(2)
    worker.drain(seconds=1.0)
    told = worker.until("drained")
    assert over.wait(PATIENCE)
    assert (told["code"], told["clean"], codes) == (2, False, [2])
    assert told["reason"] == "finished records could not be committed before the deadline"
