from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError, HandlerTimeout, Poison, Undecodable
from penstock.failure import failure_of
from penstock.policy import Again, Last, Policy, Retry, Then, dead_letter, decide, skip, stop
from penstock.retry import Backoff

ENDS = [dead_letter("dead"), skip(), stop()]


def policy(then: Last, **retry: Any) -> Policy:
    made = Retry(**retry)
    return Policy(retry=made, then=then, backoff=made.backoff(first=0.5, limit=30.0))


@pytest.mark.parametrize("then", ENDS)
@pytest.mark.parametrize(
    ("retry", "error", "attempts", "spared", "again"),
    [
        ({}, ValueError(), 1, False, True),
        ({}, ValueError(), 10**6, False, True),  # for ever
        ({"attempts": 1}, ValueError(), 1, False, False),
        ({"attempts": 3}, ValueError(), 2, False, True),
        ({"attempts": 3}, ValueError(), 3, False, False),
        ({"attempts": 3}, ValueError(), 4, False, False),
        ({"attempts": 3}, ValueError(), 3, True, True),  # the breaker is open
        ({"attempts": 3}, HandlerTimeout(), 2, False, True),
        ({"attempts": 3}, HandlerTimeout(), 3, False, False),
        ({"on": (OSError, KeyError)}, KeyError(), 1, False, True),
        ({"on": (OSError, KeyError)}, ConnectionError(), 1, False, True),  # a kind of OSError
        ({"on": (OSError, KeyError)}, ValueError(), 1, False, False),
        ({"on": (OSError, KeyError)}, ValueError(), 1, True, False),
        ({"on": TimeoutError}, HandlerTimeout(), 1, False, True),
        ({"on": ()}, ValueError(), 1, False, False),
        ({}, Poison("never"), 1, False, False),
        ({}, Poison("never"), 1, True, False),
        ({}, Undecodable("not an Order"), 1, False, False),
        ({"on": (Poison,)}, Poison("never"), 1, False, False),
    ],
)
def test_what_becomes_of_a_failure(
    then: Last, retry: dict[str, Any], error: Exception, attempts: int, spared: bool, again: bool
) -> None:
    made = policy(then, **retry)
    failure = failure_of(error, made.retry.on)
    verdict = decide(made, failure, attempts, lambda: 0.0, spared=spared)
    if again:
        assert isinstance(verdict, Again)
    else:
        assert verdict == then


@given(
    st.integers(1, 2_000),
    st.floats(0.001, 100),
    st.floats(1, 1_000),
    st.floats(0, 1, exclude_max=True),
    st.booleans(),
)
def test_delays_double_up_to_the_limit_each_up_to_a_fifth_shorter(
    attempts: int, first: float, times: float, chance: float, spared: bool
) -> None:
    made = policy(stop(), first=first, limit=first * times)
    failure = failure_of(ValueError(), made.retry.on)
    verdict = decide(made, failure, attempts, lambda: chance, spared=spared)
    assert isinstance(verdict, Again)
    full = min(first * times, first * 2.0 ** min(attempts - 1, 1_000))
    assert verdict.delay == pytest.approx(full * (1 - 0.2 * chance))


@pytest.mark.parametrize(
    ("code", "settings", "schedule"),
    [
        ({}, (0.5, 30.0), (0.5, 30.0)),
        ({"first": 2.0}, (0.5, 30.0), (2.0, 30.0)),
        ({"limit": 8.0}, (0.5, 30.0), (0.5, 8.0)),
        ({"first": 2.0, "limit": 8.0}, (0.5, 30.0), (2.0, 8.0)),
        # What the code says holds, and the settings' part gives way to it.
        ({"first": 60.0}, (0.5, 30.0), (60.0, 60.0)),
        ({"limit": 0.1}, (0.5, 30.0), (0.1, 0.1)),
    ],
)
def test_the_settings_fill_in_what_the_code_leaves_open(
    code: dict[str, float], settings: tuple[float, float], schedule: tuple[float, float]
) -> None:
    made = Retry(**code).backoff(first=settings[0], limit=settings[1])  # type: ignore[arg-type]
    assert made == Backoff(first=schedule[0], limit=schedule[1])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"attempts": 0}, "attempts=0.*at least 1, the first try; None is for ever"),
        ({"attempts": -1}, "attempts=-1"),
        ({"first": 0}, "first=0"),
        ({"first": -1.0}, "first=-1.0"),
        ({"limit": math.inf}, "limit=inf"),
        ({"limit": math.nan}, "limit=nan"),
        ({"first": 9.0, "limit": 8.0}, "first is longer"),
        ({"on": (ValueError, "KeyError")}, r"on='KeyError'\): exception classes"),
        ({"on": (ValueError(),)}, "on=ValueError"),
        ({"on": (KeyboardInterrupt,)}, "KeyboardInterrupt"),  # ends the service, always
        ({"on": int}, "on=<class 'int'>"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Retry(**values)


def test_one_exception_needs_no_tuple() -> None:
    assert Retry(on=OSError) == Retry(on=(OSError,))  # type: ignore[arg-type]


def test_a_dead_letter_needs_a_topic() -> None:
    assert dead_letter("orders.dead") == Last(Then.DEAD_LETTER, "orders.dead")
    with pytest.raises(ConfigError, match="name the topic"):
        dead_letter("")
