"""What the supervisor needs of the machine: clocks, processes, a port, a journal.

One place for all of it, so that a model test can drive the real supervisor through years of
signals, deaths and deadlines in a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import penstock
from penstock import cgroup
from penstock.private_dir import open_private
from penstock.settings import Settings
from penstock.supervisor import descendants
from penstock.supervisor.child import Process
from penstock.supervisor.descendants import Leader
from penstock.supervisor.journal import Journal
from penstock.supervisor.spawn import Spawned

if TYPE_CHECKING:
    from penstock.http.server import HttpServer
    from penstock.supervisor.view import View


class Host:
    """The real one."""

    #: The most memory that the process reaped last ever held, in bytes, where that is known.
    peak: int | None = None

    def __init__(self) -> None:
        self._cgroup = cgroup.find()

    def monotonic(self) -> float:
        """Seconds on a clock that is never set."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def selector(self) -> selectors.BaseSelector:
        """What waits for signals and messages."""
        return selectors.DefaultSelector()

    def spawn(self, index: int, target: str) -> Process:
        """Start a worker process. Raises OSError if the machine has no room for it."""
        return Spawned(index, target)

    def reap(self, workers: Sequence[Leader]) -> tuple[int, int] | None:
        """A child that ended, and how (as ``os.waitstatus_to_exitcode`` gives it).

        What one of ``workers`` left behind ends with it. As PID 1 it may be an orphan of
        somebody else.
        """
        found = next(descendants.reap(workers), None)
        if found is None:
            return None
        self.peak = found.peak
        return found.pid, found.code

    def memory(self) -> cgroup.Reading | None:
        """What the memory cgroup says now; None where there is none."""
        return None if self._cgroup is None else self._cgroup.read()

    def weigh(self, pid: int) -> cgroup.ProcessMemory | None:
        """What a process holds now; None if it is gone, or that cannot be told here."""
        return cgroup.process_memory(pid)

    def journal(self, directory: Path, *, guarded: bool = False) -> Journal:
        """Open the journal.

        ``guarded``: the directory lies where everybody may write, so it must be ours alone.

        Raises:
            ConfigError: another service has it, or somebody else the directory.
        """
        if guarded:
            with contextlib.suppress(OSError):  # the journal tells why it cannot be kept
                os.close(open_private(directory, "state directory", "PENSTOCK_STATE_DIR"))
        return Journal.open(directory, now=self.wall())

    def last_will(self, told: Mapping[str, Any], seconds: float) -> list[str]:
        """Have a process of its own commit what a dead worker cannot; the ids that were taken.

        Waits for it, ``seconds`` at most.
        """
        try:
            ended = subprocess.run(
                [sys.executable, "-P", "-m", "penstock.worker.last_will"],
                input=json.dumps(told).encode(),
                stdout=subprocess.PIPE,
                timeout=seconds,
                check=True,
            )
            return [str(each) for each in json.loads(ended.stdout)]
        except (OSError, ValueError, TypeError, subprocess.SubprocessError):
            return []

    def listen(self, view: View, settings: Settings) -> HttpServer:
        """Take the port; the server is still to be started.

        Raises:
            ConfigError: the port or the token cannot be had; the text names the setting.
        """
        from penstock.http.api import build_api  # noqa: PLC0415 (imports while workers start)
        from penstock.http.server import HttpServer, bind  # noqa: PLC0415
        from penstock.http.token import resolve_token  # noqa: PLC0415

        sock = bind(settings.http_host, settings.http_port)
        token = resolve_token(settings)
        return HttpServer(build_api(view, token, version=penstock.__version__), sock)
