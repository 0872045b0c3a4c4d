"""How a worker's end counts. Pure: what it said, and how it exited, against what was asked.

Every process that was ever started is judged here, by one rule, whatever it was started for
and whenever it ends. 0 and 4 are earned only if every process that consumed ended clean, so
one that consumed and did not makes them impossible; one that never did has nothing to lose.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from penstock import exits
from penstock.exits import Exit
from penstock.supervisor.exit_record import InFlight


class Words(Protocol):
    """A worker's last words (see ``messages.LastWords``)."""

    @property
    def code(self) -> int:
        """The code it meant to exit with."""
        ...

    @property
    def clean(self) -> bool:
        """Whether everything was finished, committed and closed."""
        ...

    @property
    def reason(self) -> str:
        """Why not."""
        ...

    @property
    def stuck(self) -> tuple[InFlight, ...]:
        """What its handlers still held."""
        ...


class Ended(Protocol):
    """What is known of a worker that ended."""

    consumed: bool
    discarded: bool
    killed: bool
    #: Started only to give up a seat, when all the work was done.
    to_leave: bool

    @property
    def draining(self) -> bool:
        """Whether it had been told to drain."""
        ...

    @property
    def last_words(self) -> Words | None:
        """Its report at the end of its drain."""
        ...

    @property
    def fatal(self) -> Words | None:
        """What it said when it could not go on."""
        ...


@dataclass(frozen=True, slots=True)
class End:
    """How it counts. ``counts`` is false for a worker that never had anything to lose."""

    code: int
    planned: bool
    reason: str
    stuck: tuple[InFlight, ...] = ()
    counts: bool = True


class Blame(Enum):
    """Whose failure an end is."""

    NOBODY = auto()
    #: The replacement was not made; who was to be replaced goes on.
    REPLACEMENT = auto()
    SERVICE = auto()


def judge(worker: Ended, status: int) -> End:
    """Turn a worker's end (as ``os.waitstatus_to_exitcode`` gives it) into what it means.

    0 and 4 are earned by a drain that was asked for and told to be clean. Every other code of
    the contract belongs to a worker that said why, or to the signal that it died of; one that
    exits with it on its own (``os._exit(78)`` in a handler) has crashed.
    """
    words = worker.last_words
    if worker.discarded and not worker.consumed:
        return End(Exit.STOPPED, planned=True, reason="", counts=False)
    if (
        words is not None
        and words.clean
        and exits.is_planned(words.code)
        and worker.draining
        and worker.fatal is None
        # Killed by us: it had done everything; only its process would not end (a thread of
        # the user's).
        and (worker.killed or status == words.code)
    ):
        return End(words.code, planned=True, reason=words.reason, counts=not worker.to_leave)
    if worker.killed:
        return End(Exit.FORCED, planned=False, reason="the drain deadline passed")
    told = words if words is not None and not words.clean else worker.fatal
    reason = told.reason if told is not None and told.reason else _unexplained(status)
    if worker.to_leave:
        return End(Exit.FORCED, planned=False, reason=f"its seat may still be held: {reason}")
    return End(
        _code(status, explained=told is not None),
        planned=False,
        reason=reason,
        stuck=words.stuck if words is not None else (),
    )


def blame(worker: Ended, end: End, *, spare: bool) -> Blame:
    """Whose failure this end is; ``spare``: the slot is in other hands, or wanted by nobody.

    What a process that consumed left undone cannot be made good by its successor.
    """
    if end.planned:
        return Blame.NOBODY
    return Blame.REPLACEMENT if spare and not worker.consumed else Blame.SERVICE


def failing(code: int) -> int:
    """The code that a worker's failure ends the service with; the contract's, or 1."""
    if code > exits.SIGNAL_BASE or (
        code in Exit.__members__.values() and code not in exits.PLANNED
    ):
        return code
    return Exit.CRASHED


def _code(status: int, *, explained: bool) -> int:
    if status < 0:
        return exits.from_wait_status(status)
    return failing(status) if explained and status <= exits.SIGNAL_BASE else Exit.CRASHED


def _unexplained(status: int) -> str:
    code = exits.from_wait_status(status)
    if status < 0:
        hint = " (out of memory, or killed by somebody)" if code == exits.SIGNAL_BASE + 9 else ""
        return f"died: {exits.describe(code)}{hint}"
    return f"exited with status {status} without being asked to"
