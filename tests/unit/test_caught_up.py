from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.caught_up import CaughtUp
from penstock.record import Partition
from tests.unit.making import orders

ZERO, ONE = orders(0), orders(1)


def look(
    caught: CaughtUp,
    now: float,
    finished: dict[Partition, int],
    ends: dict[Partition, int],
    *,
    owned: tuple[Partition, ...] = (ZERO, ONE),
    stable: bool = True,
) -> bool:
    return caught.look(now, stable=stable, assignment=owned, finished=finished, ends=ends)


@pytest.mark.parametrize(
    ("finished", "ends", "over"),
    [
        ({ZERO: 5, ONE: 0}, {ZERO: 5, ONE: 0}, True),
        ({ZERO: 4, ONE: 0}, {ZERO: 5, ONE: 0}, False),
        ({ZERO: 5}, {ZERO: 5, ONE: 0}, False),  # where ONE stands is not known
        ({ZERO: 5, ONE: 0}, {ZERO: 5}, False),  # where ONE ends is not known
        ({}, {}, False),
    ],
)
def test_when_a_run_is_over(
    finished: dict[Partition, int], ends: dict[Partition, int], over: bool
) -> None:
    caught = CaughtUp(settle=0)
    assert look(caught, 0, finished, ends) is over


def test_what_is_produced_later_is_the_next_runs() -> None:
    caught = CaughtUp(settle=0)
    assert not look(caught, 0, {ZERO: 0, ONE: 0}, {ZERO: 5, ONE: 0})
    assert not look(caught, 1, {ZERO: 4, ONE: 0}, {ZERO: 50, ONE: 60})
    assert look(caught, 2, {ZERO: 5, ONE: 0}, {ZERO: 500, ONE: 600})


def test_an_assignment_counts_once_it_has_lasted() -> None:
    caught = CaughtUp(settle=6)
    assert not look(caught, 0, {}, {}, owned=())  # just joined: the others still own it all
    assert not look(caught, 5, {ZERO: 0}, {ZERO: 3}, owned=(ZERO,))
    assert not look(caught, 10, {ZERO: 3}, {ZERO: 3}, owned=(ZERO,))
    assert look(caught, 11, {ZERO: 3}, {ZERO: 3}, owned=(ZERO,))
    # Nobody needs this one: nothing to do is done.
    idle = CaughtUp(settle=6)
    assert not look(idle, 0, {}, {}, owned=())
    assert look(idle, 6, {}, {}, owned=())


def test_a_rebalance_starts_the_wait_again() -> None:
    caught = CaughtUp(settle=6)
    where = {ZERO: 0, ONE: 0}
    assert not look(caught, 0, where, where)
    assert not look(caught, 7, where, where, stable=False)
    assert not look(caught, 8, where, where)
    assert look(caught, 14, where, where)


def test_a_partition_that_comes_back_has_a_new_end() -> None:
    caught = CaughtUp(settle=0)
    assert not look(caught, 0, {ZERO: 0}, {ZERO: 5}, owned=(ZERO,))
    look(caught, 1, {}, {}, owned=())
    assert not look(caught, 2, {ZERO: 5}, {ZERO: 9}, owned=(ZERO,))
    assert look(caught, 3, {ZERO: 9}, {ZERO: 12}, owned=(ZERO,))


def test_who_is_done_and_is_given_what_another_left_is_not_done() -> None:
    caught = CaughtUp(settle=6)
    assert not look(caught, 0, {ZERO: 3}, {ZERO: 3}, owned=(ZERO,))
    assert look(caught, 6, {ZERO: 3}, {ZERO: 3}, owned=(ZERO,))
    left = {ZERO: 3, ONE: 2}, {ZERO: 8, ONE: 7}
    assert not look(caught, 7, {ZERO: 3}, {ZERO: 8})  # where ONE stands is not known yet
    assert not look(caught, 8, *left)
    assert not look(caught, 20, *left)  # however long it takes
    assert look(caught, 21, {ZERO: 3, ONE: 7}, {ZERO: 9, ONE: 9})


LOOKS = st.tuples(
    st.booleans(),
    st.frozensets(st.integers(0, 2)),
    st.dictionaries(st.integers(0, 2), st.integers(0, 3)),
    st.dictionaries(st.integers(0, 2), st.integers(0, 3)),
)


@given(st.lists(LOOKS, max_size=8))
def test_whatever_was_said_before_over_means_over_now(
    looks: list[tuple[bool, frozenset[int], dict[int, int], dict[int, int]]],
) -> None:
    caught = CaughtUp(settle=0)
    first: dict[int, int] = {}  # the end of each partition, as first seen in this ownership
    for now, (stable, owned, finished, ends) in enumerate(looks):
        first = {n: first.get(n, ends.get(n, -1)) for n in owned if n in first or n in ends}
        over = look(
            caught,
            now,
            {orders(n): at for n, at in finished.items()},
            {orders(n): end for n, end in ends.items()},
            owned=tuple(map(orders, owned)),
            stable=stable,
        )
        done = all(n in first and finished.get(n, -1) >= first[n] for n in owned)
        assert over == (stable and done)


@given(
    st.dictionaries(st.integers(0, 5), st.integers(0, 20), min_size=1),
    st.dictionaries(st.integers(0, 5), st.integers(0, 20)),
)
def test_over_means_that_everything_owned_has_come_to_its_end(
    ends: dict[int, int], finished: dict[int, int]
) -> None:
    caught = CaughtUp(settle=0)
    over = look(
        caught,
        0,
        {orders(n): at for n, at in finished.items()},
        {orders(n): end for n, end in ends.items()},
        owned=tuple(map(orders, ends)),
    )
    assert over == all(finished.get(n, -1) >= end for n, end in ends.items())
