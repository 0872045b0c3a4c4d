"""One Java process, under the guard of `guardian.py`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

_GUARDIAN = Path(__file__).with_name("guardian.py")

LOG = "broker.log"
"""Name of the file with everything that the JVM prints."""

_ENDED_BY_TERM = 128 + signal.SIGTERM
"""The JVM's exit status when TERM ended it, after its shutdown hooks."""

FLAGS = (
    "-Xmx384m",
    "-XX:+UseSerialGC",  # fewest threads, least memory
    "-XX:TieredStopAtLevel=1",  # compile fast rather than well: this broker lives for seconds
    "-Djava.awt.headless=true",
    # The JVM's own warnings (about class data sharing, mostly) would only hide Kafka's.
    *("-Xlog:disable", "-Xlog:all=error:stderr"),
    # slf4j-simple takes its settings from the classpath or from here. A directory on the classpath
    # would rule out class data sharing (archive.py), which halves the start time: so, here.
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    # Warns of every setting meant for one listener only ("unknown configuration").
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=error",
)
"""Flags of every JVM here. An archive of class data fits only the flags it was made with."""


class Jvm:
    """A running Java program; its output goes to the end of `LOG` in its directory.

    It has a session of its own: Ctrl-C in a terminal is for the program that uses the broker, and
    that may still need the broker to stop in good order. It dies with this Python process, and then
    its directory is deleted.
    """

    def __init__(
        self,
        java: Path,
        classpath: str,
        flags: tuple[str, ...],
        main: tuple[str, ...],
        directory: Path,
    ) -> None:
        """Start class `main[0]` with arguments `main[1:]`.

        Raises:
            OSError: the process could not be started.
        """
        # -I -S: the guardian needs nothing but the standard library, and starts at once.
        guard = [sys.executable, "-I", "-S", str(_GUARDIAN), str(os.getpid()), str(directory)]
        with (directory / LOG).open("ab") as output:
            self._guardian = subprocess.Popen(
                [*guard, str(java), *FLAGS, *flags, "-cp", classpath, *main],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        assert self._guardian.stdout is not None
        with self._guardian.stdout as first_line:
            told = first_line.readline()
        if not told:
            raise OSError(f"the JVM could not be started (guardian exit {self._guardian.wait()})")
        self.pid = int(told)

    @property
    def alive(self) -> bool:
        """Whether the process still runs (or is paused)."""
        return self._guardian.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the JVM; nothing happens if it is gone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        """Wait up to `timeout` seconds for the end; return the exit status as a shell tells it.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        return self._guardian.wait(timeout)

    def terminate(self, timeout: float) -> bool:
        """Ask it to end (TERM), and KILL it after `timeout` s; return whether it ended well."""
        self.send(signal.SIGCONT)  # a paused process would not see TERM
        self.send(signal.SIGTERM)
        try:
            status = self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return status in (0, _ENDED_BY_TERM)

    def kill(self) -> None:
        """End it at once (KILL) and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.wait(30)
