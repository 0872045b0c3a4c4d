from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from penstock.errors import AuthenticationFailed
from penstock.kafka.port import Engine
from penstock.retry import Backoff
from penstock.worker import connect
from penstock.worker.connect import Connector
from tests.unit.making import PATIENCE

pytestmark = pytest.mark.usefixtures("no_log")

ENGINE = cast(Engine, object())


class Broker:
    """Answers the tries one after another: an engine, or an error to raise."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.tried: list[float] = []
        self.timeouts: list[float] = []

    def __call__(self, _rebalance: Any, timeout: float) -> Engine:
        self.tried.append(time.monotonic())
        self.timeouts.append(timeout)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return cast(Engine, answer)


def connector(ask: Callable[[Any, float], Engine]) -> Connector:
    return Connector(ask, cast(Any, None))


def test_the_first_answer() -> None:
    made = connector(Broker(ENGINE))
    assert made.connect(threading.Event(), lambda: False) is ENGINE
    assert made.failure is None


def test_it_tries_until_a_broker_answers_and_waits_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connect, "_BACKOFF", Backoff(0.04, 0.04, jitter=0.0))
    broker = Broker(*[TimeoutError("nobody")] * 5, ENGINE)
    assert connector(broker).connect(threading.Event(), lambda: False) is ENGINE
    gaps = [b - a for a, b in zip(broker.tried, broker.tried[1:], strict=False)]
    # The thread of a try may ring once more after its answer was read; never each time.
    assert sum(gap >= 0.035 for gap in gaps) >= 3, gaps
    assert broker.timeouts == [3.0, 6.0, 12.0, 24.0, 30.0, 30.0]


def test_a_no_for_good_ends_it() -> None:
    refusal = AuthenticationFailed("wrong password")
    made = connector(Broker(refusal))
    assert made.connect(threading.Event(), lambda: False) is None
    assert made.failure is refusal


@pytest.mark.parametrize("hangs", [True, False])
def test_leaving_waits_neither_for_a_try_nor_for_a_delay(
    monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(connect, "_BACKOFF", Backoff(60.0, 60.0))
    wake, go, asked = threading.Event(), threading.Event(), threading.Event()
    left: list[str] = []

    def ask(_rebalance: Any, _timeout: float) -> Engine:
        asked.set()
        if hangs:
            go.wait(PATIENCE * 4)
        raise TimeoutError("nobody")

    def leave() -> None:
        asked.wait(PATIENCE)
        left.append("now")
        wake.set()

    thread = threading.Thread(target=leave)
    thread.start()
    before = time.monotonic()
    made = connector(ask)
    assert made.connect(wake, lambda: bool(left)) is None
    assert made.failure is None
    assert time.monotonic() - before < PATIENCE
    go.set()
    thread.join()
