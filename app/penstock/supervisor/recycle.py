"""Whether a worker is to be replaced before memory runs out, and which. Pure.

A replacement helps against what a worker has piled up over time: a handler that leaks, a heap
that fragments. It does not help where a fresh worker is as large within minutes, or where the
memory is not the workers' (files in memory, another container's): then replacing would go on
for ever. That is said once, and nothing is replaced until the memory has fallen well below
the mark again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.cgroup import Reading
from penstock.memory import MB, WORKER

#: Below this share of the mark, what was said is forgotten.
REARM: Final = 0.9
#: A worker that holds less than this has little to give back: a fresh one takes nearly as much.
LITTLE: Final = WORKER + WORKER // 4
#: A worker that fills the memory within this share of the interval does so again.
YOUNG: Final = 0.5


@dataclass(frozen=True, slots=True)
class Weight:
    """A worker: ``private`` bytes that end with it, ``age`` in seconds."""

    index: int
    private: int
    age: float


@dataclass(frozen=True, slots=True)
class Recycle:
    """Replace this worker."""

    worker: Weight


@dataclass(frozen=True, slots=True)
class Futile:
    """Replacing would not help; ``why`` is a sentence for the log."""

    why: str


class Recycler:
    """Decides. ``high`` is a share of the limit (0: never), ``interval`` in seconds."""

    def __init__(self, high: float, interval: float) -> None:
        self._high = high
        self._interval = interval
        self._last: float | None = None
        self._given_up = False

    def reached(self, reading: Reading | None) -> bool:
        """Whether the mark is reached, so that the workers have to be weighed."""
        share = reading.share if reading is not None else None
        if not self._high or share is None:
            return False
        if share < self._high * REARM:
            self._given_up = False
        return share >= self._high and not self._given_up

    def decide(self, workers: Sequence[Weight], now: float) -> Recycle | Futile | None:
        """What to do now that the mark is reached; None: wait. ``now`` is monotonic."""
        if not workers:
            return None
        largest = max(workers, key=lambda worker: worker.private)
        if largest.age < self._interval * YOUNG:
            return self._give_up(
                f"worker {largest.index} is the largest with {_mb(largest.private)} MB though it "
                f"started {largest.age:.0f} s ago: a fresh one would be as large again"
            )
        if largest.private < LITTLE:
            return self._give_up(
                f"the largest worker ({largest.index}) holds {_mb(largest.private)} MB, hardly "
                "more than a fresh one: something else fills the memory"
            )
        if self._last is not None and now - self._last < self._interval:
            return None
        return Recycle(largest)

    def begun(self, now: float) -> None:
        """The replacement was begun."""
        self._last = now

    def _give_up(self, why: str) -> Futile:
        self._given_up = True
        return Futile(why)


def _mb(number: int) -> str:
    return f"{number / MB:,.0f}"
