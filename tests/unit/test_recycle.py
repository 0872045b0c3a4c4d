"""Which worker is replaced before memory runs out, and when nothing is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cgroup import Reading
from penstock.memory import MB
from penstock.supervisor.recycle import LITTLE, Futile, Recycle, Recycler, Weight

LIMIT = 1_000 * MB
INTERVAL = 180.0
OLD = 10_000.0


def at(share: float, limit: int | None = LIMIT) -> Reading:
    return Reading(limit, int(share * (limit or LIMIT)))


def weight(index: int, megabytes: int, age: float = OLD) -> Weight:
    return Weight(index, megabytes * MB, age)


@pytest.fixture
def recycler() -> Recycler:
    return Recycler(0.9, INTERVAL)


@pytest.mark.parametrize(
    ("high", "reading", "reached"),
    [
        (0.9, at(0.89), False),
        (0.9, at(0.9), True),
        (0.9, at(1.2), True),
        (0.9, at(0.9, limit=None), False),  # no limit: nothing to come near to
        (0.9, None, False),
        (0.0, at(1.0), False),  # switched off
        (1.0, at(0.99), False),
    ],
)
def test_the_mark(high: float, reading: Reading | None, reached: bool) -> None:
    assert Recycler(high, INTERVAL).reached(reading) == reached


def test_the_largest_goes(recycler: Recycler) -> None:
    workers = [weight(0, 200), weight(1, 400), weight(2, 300)]
    assert recycler.decide(workers, 0.0) == Recycle(workers[1])
    assert recycler.decide([], 0.0) is None


def test_not_more_often_than_the_interval(recycler: Recycler) -> None:
    workers = [weight(0, 400), weight(1, 300)]
    assert isinstance(recycler.decide(workers, 100.0), Recycle)
    # What could not be begun does not count: it is asked for again.
    assert isinstance(recycler.decide(workers, 101.0), Recycle)
    recycler.begun(101.0)
    assert recycler.decide(workers, 101.0 + INTERVAL - 0.1) is None
    assert isinstance(recycler.decide(workers, 101.0 + INTERVAL), Recycle)


def test_a_fresh_worker_that_is_as_large_is_told_once(recycler: Recycler) -> None:
    young = [weight(0, 400, age=INTERVAL / 2 - 1), weight(1, 300)]
    assert recycler.reached(at(0.95))
    said = recycler.decide(young, 0.0)
    assert isinstance(said, Futile)
    assert "worker 0 is the largest with 400 MB though it started 89 s ago" in said.why
    assert not recycler.reached(at(0.95)), "said once"
    assert not recycler.reached(at(0.82)), "not far enough below"
    assert not recycler.reached(at(0.95))
    assert not recycler.reached(at(0.80))  # well below: forgotten
    assert recycler.reached(at(0.95))


def test_one_that_took_its_time_to_fill_is_replaced_when_the_interval_is_over(
    recycler: Recycler,
) -> None:
    recycler.begun(0.0)
    assert recycler.decide([weight(0, 400, age=INTERVAL * 0.7)], INTERVAL * 0.7) is None
    assert isinstance(recycler.decide([weight(0, 400, age=INTERVAL)], INTERVAL), Recycle)


def test_nothing_is_replaced_for_what_others_hold(recycler: Recycler) -> None:
    said = recycler.decide([Weight(0, LITTLE - 1, OLD), Weight(1, LITTLE - 2, OLD)], 0.0)
    assert isinstance(said, Futile)
    assert "something else fills the memory" in said.why


weights = st.lists(
    st.builds(Weight, st.integers(0, 9), st.integers(0, 2_000 * MB), st.floats(0, 1_000)),
    max_size=4,
)


@given(st.lists(st.tuples(st.floats(0.0, 1.3), weights, st.floats(0, 120)), max_size=60))
def test_whatever_happens(history: list[tuple[float, list[Weight], float]]) -> None:
    """Never two within the interval, never a young one, never one with nothing to give back."""
    recycler = Recycler(0.9, INTERVAL)
    now, begun, said = 0.0, list[float](), 0
    for share, workers, passed in history:
        now += passed
        if share < 0.81:
            said = 0
        if not recycler.reached(at(share)):
            assert share < 0.9 or said
            continue
        found = recycler.decide(workers, now)
        if isinstance(found, Futile):
            said += 1
        assert said <= 1
        if isinstance(found, Recycle):
            assert found.worker.private == max(w.private for w in workers) >= LITTLE
            assert found.worker.age >= INTERVAL / 2
            assert not begun or now - begun[-1] >= INTERVAL
            recycler.begun(now)
            begun.append(now)
