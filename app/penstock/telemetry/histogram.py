"""A cumulative histogram in plain Python.

prometheus_client's own histogram lives in one process and takes a lock for each value. This
one is counted in a worker, travels to the supervisor as JSON and is added up there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final

_INF: Final = float("inf")


class Histogram:
    """Counts of values by upper bound, inclusive as Prometheus' ``le`` is.

    Negative values count as 0: they come from clocks that disagree (a producer ahead of us),
    and a sum that falls would read as a counter reset. What is not finite is not counted.
    Not thread-safe: one thread owns it.

    Raises:
        ValueError: ``bounds`` is empty, not finite or not strictly ascending.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(float(bound) for bound in bounds)
        ascending = all(a < b for a, b in zip(self._bounds, self._bounds[1:], strict=False))
        if not self._bounds or not ascending or not all(-_INF < b < _INF for b in self._bounds):
            raise ValueError(f"bounds must be finite and ascending: {bounds}")
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value; one that is not finite is left out, one below 0 counts as 0."""
        if 0 <= value < _INF:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value
        else:
            self.observe_many((value,))

    def observe_many(self, values: Iterable[float]) -> None:
        """Count many values: sorted once and cut at the bounds, not looked up one by one."""
        ordered = sorted(values)
        if not -_INF < sum(ordered) < _INF:
            ordered = sorted(value for value in ordered if -_INF < value < _INF)
        if ordered and ordered[0] < 0:
            ordered = sorted(max(0.0, value) for value in ordered)
        before = 0
        for index, bound in enumerate(self._bounds):
            upto = bisect_right(ordered, bound)
            self._counts[index] += upto - before
            before = upto
        self._counts[-1] += len(ordered) - before
        self._sum += sum(ordered)

    @property
    def bounds(self) -> tuple[float, ...]:
        """The upper bounds, without the last one, which is infinite."""
        return self._bounds

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self._counts)

    @property
    def sum(self) -> float:
        """The sum of the values counted, in their unit."""
        return self._sum

    def cumulative(self) -> list[tuple[float, int]]:
        """``(upper bound, values at or below it)``, the last bound being infinite."""
        return list(zip((*self._bounds, _INF), accumulate(self._counts), strict=True))

    def merge(self, other: Histogram) -> None:
        """Add another histogram's values to this one's.

        Raises:
            ValueError: the bounds differ; :meth:`rebucketed` makes them agree.
        """
        if other._bounds != self._bounds:
            raise ValueError("histograms with different bounds cannot be merged")
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        self._sum += other._sum

    def copy(self) -> Histogram:
        """An independent histogram with the same values."""
        twin = Histogram(self._bounds)
        twin.merge(self)
        return twin

    def rebucketed(self, bounds: Sequence[float]) -> Histogram:
        """The same values under other bounds, each at its old bucket's upper bound.

        For counts kept by an earlier version: count and sum stay exact, and a quantile can
        only come out too long, never too short.
        """
        if self._bounds == tuple(bounds):
            return self.copy()
        result = Histogram(bounds)
        for bound, count in zip((*self._bounds, _INF), self._counts, strict=True):
            result._counts[bisect_left(result._bounds, bound)] += count
        result._sum = self._sum
        return result

    def to_json(self) -> dict[str, Any]:
        """A value that :func:`json.dumps` takes and :meth:`from_json` reads back."""
        return {"bounds": list(self._bounds), "counts": list(self._counts), "sum": self._sum}

    @classmethod
    def from_json(cls, data: Any) -> Histogram:
        """Read what :meth:`to_json` made.

        Raises:
            ValueError: it is not that, whatever else it is.
        """
        try:
            result = cls(data["bounds"])
            counts = data["counts"]
            total = float(data["sum"])
            whole = all(type(count) is int and count >= 0 for count in counts)
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not a histogram: {error!r}") from error
        if not whole or len(counts) != len(result._counts) or not 0 <= total < _INF:
            raise ValueError("not a histogram: counts and bounds do not belong together")
        result._counts = list(counts)
        result._sum = total
        return result

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]  # it changes, so it cannot be a key

    def __repr__(self) -> str:
        return f"Histogram(count={self.count}, sum={self._sum:g})"
