"""The table of slots: every process that was started is in it until its end is judged.

A slot is a place in the consumer group: the worker that has it and, while that one is being
replaced, its successor beside it. The successor waits; it moves up when the worker before it
has ended. There is no other list of processes, so there is no end that nobody looks at.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.supervisor.child import Child


class Slots:
    """Slot → its processes, the worker first. In memory only; the caller holds the lock."""

    def __init__(self) -> None:
        self._slots: dict[int, list[Child]] = {}

    def __iter__(self) -> Iterator[list[Child]]:
        """The processes of each slot, in the order of the slots."""
        return iter([list(self._slots[index]) for index in sorted(self._slots)])

    def add(self, child: Child) -> None:
        """A process was started: as its slot's worker, or to stand by."""
        slot = self._slots.setdefault(child.index, [])
        assert len(slot) < 2, f"slot {child.index} has a successor already"  # noqa: PLR2004
        slot.append(child)

    def remove(self, child: Child) -> Child | None:
        """Its end is judged; returns who moves up into its place, if somebody does."""
        slot = self._slots[child.index]
        was_worker = slot[0] is child
        slot.remove(child)
        if not slot:
            del self._slots[child.index]
        return slot[0] if was_worker and slot else None

    def worker(self, index: int) -> Child | None:
        """Who has the slot."""
        slot = self._slots.get(index)
        return slot[0] if slot else None

    def workers(self) -> list[Child]:
        """Who has the slots, in their order."""
        return [slot[0] for slot in self]

    def everyone(self) -> list[Child]:
        """Every process, successors included."""
        return list(chain.from_iterable(self))

    def before(self, child: Child) -> Child | None:
        """The worker that ``child`` stands by for, if it does."""
        worker = self.worker(child.index)
        return None if worker is child else worker

    def find(self, pid: int) -> Child | None:
        """The process with this id."""
        return next((child for child in self.everyone() if child.pid == pid), None)
