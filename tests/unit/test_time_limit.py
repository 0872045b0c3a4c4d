"""The time limit of plain functions, with real threads."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from penstock.errors import HandlerTimeout
from penstock.worker import time_limit
from penstock.worker.time_limit import TimeLimit, _Expired
from tests.unit.making import PATIENCE


@pytest.fixture
def limit() -> Iterator[Callable[[float], TimeLimit]]:
    made: list[TimeLimit] = []

    def make(seconds: float) -> TimeLimit:
        made.append(TimeLimit(seconds, lambda *_: None))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.end()
        assert not each._thread.is_alive()


Make = Callable[[float], TimeLimit]


def spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def test_what_is_quick_is_let_alone(limit: Make) -> None:
    around = limit(60.0).around
    assert around(lambda n: n + 1)(3) == 4
    with pytest.raises(ZeroDivisionError):
        around(lambda n: n / 0)(3)


def test_what_takes_too_long_is_ended_where_it_is(limit: Make) -> None:
    passed: list[str] = []

    @contextlib.contextmanager
    def noted() -> Iterator[None]:
        try:
            yield
        finally:
            passed.append("with")

    def handler(_: object) -> None:
        try:
            with noted():
                try:
                    spin(PATIENCE)
                except Exception:  # what handlers do
                    passed.append("caught")
        finally:
            passed.append("finally")
        passed.append("the end")

    before = time.monotonic()
    with pytest.raises(HandlerTimeout, match=r"^took longer than 0\.05 s$") as caught:
        limit(0.05).around(handler)(None)
    assert 0.05 <= time.monotonic() - before < PATIENCE
    assert passed == ["with", "finally"]
    assert caught.value.__cause__ is None


def test_each_call_has_its_own_time(limit: Make) -> None:
    """Several, one after another, that together take longer than one may."""
    limited = limit(0.5).around(lambda _: spin(0.05))
    before = time.monotonic()
    while time.monotonic() - before < 0.8:
        limited(None)


def test_the_other_threads_are_let_alone(limit: Make) -> None:
    limited = limit(0.5).around(lambda call: call())
    ended, told = threading.Event(), list[object]()

    def long() -> None:
        try:
            limited(many_naps)
        except HandlerTimeout as error:
            told.append(error)
        finally:
            ended.set()

    def many_naps() -> None:
        for _ in range(1_000):
            short_nap()

    def short_nap() -> None:
        time.sleep(0.001)

    def short() -> None:
        while not ended.is_set():
            limited(short_nap)
        told.append("let alone")

    threads = [threading.Thread(target=each) for each in (long, short, short)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert [str(t) for t in told if t != "let alone"] == ["took longer than 0.5 s"]
    assert told.count("let alone") == 2


def test_a_call_that_does_not_return_is_reached_afterwards(limit: Make) -> None:
    """Not within C code, but at the first bytecode after it."""
    seen: list[str] = []

    def handler(_: object) -> None:
        threading.Event().wait(0.3)  # one C call
        seen.append("came back")

    before = time.monotonic()
    with pytest.raises(HandlerTimeout):
        limit(0.02).around(handler)(None)
    assert time.monotonic() - before >= 0.3
    assert seen == []


def test_a_failure_of_its_own_is_not_hidden(limit: Make) -> None:
    """A limit that comes while the handler's own error is on its way out."""

    def handler(_: object) -> None:
        try:
            spin(PATIENCE)
        finally:
            raise KeyError("cleaning up")

    with pytest.raises(KeyError, match="cleaning up"):
        limit(0.02).around(handler)(None)


@pytest.fixture
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.00001)
    yield
    sys.setswitchinterval(before)


class SlowHand:
    """``ctypes`` for a watching thread that loses the processor just before and after its shot.

    The race is a few microseconds wide otherwise; this does not change its order.
    """

    c_ulong, py_object = ctypes.c_ulong, ctypes.py_object

    def __init__(self) -> None:
        self.pythonapi = self
        self._random = Random(0)

    def PyThreadState_SetAsyncExc(self, thread: Any, error: Any) -> None:  # noqa: N802 (its name)
        if error is not None:
            time.sleep(self._random.uniform(0, 0.002))
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)
        if error is not None:
            time.sleep(self._random.uniform(0, 0.002))


@pytest.mark.usefixtures("switching_often")
@pytest.mark.parametrize("slow", [False, True])
def test_it_never_strikes_outside_the_handler(
    limit: Make, monkeypatch: pytest.MonkeyPatch, *, slow: bool
) -> None:
    """Calls that end just when their time is up, for a second, in several threads.

    Whatever is raised must come out of the call, as HandlerTimeout, once: between two calls,
    where a runner counts and gives its job back, nothing may strike.
    """
    if slow:
        monkeypatch.setattr(time_limit, "ctypes", SlowHand())
    seconds = 0.004

    def handler(duration: float) -> str:
        spin(duration)
        return "done"

    limited = limit(seconds).around(handler)
    over = time.monotonic() + 1.0
    counts: Counter[str] = Counter()
    astray: list[BaseException] = []

    def work(seed: int) -> None:
        random, mine = Random(seed), Counter[str]()
        try:
            while time.monotonic() < over:
                try:
                    result: Any = limited(seconds + random.uniform(-0.0005, 0.002))
                except HandlerTimeout:
                    mine["timeout"] += 1
                else:
                    mine[str(result)] += 1
                spin(0.0005)  # what is outside
                mine["outside"] += 1
        except BaseException as error:
            astray.append(error)
        counts.update(mine)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert astray == []
    assert counts["timeout"] > 5
    assert counts["done"] > 5
    assert counts["outside"] == counts["timeout"] + counts["done"]


def test_a_call_is_not_watched_before_it_can_be_ended(
    limit: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is stopped for longer than the limit, just before the handler begins."""
    watching = limit(0.02)
    given = watching._calls

    class Late(dict[int, Any]):
        def __setitem__(self, thread: int, call: Any) -> None:
            super().__setitem__(thread, call)
            spin(0.2)

    monkeypatch.setattr(watching, "_calls", Late(given))
    with pytest.raises(HandlerTimeout):
        watching.around(lambda _: None)(None)


def test_it_is_no_exception_that_handlers_catch() -> None:
    assert not issubclass(_Expired, Exception)
    assert issubclass(HandlerTimeout, TimeoutError)
