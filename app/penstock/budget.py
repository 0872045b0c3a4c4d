"""The drain budget: one monotonic deadline, with a share kept for the commit and the close."""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds of the budget kept back for the last commit, the close and the exit.
RESERVE = 3.0
#: … but never more than this share of a short budget.
RESERVE_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Budget:
    """When handlers must be finished, when the last commit, the worker, everything must be.

    All on the caller's monotonic clock, in seconds. A worker that is still there at
    ``worker_by`` cannot help itself (a handler holds the GIL); the rest of the time is for
    the supervisor to find out why, end it, and exit.
    """

    handlers_by: float
    commit_by: float
    worker_by: float
    over_at: float

    @classmethod
    def of(cls, seconds: float, *, now: float) -> Budget:
        """Split ``seconds`` from ``now`` into handler time and reserve."""
        reserve = min(RESERVE, seconds * RESERVE_SHARE)
        over = now + seconds
        return cls(
            handlers_by=over - reserve,
            commit_by=over - reserve / 2,
            worker_by=over - reserve / 4,
            over_at=over,
        )

    def left(self, now: float) -> float:
        """Seconds until everything must be over, never negative."""
        return max(0.0, self.over_at - now)

    def worker_left(self, now: float) -> float:
        """Seconds until a worker must be gone, never negative."""
        return max(0.0, self.worker_by - now)

    def commit_left(self, now: float) -> float:
        """Seconds in which finished offsets may still be committed, never negative."""
        return max(0.0, self.commit_by - now)

    def handlers_left(self, now: float) -> float:
        """Seconds that handlers in flight still have, never negative."""
        return max(0.0, self.handlers_by - now)
