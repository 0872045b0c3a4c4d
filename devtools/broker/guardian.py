"""Keeps one child process from outliving the process that wanted it.

Run as a script: `guardian.py PARENT_PID DIRECTORY COMMAND…`. It starts the command, prints its pid
on stdout, and ends when the command ends (with its exit status) or when the parent is gone, however
the parent died; then it kills the child and deletes the directory, which nobody else will.

Why a process of its own: PR_SET_PDEATHSIG, the short way, fires when the *thread* that started the
child ends, so a broker started from a test's helper thread would die with that thread. Here the
only thread is the main one, so it is safe for the last step: should the guardian itself be killed,
the child goes too.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys

PARENT_CHECK_INTERVAL = 0.25
"""Seconds between two looks at whether the parent is still there."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with_guardian() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(parent: int, directory: str, command: list[str]) -> int:
    """Run `command` for as long as process `parent` lives; return an exit status like a shell's."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=_die_with_guardian,  # noqa: PLW1509 - this process has one thread
    )
    print(child.pid, flush=True)
    # Orphans are given to another process: the parent's pid changing is its death, on any Unix.
    while os.getppid() == parent:
        try:
            status = child.wait(PARENT_CHECK_INTERVAL)
        except subprocess.TimeoutExpired:
            continue
        return status if status >= 0 else 128 - status
    child.kill()
    status = 128 - child.wait()
    shutil.rmtree(directory, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
