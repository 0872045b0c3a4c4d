from __future__ import annotations

from typing import Any

import pytest

from penstock.board import Working
from penstock.lifecycle import State
from penstock.supervisor.health import WorkerHealth, live, ready, started

NOW = 1000.0


def worker(
    index: int = 0,
    *,
    joined: bool = True,
    polled: float | None = 1.0,
    held: float | None = None,
    excused: bool = False,
) -> WorkerHealth:
    """``polled`` and ``held`` are ages in seconds."""
    working = [] if held is None else [Working(0, "orders", 3, 42, 1, None, NOW - held, 42)]
    at = None if polled is None else NOW - polled
    return WorkerHealth(index, joined, at, working, excused)


def check(*workers: WorkerHealth, gone: str | None = None) -> tuple[bool, tuple[str, ...]]:
    verdict = live(workers, now=NOW, handler_timeout=300, poll_stall_timeout=60, gone=gone)
    return verdict.ok, verdict.reasons


@pytest.mark.parametrize(
    ("given", "ok"),
    [
        ({}, True),
        ({"joined": False}, True),  # a broker away, a rebalance
        ({"polled": None}, True),  # still connecting
        ({"polled": 60.0}, True),
        ({"polled": 60.1}, False),
        ({"polled": 600.0, "excused": True}, True),  # draining owes no polls
        ({"held": 300.0}, True),
        ({"held": 300.1}, False),
        ({"held": 900.0, "excused": True}, True),  # the drain has a deadline of its own
        ({"polled": None, "held": 301.0}, False),
    ],
)
def test_liveness_of_one_worker(given: dict[str, Any], ok: bool) -> None:
    assert check(worker(**given))[0] is ok
    assert check(worker(1), worker(**given))[0] is ok


def test_liveness_tells_every_reason() -> None:
    ok, reasons = check(worker(2, polled=75.0, held=301.0), gone="worker 1 died")
    assert not ok
    assert reasons == (
        "worker 1 died",
        (
            "worker 2: orders[3]@42 has been in its handler for 301 s "
            "(PENSTOCK_HANDLER_TIMEOUT is 300)"
        ),
        "worker 2: the poll loop has stood still for 75 s (PENSTOCK_POLL_STALL_TIMEOUT is 60)",
    )


def test_no_workers_are_alive() -> None:
    assert check() == (True, ())


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize(
    ("given", "in_group"),
    [
        ({}, True),
        ({"joined": False}, False),
        ({"polled": None}, False),
        ({"polled": 1000.0, "held": 1000.0}, True),  # that is liveness' affair
        ({"joined": False, "excused": True}, True),
    ],
)
def test_readiness(state: State, given: dict[str, Any], in_group: bool) -> None:
    verdict = ready(state, [worker(0), worker(1, **given)])
    assert verdict.ok == (state is State.RUNNING and in_group)
    assert verdict.ok == (not verdict.reasons)
    assert any("worker 1 has not joined" in r for r in verdict.reasons) == (not in_group)
    assert (f"the service is {state}" in verdict.reasons) == (state is not State.RUNNING)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("joined", [True, False])
def test_start_up_is_for_the_first_time_only(before: bool, joined: bool) -> None:
    verdict = started([worker(joined=joined)], before=before)
    assert verdict.ok == (before or joined)
