"""States, requests and the choice of the exit code. Pure: no I/O, no threads, no clock.

    starting → running ⇄ quiet → draining → stopped

One ordered definition (:data:`ORDER`) gives the predicates, the allowed transitions and the
``penstock_state`` metric. :class:`Lifecycle` holds what was asked and what failed; the
supervisor's shell around it does the work and asks :meth:`Lifecycle.exit_code` at the end.

Precedence of requests: the first one starts the drain. A later stop outranks a restart (4
becomes 0); a later restart never outranks a stop. A *held* restart expects TERM, which
releases it and stays 4. A second INT from a terminal forces. Everything else that repeats is
ignored. A failure outranks both, and the first failure is the one that is told: what comes
after it is usually its consequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock.exits import Exit


class State(StrEnum):
    """Where the service is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    QUIET = "quiet"
    DRAINING = "draining"
    STOPPED = "stopped"


ORDER: Final = tuple(State)

#: The only way back. Every other transition goes forward in ``ORDER``, and may skip.
_BACK: Final = frozenset({(State.QUIET, State.RUNNING)})


def can_go(old: State, new: State) -> bool:
    """Whether ``old → new`` is a transition. A state never follows itself."""
    return ORDER.index(new) > ORDER.index(old) or (old, new) in _BACK


class Kind(StrEnum):
    """What may be asked of the service."""

    STOP = "stop"
    RESTART = "restart"
    QUIET = "quiet"
    RESUME = "resume"
    RELOAD = "reload"
    DUMP = "dump"


@dataclass(frozen=True, slots=True)
class Request:
    """One request, from a signal or over HTTP.

    ``source`` is bounded (it becomes a metric label): ``signal``, ``http``, ``prestop``.
    ``detail`` says which one for logs (``SIGUSR2``); ``reason`` is free text of the caller.
    ``interactive`` marks an INT, whose repetition forces.
    """

    kind: Kind
    source: str
    detail: str = ""
    reason: str = ""
    hold: bool = False
    interactive: bool = False
    #: TERM releases a held restart; INT, QUIT and ``POST /stop`` turn it into a stop.
    releases_hold: bool = False


class Outcome(StrEnum):
    """What became of a request."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    UPGRADED = "upgraded"
    RELEASED = "released"
    FORCED = "forced"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the exit will be unplanned."""

    code: int
    reason: str


class Lifecycle:
    """The service's state, what was asked of it, and what failed. Not thread-safe."""

    def __init__(self) -> None:
        self.state: State = State.STARTING
        self.intent: Request | None = None
        self.failure: Failure | None = None
        self.held = False
        self.released = False
        self.forced = False
        self.interrupted = False
        self.want_quiet = False
        #: Asked for and not begun: while starting, or while another one runs.
        self.reload_wanted = False

    # -- transitions -------------------------------------------------------------------

    def go(self, new: State) -> bool:
        """Move to ``new`` if that is a transition; tell whether it was."""
        if not can_go(self.state, new):
            return False
        self.state = new
        return True

    def started(self) -> State:
        """Every worker has joined: running, or quiet if that was asked meanwhile."""
        if self.state is State.STARTING:
            self.go(State.QUIET if self.want_quiet else State.RUNNING)
        return self.state

    @property
    def ending(self) -> bool:
        """Draining or stopped: nothing new is taken in, whatever else is asked."""
        return self.state in (State.DRAINING, State.STOPPED)

    @property
    def waits_for_release(self) -> bool:
        """A held restart that nobody has released yet."""
        return self.held and not self.released

    # -- requests ----------------------------------------------------------------------

    def request(self, request: Request, *, alive: bool) -> Outcome:
        """Take a request into account; ``alive`` is the liveness verdict at this moment.

        The caller starts the drain when the outcome is ``ACCEPTED`` and the kind is a stop
        or a restart.
        """
        match request.kind:
            case Kind.STOP | Kind.RESTART:
                return self._end(request, alive=alive)
            case Kind.QUIET | Kind.RESUME:
                return self._quiet(wanted=request.kind is Kind.QUIET)
            case Kind.RELOAD:
                if self.ending:
                    return Outcome.REFUSED
                outcome = Outcome.REPEATED if self.reload_wanted else Outcome.ACCEPTED
                self.reload_wanted = True
                return outcome
            case Kind.DUMP:
                return Outcome.ACCEPTED

    def _quiet(self, *, wanted: bool) -> Outcome:
        if self.ending:
            return Outcome.REFUSED
        if self.want_quiet == wanted:
            return Outcome.REPEATED
        self.want_quiet = wanted
        if self.state is not State.STARTING:  # while starting the wish is kept for later
            self.go(State.QUIET if wanted else State.RUNNING)
        return Outcome.ACCEPTED

    def _end(self, request: Request, *, alive: bool) -> Outcome:
        if request.interactive and self.interrupted:
            self.forced = True
            return Outcome.FORCED
        self.interrupted = self.interrupted or request.interactive
        if self.intent is None:
            self.intent = request
            self.held = request.kind is Kind.RESTART and request.hold
            # A crash already under way is not something the requester planned, and a
            # liveness that fails at this very moment most likely *is* the reason for the
            # request: preStop and TERM also come from the kubelet killing a sick container.
            if not alive:
                self.fail(
                    Exit.UNHEALTHY,
                    f"asked to {request.kind} by {request.detail or request.source} "
                    "while liveness was failing",
                )
            if self.ending:
                return Outcome.REPEATED
            self.go(State.DRAINING)
            return Outcome.ACCEPTED
        if request.kind is Kind.STOP:
            return self._stop_again(request)
        # A later restart never outranks a stop; HTTP turns this into a 409.
        return Outcome.REFUSED if self.intent.kind is Kind.STOP else Outcome.REPEATED

    def _stop_again(self, request: Request) -> Outcome:
        assert self.intent is not None
        if self.intent.kind is Kind.STOP:
            return Outcome.REPEATED
        if self.held and request.releases_hold:
            if self.released:
                return Outcome.REPEATED
            self.released = True
            return Outcome.RELEASED
        if self.state is State.STOPPED:  # the code stands: no seat can be given up any more
            return Outcome.REFUSED
        self.intent = request
        self.held = False
        return Outcome.UPGRADED

    # -- failure and exit --------------------------------------------------------------

    def fail(self, code: int, reason: str) -> bool:
        """Note a failure; the first one stays. Tells whether this was the first."""
        if self.failure is not None:
            return False
        self.failure = Failure(code, reason)
        return True

    def exit_code(self) -> int:
        """The code to exit with: failure, else stop, else restart.

        Ending without a request and without a failure is a crash: nobody asked for it.
        """
        if self.failure is not None:
            return self.failure.code
        if self.intent is None:
            return Exit.CRASHED
        return Exit.STOPPED if self.intent.kind is Kind.STOP else Exit.RESTART

    @property
    def reason(self) -> str:
        """One sentence for the journal and the termination message."""
        if self.failure is not None:
            return self.failure.reason
        if self.intent is None:
            return "ended without being asked to"
        return self.intent.reason or f"{self.intent.kind} by {self.requested_by}"

    @property
    def requested_by(self) -> str:
        """Who asked, for the exit record: ``SIGUSR2``, ``http``, … or empty."""
        return (self.intent.detail or self.intent.source) if self.intent else ""
