from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.breaker import Breaker, BreakerState, Circuit
from penstock.errors import ConfigError

CLOSED, OPEN, PROBING = BreakerState


def circuit(**values: float) -> Circuit:
    return Circuit(Breaker(**{"share": 0.5, "window": 4, "pause": 10, "limit": 35, **values}))  # type: ignore[arg-type]


def feed(it: Circuit, outcomes: str, now: float = 0) -> BreakerState:
    for outcome in outcomes:
        it.finished(now, ok=outcome == ".")
    return it.state


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("", CLOSED),
        ("xxx", CLOSED),  # fewer than the window say nothing
        ("xxxx", OPEN),
        ("..xx", OPEN),
        ("...x", CLOSED),
        ("x...x", CLOSED),  # the first has left the window
        ("x..xx", OPEN),
        ("xx....xx", OPEN),
        ("x" * 3 + "." * 20 + "x", CLOSED),
    ],
)
def test_when_it_opens(outcomes: str, state: BreakerState) -> None:
    it = circuit()
    if outcomes.startswith("xxx."):
        it = circuit(share=1.0)
    assert feed(it, outcomes) is state
    assert it.opened == (state is OPEN)


def test_one_probe_at_a_time() -> None:
    it = circuit()
    feed(it, "xxxx", now=100)
    assert not it.may_start(109.9)
    assert it.again_at() == 110
    assert it.may_start(110)
    assert it.state is PROBING
    assert not it.may_start(110)
    it.finished(111, ok=True, probe=True)
    assert (it.state, it.again_at()) == (CLOSED, None)
    assert it.may_start(111)
    assert it.may_start(111)
    assert feed(it, "xxx") is CLOSED  # it starts from nothing


def test_each_failed_probe_makes_the_pause_longer_up_to_the_limit() -> None:
    it = circuit()
    feed(it, "xxxx", now=0)
    now, pauses = 0.0, []
    for _ in range(4):
        at = it.again_at()
        assert at is not None
        pauses.append(at - now)
        now = at
        assert it.may_start(now)
        it.finished(now, ok=False, probe=True)
    assert pauses == [10, 20, 35, 35]
    at = it.again_at()
    assert at is not None
    assert it.may_start(at)
    it.finished(at, ok=True, probe=True)
    feed(it, "xxxx", now=at)
    assert it.again_at() == at + 10  # and a good one makes it short again


def test_stragglers_do_not_move_it() -> None:
    it = circuit()
    feed(it, "xxxx", now=0)
    feed(it, "....xxxx", now=5)
    assert it.again_at() == 10
    assert it.opened == 1


def test_only_the_probe_decides_while_probing() -> None:
    """What was started before it opened may end while the probe runs."""
    it = circuit()
    feed(it, "xxxx", now=0)
    assert it.may_start(10)
    assert feed(it, "....xxxx", now=11) is PROBING
    assert not it.may_start(11)
    it.finished(12, ok=False, probe=True)
    assert (it.state, it.again_at()) == (OPEN, 32)
    it.finished(13, ok=True, probe=True)  # one that was overtaken: it is open already
    assert it.state is OPEN


def test_a_probe_that_never_ran_frees_its_place() -> None:
    it = circuit()
    feed(it, "xxxx", now=0)
    assert it.may_start(10)
    it.probe_abandoned()
    assert it.may_start(11)


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 20), st.floats(0.05, 1))
def test_it_opens_exactly_when_the_window_says_so(
    outcomes: list[bool], window: int, share: float
) -> None:
    it = Circuit(Breaker(share=share, window=window))
    for n, ok in enumerate(outcomes, 1):
        it.finished(0, ok=ok)
        last = outcomes[max(0, n - window) : n]
        bad = len(last) == window and last.count(False) >= share * window
        assert (it.state is OPEN) == bad
        if bad:
            break


@pytest.mark.parametrize(
    "values", [{"share": 0}, {"share": 1.1}, {"window": 0}, {"pause": 0}, {"pause": 9, "limit": 8}]
)
def test_what_makes_no_sense_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values)).split("=")[0]):
        Breaker(**values)  # type: ignore[arg-type]
