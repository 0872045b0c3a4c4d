"""The back-off schedule for a record whose handler raised, and for a broker that is away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays: ``first``, ``first*factor``, … up to ``limit``, all in seconds.

    ``jitter`` is the share of each delay that is random (0.2: between 80 % and 100 % of it),
    so that a fleet that failed together does not come back together. It only ever shortens:
    ``limit`` is a promise.

    Raises:
        ValueError: a delay that is not positive, a factor below 1, jitter outside [0, 1].
    """

    first: float = 0.5
    limit: float = 30.0
    factor: float = 2.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.limit:
            raise ValueError(f"need 0 < first <= limit, got {self.first} and {self.limit}")
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1, got {self.factor}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be between 0 and 1, got {self.jitter}")

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait after the ``attempt``-th failure (1 is the first).

        ``random`` gives a number in [0, 1); pass a fixed one to make the schedule exact.
        """
        if attempt < 1:
            raise ValueError(f"attempts count from 1, got {attempt}")
        # 2.0 ** 1100 overflows; the schedule has long reached its limit by then.
        growth = self.factor ** min(attempt - 1, 64)
        full = min(self.limit, self.first * growth)
        return full * (1 - self.jitter * random())
