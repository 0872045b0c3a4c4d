from __future__ import annotations

import itertools

import pytest

from penstock.seat import Seat, seat_after

#: static, restart, held, stable identity: the only combinations whose identity comes back.
KEPT = {
    (True, True, False, False),  # exit 4 in the same container, in-place reload
    (True, True, False, True),
    (True, True, True, True),  # preStop, and the identity outlives the pod
}


@pytest.mark.parametrize("case", list(itertools.product([False, True], repeat=4)))
def test_a_seat_is_kept_only_for_somebody_who_comes_back(case: tuple[bool, ...]) -> None:
    static, restart, held, stable = case
    seat = seat_after(static=static, restart=restart, held=held, stable_identity=stable)
    assert seat is (Seat.KEEP if case in KEPT else Seat.LEAVE)


def test_in_place_is_neither_held_nor_of_a_stable_identity() -> None:
    assert seat_after(static=True, restart=True) is Seat.KEEP
    assert Seat("keep") is Seat.KEEP  # it crosses the channel as text
