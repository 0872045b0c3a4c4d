"""Which seats in the group are still held, slot by slot. Pure: told by the ends of processes.

A seat counts as held from the start, because the run before this one may have kept it, and until
a process has said in its last words that it gave the seat up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from penstock.seat import Seat

if TYPE_CHECKING:
    from penstock.supervisor.child import Child


class Seats:
    """The seats of a static service's slots."""

    def __init__(self) -> None:
        self._given_up: set[int] = set()

    def ended(self, child: Child) -> None:
        """A process ended, and it was judged: did it leave, or keep its seat, or take one?"""
        assert child.end is not None
        words = child.last_words
        if child.end.planned and words is not None and words.seat is Seat.LEAVE:
            self._given_up.add(child.index)
        elif child.consumed:
            self._given_up.discard(child.index)

    def is_held(self, index: int) -> bool:
        """Whether the slot's seat may still be held, by one of our processes or by nobody."""
        return index not in self._given_up

    def held(self, slots: Iterable[int]) -> list[int]:
        """Those of these slots whose seat may still be held."""
        return [index for index in slots if self.is_held(index)]
