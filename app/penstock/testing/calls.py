"""Calls of a handler, and the virtual time they take."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.record import Record


@dataclass(slots=True, eq=False)
class Try:
    """A call of the handler: one record, or those of a batch.

    ``at`` and ``ended`` are virtual seconds; ``ended`` is ``None`` while it is in flight, and
    stays so when the process died meanwhile. ``error`` is what the handler raised.
    """

    records: tuple[Record, ...]
    at: float
    ended: float | None = None
    error: BaseException | None = None


class Expired(BaseException):
    """Raised in a plain handler whose time is over. Not an ``Exception``: handlers catch those."""


class Spending:
    """The virtual time that a plain function spends."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Let it pass; raises at the time limit, as a service does."""
        self.seconds += seconds
        if self._limit is not None and self.seconds > self._limit:
            self.seconds = self._limit
            raise Expired
