"""A worker and what it started end together, however the worker ends.

A worker that leaves in order ends what it started itself (``worker/leaving.py``). Here is what
happens when it could not: while its pid still cannot be given to another process (it is dead,
but not reaped), everything that belongs to it is killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol

import structlog

from penstock import processes

#: ``prctl``'s number for "orphans of mine become children of mine" (``man 2 prctl``).
_PR_SET_CHILD_SUBREAPER: Final = 36

log = structlog.get_logger("penstock.supervisor")


class Leader(Protocol):
    """A worker process."""

    @property
    def index(self) -> int:
        """Its number, for the log."""
        ...

    @property
    def pid(self) -> int:
        """Its process, and its session."""
        ...

    @property
    def mark(self) -> str:
        """What is in its environment and in that of what it starts."""
        ...


def adopt(first: int) -> int:
    """Become the parent of what workers leave behind, as PID 1 is anyway. Best effort.

    Returns when the ``first`` worker was started, in clock ticks since boot: children of ours
    from before (a shell that has exec'ed us may have some) are not a worker's.
    """
    try:
        import ctypes  # noqa: PLC0415 (while the workers start)

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (ImportError, OSError, AttributeError):  # built without; no C library; no Linux
        log.debug("orphans of workers are not handed to this process")
    process = processes.read(first)
    return process.started if process is not None else 0


class Reaped(NamedTuple):
    """A child that ended.

    ``code`` is as ``os.waitstatus_to_exitcode`` gives it, ``peak`` the most memory that it ever
    held, in bytes.
    """

    pid: int
    code: int
    peak: int


def reap(workers: Iterable[Leader]) -> Iterator[Reaped]:
    """Collect children that ended; as PID 1, orphans of others, too."""
    leaders = {worker.pid: worker for worker in workers}
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        if ended.si_pid in leaders:
            _end_what_it_left(leaders[ended.si_pid])
        pid, status, usage = os.wait4(ended.si_pid, 0)
        # Linux counts in kilobytes.
        yield Reaped(pid, os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)


def _end_what_it_left(worker: Leader) -> None:
    killed = processes.kill(lambda: processes.left_by(worker.pid, worker.mark, within=os.getpid()))
    for pid, program in killed.items():
        log.warning(
            "killed what a worker left behind", worker=worker.index, pid=pid, program=program
        )


def end_the_rest(since: int) -> None:
    """After the last worker: kill the orphans that took care to bear no sign of theirs.

    What was handed to us and was started after the first worker (``since``) descends from one;
    unless we are PID 1, who is handed everybody's.
    """
    if os.getpid() == 1:
        return
    for pid, program in processes.kill(lambda: processes.after(since)).items():
        log.warning("killed what a worker left behind", pid=pid, program=program)
