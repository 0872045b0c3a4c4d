"""The exit contract: one table that feeds code, chart, alerts, manifests and docs.

0 and 4 are *earned*: a service returns them only after every handler finished, every
finished record's offset was committed and every client was closed. Anything less is another
code. Codes 64 and 78 are the ones ``sysexits.h`` gives to a bad command line and to a bad
configuration; 128+n is the shell's and Kubernetes' convention for "died of signal n".
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Exit(IntEnum):
    """The codes a service chooses itself. A death by signal has a code of its own, 128+n."""

    STOPPED = 0
    CRASHED = 1
    FORCED = 2
    UNHEALTHY = 3
    RESTART = 4
    USAGE = 64
    CONFIG = 78


#: ``os.waitpid`` reports a death by signal n; supervisors and shells write it as 128 + n.
SIGNAL_BASE: Final = 128

#: The journal's word for a run that left no exit line: killed as a whole, code unknown.
LOST: Final = "LOST"
LOST_CODE: Final = "unknown"
KILLED: Final = "KILLED"


@dataclass(frozen=True, slots=True)
class ExitKind:
    """One row of the contract.

    ``code`` is the decimal code, or ``128+n`` for the family of deaths by signal.
    """

    code: str
    name: str
    planned: bool
    when: str


_WHEN: Final[dict[Exit, str]] = {
    Exit.STOPPED: "asked to stop (TERM, INT, QUIT): drained, committed, left the group",
    Exit.RESTART: "asked to restart (USR2, POST /restart, preStop): drained, committed",
    Exit.CRASHED: (
        "unhandled error, fatal Kafka error (fenced, authentication, authorization), worker lost"
    ),
    Exit.FORCED: (
        "the drain deadline passed: work in flight was abandoned and will be delivered again"
    ),
    Exit.UNHEALTHY: (
        "asked to stop or restart while liveness was already failing "
        "(for example the kubelet killing it)"
    ),
    Exit.USAGE: "bad command line",
    Exit.CONFIG: "bad configuration, unimportable application",
}

#: Codes that a person, or a machine, asked for and that were earned by a clean drain.
PLANNED: Final[frozenset[int]] = frozenset({Exit.STOPPED, Exit.RESTART})

#: Deaths by signal seen in the field, exported as 0 from the first scrape (see metrics).
COMMON_SIGNALS: Final = (
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGKILL,
    signal.SIGSEGV,
    signal.SIGTERM,
)

TABLE: Final[tuple[ExitKind, ...]] = (
    *(
        ExitKind(str(int(code)), code.name, int(code) in PLANNED, when)
        for code, when in _WHEN.items()
    ),
    ExitKind(
        f"{SIGNAL_BASE}+n",
        KILLED,
        planned=False,
        when=("a worker died of signal n (137 out of memory or KILL, 139 segmentation fault)"),
    ),
)


def name_of(code: int) -> str:
    """The name of an exit code, ``KILLED`` for 128+n, ``CRASHED`` for anything unlisted.

    A worker may exit with any code at all (``os._exit(17)`` in a handler); what the
    contract does not list is a crash.
    """
    if code > SIGNAL_BASE:
        return KILLED
    try:
        return Exit(code).name
    except ValueError:
        return Exit.CRASHED.name


def is_planned(code: int) -> bool:
    """Whether the code is one that was asked for and earned (0 and 4)."""
    return code in PLANNED


def from_wait_status(code: int) -> int:
    """An exit code from ``os.waitstatus_to_exitcode``: negative n becomes 128+n."""
    return SIGNAL_BASE - code if code < 0 else code


def describe(code: int) -> str:
    """A short phrase for logs: ``137 KILLED (SIGKILL)``, ``4 RESTART``."""
    name = name_of(code)
    if name == KILLED:
        try:
            return f"{code} {name} ({signal.Signals(code - SIGNAL_BASE).name})"
        except ValueError:
            return f"{code} {name}"
    return f"{code} {name}"


def known_codes() -> tuple[tuple[str, str, bool], ...]:
    """``(code, name, planned)`` of every series that ``penstock_exits_total`` starts at 0."""
    own = ((str(int(c)), c.name, is_planned(c)) for c in Exit)
    killed = ((str(SIGNAL_BASE + s), KILLED, False) for s in COMMON_SIGNALS)
    return (*own, *killed, (LOST_CODE, LOST, False))
