"""Which seats are still held, told by the ends of processes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock.exits import Exit
from penstock.seat import Seat
from penstock.supervisor.seats import Seats
from penstock.supervisor.verdict import End


def ended(*, planned: bool = True, seat: Seat | None = Seat.LEAVE, consumed: bool = True) -> Any:
    """A process of slot 0 whose end was judged; ``seat``: what it said, None: no last words."""
    return SimpleNamespace(
        index=0,
        consumed=consumed,
        end=End(Exit.STOPPED if planned else Exit.FORCED, planned, ""),
        last_words=None if seat is None else SimpleNamespace(seat=seat),
    )


def test_a_seat_is_held_until_somebody_says_that_it_was_given_up() -> None:
    seats = Seats()
    assert seats.held(range(2)) == [0, 1]
    seats.ended(ended())
    assert seats.held(range(2)) == [1]


@pytest.mark.parametrize(
    "end",
    [ended(planned=False), ended(seat=Seat.KEEP), ended(seat=None)],
    ids=["unclean", "kept", "without a word"],
)
def test_whoever_consumed_and_does_not_say_so_holds_it(end: Any) -> None:
    seats = Seats()
    seats.ended(end)
    assert seats.is_held(0)
    seats.ended(ended())
    assert not seats.is_held(0)
    seats.ended(end)
    assert seats.is_held(0)


def test_whoever_never_consumed_took_none() -> None:
    seats = Seats()
    seats.ended(ended())
    seats.ended(ended(seat=None, consumed=False))
    assert not seats.is_held(0)
