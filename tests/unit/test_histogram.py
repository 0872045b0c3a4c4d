from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.telemetry.histogram import Histogram

BOUNDS = (0.1, 1.0, 10.0)
INF = math.inf

#: A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

durations = st.lists(st.floats(0, 100, allow_nan=False))


def of(values: list[float]) -> Histogram:
    histogram = Histogram(BOUNDS)
    histogram.observe_many(values)
    return histogram


@pytest.mark.parametrize(
    ("value", "buckets"),
    [
        (0, [1, 1, 1, 1]),
        (0.1, [1, 1, 1, 1]),  # an upper bound belongs to its bucket ("le")
        (0.100001, [0, 1, 1, 1]),
        (10, [0, 0, 1, 1]),
        (11, [0, 0, 0, 1]),
        (-5, [1, 1, 1, 1]),  # a clock that stepped back
    ],
)
def test_a_value_counts_in_its_bucket_and_all_above(value: float, buckets: list[int]) -> None:
    histogram = Histogram(BOUNDS)
    histogram.observe(value)
    assert [n for _, n in histogram.cumulative()] == buckets
    assert [bound for bound, _ in histogram.cumulative()] == [*BOUNDS, INF]
    assert histogram.sum == max(value, 0)


@patient
@given(st.lists(st.floats(-10, 100) | st.just(math.nan) | st.just(INF) | st.just(-INF)))
def test_buckets_agree_with_counting_by_hand(values: list[float]) -> None:
    finite = [max(value, 0) for value in values if math.isfinite(value)]
    histogram = of(values)
    assert histogram.count == len(finite)
    assert histogram.sum == pytest.approx(sum(finite))
    for bound, count in histogram.cumulative():
        assert count == sum(value <= bound for value in finite)


@patient
@given(durations, durations)
def test_merging_is_counting_together(left: list[float], right: list[float]) -> None:
    merged = of(left)
    merged.merge(of(right))
    both = of(left + right)
    assert merged.cumulative() == both.cumulative()
    assert merged.sum == pytest.approx(both.sum)


@patient
@given(durations)
def test_survives_json(values: list[float]) -> None:
    histogram = of(values)
    assert Histogram.from_json(json.loads(json.dumps(histogram.to_json()))) == histogram


@patient
@given(durations)
def test_a_copy_is_independent(values: list[float]) -> None:
    original = of(values)
    twin = original.copy()
    assert twin == original
    twin.observe(1)
    assert twin.count == original.count + 1


@patient
@given(durations, st.lists(st.floats(0.001, 1000), min_size=1, unique=True).map(sorted))
def test_other_bounds_keep_count_and_sum_and_never_shorten(
    values: list[float], bounds: list[float]
) -> None:
    old = of(values)
    new = old.rebucketed(bounds)
    assert (new.count, new.sum) == (old.count, old.sum)
    for bound, count in new.cumulative():
        assert count <= sum(value <= bound for value in values) or bound == INF


def test_bounds_that_differ_do_not_merge() -> None:
    with pytest.raises(ValueError, match="bounds"):
        Histogram(BOUNDS).merge(Histogram((1, 2)))


@pytest.mark.parametrize("bounds", [(), (1, 1), (2, 1), (1, INF), (math.nan,)])
def test_bounds_must_ascend_and_be_finite(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="bounds"):
        Histogram(bounds)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "x",
        {},
        {"bounds": [1], "counts": [1, 2], "sum": "x"},
        {"bounds": [1], "counts": [1], "sum": 0},
        {"bounds": [1], "counts": [1, -2], "sum": 0},
        {"bounds": [1], "counts": [1, True], "sum": 0},
        {"bounds": [1], "counts": [1, 1.5], "sum": 0},
        {"bounds": [1], "counts": 3, "sum": 0},
        {"bounds": [1], "counts": [1, 1], "sum": -1},
        {"bounds": [1], "counts": [1, 1], "sum": math.nan},
        {"bounds": ["a"], "counts": [1, 1], "sum": 0},
        {"bounds": [10**400], "counts": [1, 1], "sum": 0},
    ],
)
def test_garbage_is_refused(data: object) -> None:
    with pytest.raises(ValueError):
        Histogram.from_json(data)
