from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.batching import Batch, size_of
from penstock.errors import ConfigError
from penstock.record import Record


def sized(*sizes: int) -> list[Record]:
    """Records whose keys and values have these bytes together."""
    return [
        Record("orders", 0, n, 0, b"k" * (size // 2) or None, b"v" * (size - size // 2) or None, ())
        for n, size in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    ("count", "limit", "sizes", "taken", "full"),
    [
        (3, 100, [], 0, False),
        (3, 100, [10], 1, False),
        (3, 100, [10, 10, 10], 3, True),
        (3, 100, [10] * 9, 3, True),
        (1, 100, [0], 1, True),
        (9, 100, [50, 49], 2, False),
        (9, 100, [50, 50], 2, True),
        (9, 100, [50, 51], 1, True),  # the next would be too much: no need to wait
        (9, 100, [50, 51, 1], 1, True),
        (9, 100, [500], 1, True),  # larger by itself
        (9, 100, [500, 1], 1, True),
        (9, 100, [0, 500], 1, True),
        (9, 1, [0, 0, 0], 3, False),  # tombstones without a key hold nothing
    ],
)
def test_the_next_batch(count: int, limit: int, sizes: list[int], taken: int, full: bool) -> None:
    assert Batch(count=count, bytes=limit).take(deque(sized(*sizes))) == (taken, full)


@given(st.integers(1, 8), st.integers(1, 60), st.lists(st.integers(0, 40), max_size=20))
def test_it_is_the_longest_that_keeps_the_bounds(count: int, limit: int, sizes: list[int]) -> None:
    waiting = sized(*sizes)
    taken, full = Batch(count=count, bytes=limit).take(waiting)
    keeps = [n for n in range(len(sizes) + 1) if n <= count and (n <= 1 or sum(sizes[:n]) <= limit)]
    # Not the longest of all: records do not overtake each other.
    assert taken == max(n for n in keeps if all(m in keeps for m in range(n)))
    assert taken or not waiting, "it would never get on"
    if taken < len(waiting):
        assert full, "there is more than it may take, and it would wait"
    assert full == (taken == count or sum(sizes[:taken]) >= limit or taken < len(waiting))


@given(st.integers(1, 8), st.integers(1, 60), st.lists(st.integers(0, 40), max_size=12))
def test_a_full_batch_stays_full_when_more_comes(count: int, limit: int, sizes: list[int]) -> None:
    batch = Batch(count=count, bytes=limit)
    for n in range(len(sizes)):
        taken, full = batch.take(sized(*sizes[:n]))
        if full:
            again, still = batch.take(sized(*sizes))
            assert still
            # A tombstone without a key holds nothing, so it may still join.
            assert again == taken or not sum(sizes[taken:again])


def test_what_a_record_holds() -> None:
    [record] = sized(7)
    assert size_of(record) == 7
    assert size_of(record._replace(key=None, value=None)) == 0


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"count": 0}, r"Batch\(count=0\): a whole number"),
        ({"bytes": 0}, r"Batch\(bytes=0\): a whole number"),
        ({"wait": -0.1}, "seconds, 0 or more"),
        ({"wait": math.nan}, "seconds, 0 or more"),
        ({"wait": math.inf}, "seconds, 0 or more"),
    ],
)
def test_bounds_that_no_batch_can_keep(values: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Batch(**values)  # type: ignore[arg-type]
