from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.budget import RESERVE, RESERVE_SHARE, Budget


@given(st.floats(0.01, 86_400), st.floats(0, 1e6))
def test_the_deadlines_come_in_order_and_the_reserve_is_kept(seconds: float, now: float) -> None:
    budget = Budget.of(seconds, now=now)
    assert now < budget.handlers_by < budget.worker_by < budget.over_at
    assert budget.over_at == now + seconds
    reserve = budget.over_at - budget.handlers_by
    assert reserve <= RESERVE + 1e-6
    assert reserve <= seconds * RESERVE_SHARE + 1e-6
    assert reserve == pytest.approx(min(RESERVE, seconds * RESERVE_SHARE), abs=1e-6)


@pytest.mark.parametrize(
    ("now", "handlers", "worker", "everything"),
    [
        (100.0, 22.0, 24.25, 25.0),
        (122.0, 0.0, 2.25, 3.0),
        (123.0, 0.0, 1.25, 2.0),
        (124.5, 0.0, 0.0, 0.5),
        (200.0, 0.0, 0.0, 0.0),
    ],
)
def test_what_is_left(now: float, handlers: float, worker: float, everything: float) -> None:
    budget = Budget.of(25.0, now=100.0)
    assert budget.handlers_left(now) == pytest.approx(handlers)
    assert budget.worker_left(now) == pytest.approx(worker)
    assert budget.left(now) == pytest.approx(everything)
