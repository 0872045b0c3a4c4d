"""Where the time of a start goes: seconds a step, for the log and the benchmarks."""

from __future__ import annotations

from collections.abc import Callable


class Steps:
    """Durations of steps that follow one another, in seconds; each is noted once."""

    def __init__(self, clock: Callable[[], float], *, began: float) -> None:
        self._clock = clock
        self._last = began
        self.taken: dict[str, float] = {}

    def mark(self, name: str) -> None:
        """The step ``name`` ends now, and the next one begins."""
        now = self._clock()
        if name not in self.taken:
            self.taken[name] = round(now - self._last, 3)
        self._last = now
