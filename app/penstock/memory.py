"""How much memory a service may take: the one formula behind ``check``, the chart and the docs.

    supervisor + processes x (base + buffer + fetch + handlers)

The figures were measured (docs/benchmarks.md, "Memory") and rounded up. What handlers and the
modules that they import hold is the application's, and is given. Pure; everything is in bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from penstock.settings import Settings

MB: Final = 1_000_000

#: The supervisor: HTTP, metrics, journal.
SUPERVISOR: Final = 64 * MB
#: A worker that is connected and has nothing to do.
WORKER: Final = 64 * MB
#: What a waiting record costs beside its bytes: objects, places in queues, its entry among the
#: keys. 300 to 620 were seen; the buffer's bound counts it.
RECORD: Final = 1_000
#: Times that fetched bytes are there at once: what the client holds, a response that comes in
#: beside the buffer it is put together in, and the poll that finds the buffer full a moment late,
#: and what the heap does not give back.
COPIES: Final = 5
#: What the chart and ``check`` allow for the application in each worker unless told otherwise.
HANDLERS: Final = 64 * MB


@dataclass(frozen=True, slots=True)
class Bound:
    """The parts of the formula, in bytes; the last four are those of one worker process."""

    processes: int
    supervisor: int
    base: int
    buffer: int
    fetch: int
    handlers: int

    @property
    def worker(self) -> int:
        """What one worker process may take."""
        return self.base + self.buffer + self.fetch + self.handlers

    @property
    def total(self) -> int:
        """What the service may take."""
        return self.supervisor + self.processes * self.worker

    def limit(self, high: float) -> int:
        """The least limit under which that is below ``high`` (``PENSTOCK_MEMORY_HIGH``; 0: off)."""
        return math.ceil(self.total / (high or 1.0))

    def __str__(self) -> str:
        parts = (
            f"base {_mb(self.base)} + buffer {_mb(self.buffer)} "
            f"+ fetch {_mb(self.fetch)} + handlers {_mb(self.handlers)}"
        )
        return (
            f"supervisor {_mb(self.supervisor)} + {self.processes} x ({parts}) "
            f"= {_mb(self.total)} MB"
        )


def bound(
    *,
    processes: int,
    buffer_bytes: int,
    max_poll_records: int,
    fetch_bytes: int,
    handlers: int = HANDLERS,
) -> Bound:
    """The formula. ``processes`` are workers times subscriptions; the rest are the settings'."""
    return Bound(
        processes=processes,
        supervisor=SUPERVISOR,
        base=WORKER,
        buffer=buffer_bytes,
        # One poll may come on top of a buffer that is nearly full.
        fetch=COPIES * fetch_bytes + RECORD * max_poll_records,
        handlers=handlers,
    )


def bound_of(settings: Settings, *, subscriptions: int, handlers: int = HANDLERS) -> Bound:
    """The formula, of a service's settings and the number of its subscriptions."""
    return bound(
        processes=settings.workers * subscriptions,
        buffer_bytes=settings.buffer_bytes,
        max_poll_records=settings.max_poll_records,
        fetch_bytes=settings.fetch_bytes,
        handlers=handlers,
    )


def shortfall(bound: Bound, limit: int | None, high: float) -> str | None:
    """A sentence with the arithmetic if ``limit`` is too low for the bound, else None."""
    if limit is None or bound.limit(high) <= limit:
        return None
    over = f" / {high:g} (PENSTOCK_MEMORY_HIGH) = {_mb(bound.limit(high))} MB" if high else ""
    return (
        f"memory: {bound}{over}, and the limit is {_mb(limit)} MB: raise it, or lower "
        "PENSTOCK_WORKERS, PENSTOCK_BUFFER_BYTES or PENSTOCK_FETCH_BYTES"
    )


def share(fetch_bytes: int, partitions: int) -> int:
    """What may be fetched of one partition at a time, so that all together keep ``fetch_bytes``.

    The client has at most one fetch of each partition, under way or put aside; so this bounds
    the sum whatever the number of brokers. A batch that is larger comes all the same, one a
    response.
    """
    return max(1, fetch_bytes // max(1, partitions))


def _mb(number: int) -> str:
    return f"{number / MB:,.0f}"
