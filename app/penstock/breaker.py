"""A circuit breaker for handlers: when most records fail, the fault is hardly in the records.

Pure: the caller brings the clock. A topic must not be poured into its dead-letter queue
because a database is down; so when a share of the recent records failed, the breaker opens,
everything waits, and after a pause one record at a time is tried (the probe). A probe that
succeeds closes it, one that fails makes the next pause longer.

    closed ──(share of failures reached)──▶ open ──(pause over)──▶ probing
       ▲                                      ▲                       │
       └──────────(probe succeeded)───────────┴────(probe failed)─────┘
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock import arguments
from penstock.errors import ConfigError

#: Outcomes are kept for as long as the window is.
_LARGEST_WINDOW: Final = 1_000_000


class BreakerState(StrEnum):
    """What the breaker lets through."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


@dataclass(frozen=True, slots=True)
class Breaker:
    """When to open, and for how long.

    ``share`` of the last ``window`` finished attempts must have failed; fewer than ``window``
    attempts never open it. ``pause`` seconds, doubled by each failed probe up to ``limit``.

    Raises:
        ConfigError: a share outside (0, 1], a window below 1, a pause that is not positive, or
            longer than the limit.
    """

    share: float = 0.5
    window: int = 20
    pause: float = 5.0
    limit: float = 300.0

    def __post_init__(self) -> None:
        arguments.share("Breaker", "share", self.share)
        arguments.whole("Breaker", "window", self.window, most=_LARGEST_WINDOW)
        arguments.seconds("Breaker", "pause", self.pause)
        arguments.seconds("Breaker", "limit", self.limit)
        if self.pause > self.limit:
            raise ConfigError(
                f"Breaker(pause={self.pause:g}, limit={self.limit:g}): the pause is longer than "
                "its limit (300 unless given)"
            )


class Circuit:
    """The state of one breaker. Not thread-safe."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._recent: deque[bool] = deque(maxlen=breaker.window)
        self._failed = 0
        self._pause = breaker.pause
        self._opens_again_at = 0.0
        self._probing = False
        self.state = BreakerState.CLOSED
        #: How often it opened.
        self.opened = 0

    def look(self, now: float) -> BreakerState:
        """Where it stands; an open one turns to probing once its pause is over."""
        if self.state is BreakerState.OPEN and now >= self._opens_again_at:
            self.state = BreakerState.PROBING
            self._probing = False
        return self.state

    def may_start(self, now: float) -> bool:
        """Whether a record may be handed to its handler now. Grants one probe at a time."""
        match self.look(now):
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.PROBING:
                if self._probing:
                    return False
                self._probing = True
                return True

    def again_at(self) -> float | None:
        """When an open breaker lets a probe through; ``None`` if it is not open."""
        return self._opens_again_at if self.state is BreakerState.OPEN else None

    def finished(self, now: float, *, ok: bool, probe: bool = False) -> None:
        """An attempt ended. What was started before it opened counts no more afterwards.

        ``probe``: it was the one that :meth:`may_start` granted while probing.
        """
        if probe:
            if self.state is BreakerState.PROBING:
                self._probed(now, ok=ok)
        elif self.state is BreakerState.CLOSED:
            self._count(ok)
            enough = len(self._recent) == self._breaker.window
            if enough and self._failed >= self._breaker.share * self._breaker.window:
                self._open(now)

    def _probed(self, now: float, *, ok: bool) -> None:
        if ok:
            self.state = BreakerState.CLOSED
            self._pause = self._breaker.pause
            self._recent.clear()
            self._failed = 0
        else:
            self._pause = min(self._breaker.limit, self._pause * 2)
            self._open(now)

    def probe_abandoned(self) -> None:
        """The probe never ran (its partition went): another may."""
        self._probing = False

    def _count(self, ok: bool) -> None:
        if len(self._recent) == self._recent.maxlen and not self._recent[0]:
            self._failed -= 1
        self._recent.append(ok)
        self._failed += not ok

    def _open(self, now: float) -> None:
        self.state = BreakerState.OPEN
        self._opens_again_at = now + self._pause
        self.opened += 1
