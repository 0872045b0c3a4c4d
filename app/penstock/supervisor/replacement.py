"""Replacing workers in place: reload (HUP), and one worker at a time for any other reason.

The successor is started first and waits beside the worker: if the new code does not even
import, the worker goes on as if nothing had happened. Only then is the worker drained, and
with static membership it keeps its seat, so no rebalance happens. Where there is no memory for two,
the worker goes first. All of this is a client of the table of slots: who moves up, and how an
end counts, is decided there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from penstock.budget import Budget
from penstock.exits import Exit
from penstock.lifecycle import State
from penstock.seat import seat_after
from penstock.supervisor.reload import Reloads

if TYPE_CHECKING:
    from penstock.supervisor.child import Child
    from penstock.supervisor.service import Supervisor

#: How long a successor may take to import the application, in seconds.
PATIENCE: Final = 120.0


class Replacement:
    """One worker's replacement. ``step`` until it returns true; then ``failed`` tells."""

    def __init__(self, supervisor: Supervisor, old: Child, new: Child, reason: str) -> None:
        self._sup = supervisor
        self.index = old.index
        self.old = old
        self.new = new
        self.reason = reason
        #: Why the replacement was not made, or has not been kept.
        self.failed: str | None = None
        self._budget: Budget | None = None

    def step(self, now: float) -> bool:
        """Go on as far as possible; true when done, or given up."""
        if self.new.end is not None:
            self.failed = self.failed or self.new.end.reason or "the new worker ended"
            return True
        if self.old.gone:
            # The successor has moved up and is started like any other.
            return self.new.consumed and self.new.joined
        if self._budget is None:
            return self._look_at_new(now)
        _keep_deadline(self._sup, self.old, self._budget, now)
        return False

    def _look_at_new(self, now: float) -> bool:
        """Wait until the successor can be trusted with the slot; then drain the worker."""
        if self.new.discarded:
            return False
        self.failed = self._trouble(now)
        if self.failed is not None:
            self.new.discard()
        elif self.new.hello is not None:
            self._budget = _drain(self._sup, self.old, now)
        return False

    def _trouble(self, now: float) -> str | None:
        new = self.new
        if new.unusable is not None:
            return new.unusable
        if new.fatal is not None:
            return new.fatal.reason
        return _unfit(self._sup, new, now)


class Renewal:
    """The same where there is no memory for two: the successor starts when the worker is gone.

    Nothing stands by, so what keeps the successor from its work ends the service, as it does
    at a start.
    """

    def __init__(self, supervisor: Supervisor, old: Child, reason: str) -> None:
        self._sup = supervisor
        self.index = old.index
        self.old = old
        self.new: Child | None = None
        self.reason = reason
        #: As of a :class:`Replacement`.
        self.failed: str | None = None
        self._budget: Budget | None = None

    def step(self, now: float) -> bool:
        """Go on as far as possible; true when done, or given up."""
        if self._budget is None:
            self._budget = _drain(self._sup, self.old, now)
        if self.new is not None:
            return self._look_at_new(self.new, now)
        if not self.old.gone:
            _keep_deadline(self._sup, self.old, self._budget, now)
            return False
        try:
            self.new = self._sup.spawn(self.index)
        except OSError as error:
            return self._give_up(f"no process could be started: {error}")
        self._sup.log.info("worker replaced", worker=self.index, pid=self.new.pid)
        return False

    def _look_at_new(self, new: Child, now: float) -> bool:
        if new.end is not None:  # judged, and blamed, by then
            self.failed = new.end.reason or "the new worker ended"
            return True
        if (why := _unfit(self._sup, new, now)) is not None:
            return self._give_up(why)
        return new.consumed and new.joined

    def _give_up(self, why: str) -> bool:
        self.failed = why
        self._sup.fail(Exit.CRASHED, f"worker {self.index}: {why}", gone=True)
        return True


def _drain(sup: Supervisor, old: Child, now: float) -> Budget:
    """Let the worker finish and go, its seat kept for its successor where it can be."""
    settings = sup.settings
    assert settings is not None
    old.drain(
        restart=True,
        seat=seat_after(static=settings.instance_id is not None, restart=True),
        seconds=settings.drain_timeout,
    )
    return Budget.of(settings.drain_timeout, now=now)


def _keep_deadline(sup: Supervisor, old: Child, budget: Budget, now: float) -> None:
    if now >= budget.over_at:
        sup.drain.end_by_force(old, "it did not drain in time to be replaced", now)
    elif now >= budget.worker_by:
        sup.dumps.force([old])


def _unfit(sup: Supervisor, new: Child, now: float) -> str | None:
    """Why a successor that has not failed cannot have the slot."""
    if new.hello is None:
        late = now - new.spawned_at > PATIENCE
        return f"the new worker did not come up in {PATIENCE:g} s" if late else None
    return sup.misfit(new.hello)


class Replacing:
    """Replacements, at most one at a time: a reload's, one after another, or a single one."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._sup = supervisor
        self.reloads = Reloads()
        self.current: Replacement | Renewal | None = None
        self._todo: list[int] = []

    @property
    def busy(self) -> bool:
        """Whether a replacement is under way or wanted."""
        wanted = self._sup.lifecycle.reload_wanted
        return wanted or self.current is not None or self.reloads.running is not None

    def replace(
        self, index: int, reason: str, *, room: bool = True
    ) -> Replacement | Renewal | None:
        """Replace one worker on purpose; None if it cannot be now (look again later).

        ``reason`` is for the log; ``room``: whether there is memory for both at once. The
        caller may look at ``failed`` of what is returned, once it is no longer ``current``.
        """
        if self.busy or not self._settled():
            return None
        return self._begin(index, reason) if room else self._renew(index, reason)

    def step(self, now: float) -> None:
        """Go on as far as possible."""
        if self.current is not None:
            if not self.current.step(now):
                return
            done, self.current = self.current, None
            if done.failed is not None:
                self._failed(done.reason, done.index, done.failed)
        if self.reloads.running is None and self._sup.lifecycle.reload_wanted:
            self._begin_reload()
        if self.reloads.running is not None and self._settled():
            if self._todo:
                self._begin(self._todo.pop(0), "reload")
            else:
                with self._sup.lock:
                    self.reloads.over(self._sup.host.wall())
                self._sup.log.info("reloaded")

    def interrupt(self, why: str) -> None:
        """The service ends: what stands by is drained with the rest, and nothing is replaced."""
        if self.busy:
            with self._sup.lock:
                self.current, self._todo = None, []
                self._sup.lifecycle.reload_wanted = False
                self.reloads.interrupt(self._sup.host.wall(), why)

    def _settled(self) -> bool:
        """Whether one may be taken out: all the others do their work."""
        sup = self._sup
        return sup.lifecycle.state in (State.RUNNING, State.QUIET) and all(
            worker.consumed and worker.joined for worker in sup.slots.workers()
        )

    def _begin_reload(self) -> None:
        if self._sup.lifecycle.state not in (State.RUNNING, State.QUIET):
            return  # asked for while starting: remembered
        with self._sup.lock:
            self._sup.lifecycle.reload_wanted = False
            self.reloads.begin()
            self._todo = [worker.index for worker in self._sup.slots.workers()]
        self._sup.log.info("reloading", workers=len(self._todo))

    def _begin(self, index: int, reason: str) -> Replacement | None:
        old = self._sup.slots.worker(index)
        assert old is not None
        self._sup.log.info("replacing", worker=index, reason=reason)
        try:
            new = self._sup.spawn(index)
        except OSError as error:
            self._failed(reason, index, f"no process could be started: {error}")
            return None
        self.current = Replacement(self._sup, old, new, reason)
        return self.current

    def _renew(self, index: int, reason: str) -> Renewal:
        old = self._sup.slots.worker(index)
        assert old is not None
        self._sup.log.info("replacing", worker=index, reason=reason)
        self.current = renewal = Renewal(self._sup, old, reason)
        return renewal

    def _failed(self, what: str, index: int, why: str) -> None:
        reload = self.reloads.running is not None
        event = "reload given up" if reload else "replacement given up"
        self._sup.log.error(event, worker=index, wanted_for=what, reason=why)
        if reload:
            with self._sup.lock:
                self._todo = []
                self.reloads.over(self._sup.host.wall(), given_up=f"worker {index}: {why}")
