from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.retry import Backoff

seconds = st.floats(0.001, 1e6)
backoffs = st.builds(
    lambda first, more, factor, jitter: Backoff(first, first + more, factor, jitter),
    seconds,
    st.floats(0, 1e6),
    st.floats(1, 10),
    st.floats(0, 1),
)


def test_the_schedule() -> None:
    backoff = Backoff(first=0.5, limit=30.0, factor=2.0, jitter=0.2)
    assert [backoff.delay(n, lambda: 0.0) for n in range(1, 9)] == [
        0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0,
    ]  # fmt: skip
    assert backoff.delay(3, lambda: 0.5) == pytest.approx(2.0 * 0.9)


@given(backoffs, st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_delay_keeps_its_promises(backoff: Backoff, attempt: int, chance: float) -> None:
    full = backoff.delay(attempt, lambda: 0.0)
    assert backoff.first * (1 - 1e-9) <= full <= backoff.limit
    assert backoff.delay(attempt + 1, lambda: 0.0) >= full
    shortened = backoff.delay(attempt, lambda: chance)
    assert full * (1 - backoff.jitter) * (1 - 1e-9) <= shortened <= full


def test_it_does_not_overflow() -> None:
    assert Backoff(1.0, 5.0).delay(10**9, lambda: 0.0) == 5.0


@pytest.mark.parametrize(
    "values",
    [
        {"first": 0.0},
        {"first": -1.0},
        {"first": 2.0, "limit": 1.0},
        {"factor": 0.9},
        {"jitter": -0.1},
        {"jitter": 1.1},
    ],
)
def test_impossible_schedules_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Backoff(**values)


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempts_count_from_one(attempt: int) -> None:
    with pytest.raises(ValueError, match="attempts count from 1"):
        Backoff().delay(attempt, lambda: 0.0)
