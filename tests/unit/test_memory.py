"""The formula of what a service may take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import memory
from penstock.memory import MB, bound, shortfall
from tests.unit.making import make_settings

WORKER = {"buffer_bytes": 64 * MB, "max_poll_records": 500, "fetch_bytes": 8 * MB}


def test_one_worker_and_several() -> None:
    one, three = bound(processes=1, **WORKER), bound(processes=3, **WORKER)
    assert one.worker == (64 + 64 + 40 + 64) * MB + 500_000
    assert one.total == 64 * MB + one.worker
    assert three.total == 64 * MB + 3 * one.worker


def test_the_sentence_adds_up() -> None:
    assert str(bound(processes=2, **WORKER)) == (
        "supervisor 64 + 2 x (base 64 + buffer 64 + fetch 40 + handlers 64) = 529 MB"
    )


def test_of_settings() -> None:
    settings = make_settings(workers=2, buffer_bytes=10 * MB, fetch_bytes=MB, max_poll_records=100)
    found = memory.bound_of(settings, subscriptions=3, handlers=0)
    assert found == bound(
        processes=6, buffer_bytes=10 * MB, max_poll_records=100, fetch_bytes=MB, handlers=0
    )


@pytest.mark.parametrize(
    ("limit", "high", "enough"),
    [
        (None, 0.9, True),
        (296 * MB + 500_000, 0.0, True),  # exactly the total
        (296 * MB + 499_999, 0.0, False),
        (296 * MB + 500_000, 0.9, False),
        (330 * MB, 0.9, True),
    ],
)
def test_a_limit_that_is_too_low_is_told(limit: int | None, high: float, enough: bool) -> None:
    said = shortfall(bound(processes=1, **WORKER), limit, high)
    assert (said is None) == enough, said
    if said is not None:
        assert "PENSTOCK_FETCH_BYTES" in said
        assert ("PENSTOCK_MEMORY_HIGH" in said) == bool(high)
        assert "= 296 MB" in said


@given(st.integers(1, 64 * MB), st.integers(0, 20_000))
def test_the_parts_of_all_partitions_keep_the_whole(fetch_bytes: int, partitions: int) -> None:
    part = memory.share(fetch_bytes, partitions)
    assert part >= 1
    assert part * partitions <= max(fetch_bytes, partitions)
