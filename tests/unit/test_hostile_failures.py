"""Whatever a handler raises: its record goes the way of its policy, or stays and ends the service.

Every kind of exception, from every place the user's code runs in, with every end of the
attempts, on the real dispatcher with its real threads or event loop.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from penstock.batching import Batch
from penstock.board import Board
from penstock.errors import ConfigError
from penstock.letters import REASON_LIMIT, Detail, Letter, headers
from penstock.policy import Retry, dead_letter, skip, stop
from penstock.record import Record
from penstock.telemetry.tally import Tally
from penstock.worker.dispatch import Dispatcher
from tests.unit.hostile import CRASHES, FAILURES
from tests.unit.making import PATIENCE, fresh, make_plan, orders

pytestmark = pytest.mark.usefixtures("no_log")

ZERO = orders(0)
#: The record that fails, always, of those with offsets 0 to 2.
CULPRIT = 1
THEN = {"stop": stop(), "skip": skip(), "dead_letter": dead_letter("orders.dead")}
Make = Callable[[], BaseException]


def _plain(fail: Callable[[int], None], done: list[int]) -> Any:
    def handler(record: Record) -> None:
        fail(record.offset)
        done.append(record.offset)

    return handler


def _coroutine(fail: Callable[[int], None], done: list[int]) -> Any:
    async def handler(record: Record) -> None:
        await asyncio.sleep(0)
        fail(record.offset)
        done.append(record.offset)

    return handler


def _batch(fail: Callable[[int], None], done: list[int]) -> Any:
    def handler(records: list[Record]) -> None:
        for record in records:
            fail(record.offset)
        done.extend(r.offset for r in records)

    return handler


def _coroutine_batch(fail: Callable[[int], None], done: list[int]) -> Any:
    async def handler(records: list[Record]) -> None:
        await asyncio.sleep(0)
        for record in records:
            fail(record.offset)
        done.extend(r.offset for r in records)

    return handler


def _decorated(fail: Callable[[int], None], done: list[int]) -> Any:
    def decorate(inner: Callable[[Record], None]) -> Callable[[Record], None]:
        @functools.wraps(inner)
        def outer(record: Record) -> None:
            fail(record.offset)
            inner(record)

        return outer

    @decorate
    def handler(record: Record) -> None:
        done.append(record.offset)

    return handler


def _validated(fail: Callable[[int], None], done: list[int]) -> Any:
    class Order(BaseModel):
        number: int

        @field_validator("number")
        @classmethod
        def check(cls, number: int) -> int:
            fail(number)
            return number

    def handler(order: Order) -> None:
        done.append(order.number)

    handler.__annotations__["order"] = Order
    return handler


def _post_init(fail: Callable[[int], None], done: list[int]) -> Any:
    @dataclass
    class Order:
        number: int

        def __post_init__(self) -> None:
            fail(self.number)

    async def handler(order: Order) -> None:
        done.append(order.number)

    handler.__annotations__["order"] = Order
    return handler


PLACES = {
    "plain": _plain,
    "coroutine": _coroutine,
    "batch": _batch,
    "coroutine batch": _coroutine_batch,
    "decorator": _decorated,
    "validator": _validated,
    "dataclass": _post_init,
}


def given() -> list[Record]:
    return [Record("orders", 0, n, 0, None, b'{"number": %d}' % n, ()) for n in range(3)]


class Rig:
    """A dispatcher with real runners; letters are confirmed at once, by another thread."""

    def __init__(self, handler: Any, **values: Any) -> None:
        values = {"retry": Retry(attempts=2), "then": stop(), **values}
        plan = make_plan(handler, retry_first=0.001, retry_limit=0.001, **values)
        self.board, self.tally = Board.create(plan.concurrency), Tally()
        self.letters: list[Letter] = []
        self.dispatcher = Dispatcher(plan, self.board, self.tally, self._post)
        self.dispatcher.start()

    def _post(self, letter: Letter, over: Callable[[Exception | None], None]) -> None:
        self.letters.append(letter)
        sender = threading.Thread(target=over, args=(None,))
        sender.start()
        sender.join()

    def run(self) -> None:
        """Hand three records over, and wait until they are finished, or the service has to end."""
        self.dispatcher.assigned(fresh(ZERO))
        self.dispatcher.feed({ZERO: given()})
        over = time.monotonic() + PATIENCE
        while self.dispatcher.fatal is None and self.position() < len(given()):
            assert time.monotonic() < over, "it stands still, in silence"
            time.sleep(0.001)
        assert self.dispatcher.wait_idle(PATIENCE)

    def position(self) -> int:
        at = self.dispatcher.committable().get(ZERO)
        return 0 if at is None else at.offset

    def runners(self) -> list[threading.Thread]:
        hands: Any = self.dispatcher._hands
        return [hands._thread] if hasattr(hands, "_thread") else list(hands._threads)

    def close(self) -> None:
        self.dispatcher.drain()
        assert self.dispatcher.end(PATIENCE)
        self.board.close()


@pytest.fixture
def make() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def build(handler: Any, **values: Any) -> Rig:
        made.append(Rig(handler, **values))
        return made[-1]

    yield build
    for rig in made:
        rig.close()


def start(make: Callable[..., Rig], place: str, then: str, error: Make) -> tuple[Rig, list[int]]:
    def fail(offset: int) -> None:
        if offset == CULPRIT:
            raise error()

    done: list[int] = []
    batch = Batch(count=3) if "batch" in place else False
    return make(PLACES[place](fail, done), then=THEN[then], batch=batch), done


@pytest.mark.parametrize("then", THEN)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("error", FAILURES)
def test_a_failure_goes_the_way_of_its_policy(
    make: Callable[..., Rig], error: str, place: str, then: str
) -> None:
    rig, done = start(make, place, then, FAILURES[error])
    rig.run()
    assert all(thread.is_alive() for thread in rig.runners())
    assert CULPRIT not in done
    if then == "stop":
        assert rig.dispatcher.fatal is not None
        assert f"orders[0]@{CULPRIT}" in rig.dispatcher.fatal
        assert len(rig.dispatcher.fatal.encode()) < 50_000
        assert rig.position() == CULPRIT
        return
    assert rig.dispatcher.fatal is None
    assert (set(done), rig.position()) == ({0, 2}, 3)
    assert [letter.record.offset for letter in rig.letters] == [CULPRIT] * (then == "dead_letter")
    for letter in rig.letters:
        told = headers(letter, Detail.FULL)
        assert all(value is None or len(value) <= REASON_LIMIT * 10 for _, value in told)
        assert letter.traceback


@pytest.mark.parametrize("then", THEN)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("error", CRASHES)
def test_a_crash_ends_the_service_and_its_record_stays(
    make: Callable[..., Rig], error: str, place: str, then: str
) -> None:
    rig, done = start(make, place, then, CRASHES[error])
    rig.run()
    assert rig.dispatcher.fatal is not None
    assert rig.dispatcher.fatal.encode()
    assert rig.position() <= CULPRIT
    assert CULPRIT not in done
    assert rig.letters == []
    assert all(thread.is_alive() for thread in rig.runners())


LEAVING = ("plain", "str exits", "group", "cancelled", "timeout", "poison", "undecodable")


@pytest.mark.parametrize("how", ["drain", "revocation"])
@pytest.mark.parametrize("then", THEN)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("error", LEAVING)
def test_what_fails_while_its_partition_leaves_stays_unless_it_cannot_be_decoded(
    make: Callable[..., Rig], error: str, place: str, then: str, how: str
) -> None:
    begun, left = threading.Event(), threading.Event()

    def fail(offset: int) -> None:
        if offset == CULPRIT:
            begun.set()
            assert left.wait(PATIENCE)
            failure = FAILURES[error]()
            raise failure

    batch = Batch(count=3) if "batch" in place else False
    rig = make(PLACES[place](fail, []), then=THEN[then], batch=batch, retry=Retry(attempts=1))
    dispatcher = rig.dispatcher
    dispatcher.assigned(fresh(ZERO))
    dispatcher.feed({ZERO: given()})
    assert begun.wait(PATIENCE)
    if how == "drain":
        dispatcher.drain(time.monotonic() + PATIENCE)
    else:
        dispatcher.revoking([ZERO])
    left.set()
    assert dispatcher.wait_idle(PATIENCE)
    assert dispatcher.settled([ZERO])
    failed = rig.tally.failures.get("orders", {})
    in_decoder = place in ("validator", "dataclass") and error == "plain"
    if batch or not (error == "undecodable" or in_decoder):
        assert (dispatcher.fatal, rig.letters, sum(failed.values())) == (None, [], 0)
        assert rig.position() == (0 if batch else CULPRIT)
        return
    assert sum(failed.values()) == 1
    assert (dispatcher.fatal is not None) == (then == "stop")
    assert rig.position() == (CULPRIT if then == "stop" else CULPRIT + 1)
    assert len(rig.letters) == (then == "dead_letter")


@pytest.mark.parametrize("place", PLACES)
def test_an_exception_raised_again_and_again_does_not_grow(
    make: Callable[..., Rig], place: str
) -> None:
    error = RuntimeError("always the same")
    tries = 300

    def fail(offset: int) -> None:
        nonlocal tries
        if offset == CULPRIT and tries:
            tries -= 1
            raise error

    done: list[int] = []
    batch = Batch(count=3) if "batch" in place else False
    rig = make(PLACES[place](fail, done), retry=Retry(), batch=batch)
    rig.run()
    assert error.__traceback__ is None
    assert set(done) == {0, 1, 2}


# -- Retry(on=…) with a mind of its own ------------------------------------------------


class _Picky(type):
    def __instancecheck__(cls, error: Any) -> bool:
        return bool(error.status >= 500)


class Passing(Exception, metaclass=_Picky):
    """Errors whose ``status`` says that the server is at fault."""


class StatusError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (503, 3)])
def test_a_class_that_says_what_it_means_is_asked(
    make: Callable[..., Rig], status: int, tries: int
) -> None:
    tried: list[int] = []

    def handler(record: Record) -> None:
        if record.offset == CULPRIT:
            tried.append(record.offset)
            raise StatusError(status)

    rig = make(handler, retry=Retry(attempts=3, on=(Passing,)), then=skip())
    rig.run()
    assert len(tried) == tries


@pytest.mark.parametrize("place", ["plain", "coroutine"])
@pytest.mark.parametrize("then", THEN)
def test_a_class_that_cannot_answer_ends_the_service(
    make: Callable[..., Rig], place: str, then: str
) -> None:
    def fail(offset: int) -> None:
        if offset == CULPRIT:
            raise KeyError("no status")

    handler = PLACES[place](fail, [])
    rig = make(handler, retry=Retry(on=(Passing,)), then=THEN[then])
    rig.run()
    assert "Retry(on=…) could not be asked" in (rig.dispatcher.fatal or "")
    assert rig.position() == CULPRIT
    assert rig.letters == []


# -- faults of ours --------------------------------------------------------------------

FAULTS = {
    "desk": lambda rig: rig.dispatcher._desk,
    "isolation": lambda rig: rig.dispatcher._desk._isolation,
    "tally": lambda rig: rig.tally,
    "board": lambda rig: rig.board,
}


@pytest.mark.parametrize("place", ["plain", "coroutine", "batch", "coroutine batch"])
@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("desk", "finish"),
        ("desk", "take"),
        ("desk", "_go_on"),
        ("isolation", "begin"),
        ("isolation", "end"),
        ("tally", "handled"),
        ("board", "last_done"),
    ],
)
def test_a_fault_of_ours_ends_the_service_and_commits_nothing_unfinished(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, place: str, part: str, method: str
) -> None:
    done: list[int] = []
    batch = Batch(count=3) if "batch" in place else False

    def fail(offset: int) -> None:
        if offset == CULPRIT and part in ("desk", "isolation"):
            raise ValueError("not today")

    rig = make(PLACES[place](fail, done), batch=batch, retry=Retry(first=60.0, limit=60.0))

    def fault(*_: object, **__: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(FAULTS[part](rig), method, fault)
    rig.dispatcher.assigned(fresh(ZERO))
    rig.dispatcher.feed({ZERO: given()})
    over = time.monotonic() + PATIENCE
    while rig.dispatcher.fatal is None:
        assert time.monotonic() < over, "it stands still, in silence"
        time.sleep(0.001)
    monkeypatch.undo()
    assert "AssertionError: a bug" in rig.dispatcher.fatal
    assert rig.dispatcher.wait_idle(PATIENCE), "the drain would wait for a thread that is gone"
    rig.dispatcher.reached({ZERO: len(given())})
    assert rig.position() <= len(done)


@pytest.mark.parametrize("how", ["stop", "exit"])
def test_a_handler_that_ends_the_event_loop_ends_the_service(
    make: Callable[..., Rig], how: str
) -> None:
    async def leave() -> None:
        raise SystemExit(7)

    async def handler(record: Record) -> None:
        if record.offset == CULPRIT:
            loop = asyncio.get_running_loop()
            if how == "stop":
                loop.stop()
            else:
                task = loop.create_task(leave())
                await asyncio.wait([task], timeout=0.01)
                task.exception()

    rig = make(handler)
    rig.run()
    over = time.monotonic() + PATIENCE
    while rig.dispatcher.fatal is None and time.monotonic() < over:
        time.sleep(0.001)
    assert "thread handlers" in (rig.dispatcher.fatal or "")
    assert rig.dispatcher.wait_idle(PATIENCE), "what was in flight comes to its end"


def test_no_policy_is_made_of_a_base_exception() -> None:
    with pytest.raises(ConfigError):
        Retry(on=(KeyboardInterrupt,))  # type: ignore[arg-type]
