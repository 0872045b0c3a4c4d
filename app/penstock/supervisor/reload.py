"""HUP: replace the workers in place, one after another, without the container exiting.

The replacement is started first and waits: if the new code does not even import, the old
worker goes on as if nothing had happened. Only then is the old one drained, and with static
membership it keeps its seat, so no rebalance happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from penstock.supervisor.child import Child
from penstock.supervisor.verdict import End

if TYPE_CHECKING:
    from penstock.supervisor.service import Supervisor

#: How long a replacement may take to import the application, in seconds.
_PATIENCE = 120.0

log = structlog.get_logger("penstock.supervisor")


class Reload:
    """A rolling replacement under way. ``step`` until it returns true."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self._todo = sorted(supervisor.children)
        self.replacement: Child | None = None
        self._old: Child | None = None
        self._failed = False
        log.info("reloading", workers=len(self._todo))

    def step(self, now: float) -> bool:
        """Go on as far as possible; true when done, or given up."""
        if self._failed:
            return True
        if self.replacement is None:
            return self._next()
        new = self.replacement
        if new.hello is None:
            if now - new.spawned_at > _PATIENCE and not new.discarded:
                log.error("reload given up: the new worker does not come up", worker=new.index)
                new.discard()
            return False
        before, after = len(self._sup.subscriptions), len(new.hello.subscriptions)
        if before != after and not new.discarded:
            # Which worker does what goes by that number.
            log.error(
                "reload given up: the application has another number of subscriptions; restart",
                before=before,
                after=after,
            )
            new.discard()
        if new.discarded:
            return False
        if self._old is not None:
            if not self._old.draining:
                settings = self._sup.settings
                assert settings is not None
                self._old.drain(
                    restart=True,
                    seat=self._sup.seat_in_place(),
                    seconds=settings.drain_timeout,
                )
                self._deadline = now + settings.drain_timeout
            elif now >= self._deadline and not self._old.killed:
                log.error("a worker did not drain in time; ending it", worker=self._old.index)
                self._old.kill()
            return False
        # The old one is gone: the new one takes its place, and starts like any other.
        self._sup.swap(new)
        self.replacement = None
        log.info("worker replaced", worker=new.index, pid=new.pid)
        return False

    _deadline = 0.0

    def _next(self) -> bool:
        waiting = [c for c in self._sup.children.values() if not c.joined]
        if waiting:
            return False  # one at a time: the last one must have joined
        if not self._todo:
            log.info("reloaded")
            return True
        index = self._todo.pop(0)
        self._old = self._sup.children[index]
        self.replacement = self._sup.spawn(index)
        return False

    def buried(self, child: Child, end: End) -> bool:
        """A process ended: tells whether that was part of the reload and not a failure."""
        if child is self.replacement:
            self.replacement = None  # or the service would wait for it for ever
            if self._old is None:
                return False
            # It never consumed. The old worker has not been touched yet, or is draining.
            log.error("reload given up: the new worker failed", reason=end.reason)
            self._failed = not self._old.draining
            return self._failed
        if child is self._old and child.draining:
            self._old = None
            if not end.planned:
                log.error("the replaced worker did not end cleanly", reason=end.reason)
            return True
        return False
