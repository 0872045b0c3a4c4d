"""The last moments of a worker process, after it has told how it ended.

What handlers left running would outlive this process: it ends with it. Python's own way out is
not taken: it waits for threads and for ``multiprocessing``'s children for as long as they like,
and by now nothing depends on them.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from typing import Final, NoReturn

import structlog

from penstock import processes, streams

#: Seconds between asking (TERM) and making (KILL) what is left.
GRACE: Final = 1.0
#: Seconds for the exit handlers of user code: they flush traces and reports.
EXIT_HANDLERS: Final = 2.0

#: Ours; the application may do with its environment what it likes.
_MARK: Final = os.environ.get(processes.MARK, "")

log = structlog.get_logger("penstock.worker")


def leave(code: int) -> NoReturn:
    """End what was started, run the exit handlers, and exit with ``code``."""
    watch = threading.Timer(GRACE + EXIT_HANDLERS, _too_long, (code,))
    watch.name = "leaving"
    watch.daemon = True
    watch.start()
    _end_what_was_started()
    atexit._run_exitfuncs()  # noqa: SLF001 (all that Python offers for it; since 2.0)
    streams.flush()
    os._exit(code)


def abandon(code: int) -> NoReturn:
    """Exit at once: handlers are stuck. The supervisor ends what they started, if there is one."""
    if _orphaned():
        processes.kill(_left)
    os._exit(code)


def _too_long(code: int) -> None:
    log.warning("exit handlers of the application take too long; leaving without them")
    os._exit(code)


def _end_what_was_started() -> None:
    left = _left()
    if not left:
        return
    names = {process.pid: processes.name_of(process.pid) for process in left}
    for process in left:
        processes.send(process, signal.SIGTERM)
    processes.wait_for(left, GRACE)
    killed = processes.kill(_left)
    for pid, name in {**names, **killed}.items():
        log.warning(
            "ended what a handler left running",
            pid=pid,
            program=name,
            signal="KILL" if pid in killed else "TERM",
        )


def _left() -> list[processes.Process]:
    # Orphans are handed to the supervisor; without one, to somebody else.
    within = None if _orphaned() else os.getppid()
    return processes.left_by(os.getpid(), _MARK, within=within)


def _orphaned() -> bool:
    return _MARK.partition("-")[0] != str(os.getppid())
