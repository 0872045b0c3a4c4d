"""Commits while a revocation waits for what is in flight.

The poll loop, which commits otherwise, waits inside ``poll`` until the revocation is over: for
as long as ``revoke_timeout``. What finishes meanwhile must not be repeated by a KILL just
because of that. Used on the client's I/O thread only; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from penstock.kafka.port import Rebalance
from penstock.offsets import Position
from penstock.record import Partition

log = structlog.get_logger("penstock.kafka")

#: Seconds until a commit that was refused is tried again.
_AGAIN: Final = 0.5


class CommitsMeanwhile:
    """One commit at a time, of everything that is finished, on the interval or at once."""

    def __init__(
        self,
        send: Callable[[Mapping[Partition, Position]], Any],
        rebalance: Rebalance,
        interval: float,
    ) -> None:
        """``send`` begins a commit and returns its future; ``interval`` is in seconds."""
        self._send = send
        self._rebalance = rebalance
        self._interval = interval
        self._due = self._not_before = 0.0
        self._under_way: tuple[Any, Mapping[Partition, Position]] | None = None

    def go_on(self, now: float, *, at_once: bool) -> None:
        """Look at the commit under way, and begin another if it is time; ``at_once``: it is."""
        if self._under_way is not None:
            future, offsets = self._under_way
            if not future.is_done:
                return
            self._under_way = None
            if future.exception is None:
                self._rebalance.committed(offsets)
            else:
                self._refused(future.exception, now)
        if now < (self._not_before if at_once else max(self._due, self._not_before)):
            return
        offsets = self._rebalance.committable()
        if not offsets:
            return
        self._due = now + self._interval
        try:
            self._under_way = self._send(offsets), offsets
        except Exception as error:
            self._refused(error, now)

    def _refused(self, error: BaseException, now: float) -> None:
        log.info("a commit while partitions move was refused", error=str(error))
        self._not_before = now + _AGAIN
