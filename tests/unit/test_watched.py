from __future__ import annotations

import threading
import time

import pytest

from penstock.kafka.dead_letters import DeadLetters
from penstock.watched import watched
from tests.unit.making import PATIENCE, make_settings

pytestmark = pytest.mark.usefixtures("no_log")


@pytest.mark.parametrize("error", [None, ValueError("a bug"), SystemExit(3)])
@pytest.mark.parametrize("may_end", [True, False])
def test_an_end_is_told_unless_it_is_its_time(error: BaseException | None, may_end: bool) -> None:
    told: list[tuple[str, BaseException | None]] = []

    def live() -> None:
        if error is not None:
            raise error

    target = watched(live, lambda: may_end, lambda *what: told.append(what))
    thread = threading.Thread(target=target, name="control")
    thread.start()
    thread.join(PATIENCE)
    expected = [] if may_end and error is None else [("control", error)]
    assert told == expected


def test_a_thread_of_dead_letters_that_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, BaseException | None]] = []
    error = AssertionError("a bug")

    def fault(_: DeadLetters) -> None:
        raise error

    monkeypatch.setattr(DeadLetters, "_look", fault)
    letters = DeadLetters(make_settings(), ("orders.dead",), lambda *what: told.append(what))
    letters.start()
    over = time.monotonic() + PATIENCE
    while not told and time.monotonic() < over:
        time.sleep(0.001)
    letters.close(1.0)
    assert told == [("dead-letters", error)]
