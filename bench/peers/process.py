"""A peer's app as an OS process: started, watched through /proc, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench.peers.catalogue import ROOT, Peer
from devtools.service import free_port

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class PeerError(Exception):
    """The peer did not do what was waited for; the text ends with its log's last lines."""


class Process:
    """One run of an app. It is in a process group of its own, which ends with it."""

    def __init__(self, peer: Peer, directory: Path, **variables: object) -> None:
        """``variables`` become ``PEER_*``; ``directory`` gets the log, and is its cwd."""
        directory.mkdir(parents=True, exist_ok=True)
        self._name = peer.name
        self._log = directory / "log"
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "PEER_"))}
        env |= {"PYTHONPATH": str(ROOT), **peer.env}
        env |= {f"PEER_{k.upper()}": str(v) for k, v in variables.items()}
        if peer.ours:
            env |= _service(directory, env["PEER_BOOTSTRAP"])
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                peer.command,
                env=env,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process.poll() is None

    def family(self) -> set[int]:
        """Its pid and those of its descendants; any of its threads may have started them."""
        found = [self._process.pid]
        for parent in found:
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                with contextlib.suppress(OSError):  # it ended meanwhile
                    found.extend(int(child) for child in children.read_text().split())
        return set(found)

    def usage(self) -> tuple[float, float]:
        """CPU seconds and resident MB of the process and its descendants.

        Pages that several of them share count once for each.
        """
        cpu = pages = 0
        for pid in self.family():
            with contextlib.suppress(OSError):  # it ended meanwhile
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                cpu += int(fields[11]) + int(fields[12])  # utime, stime
                pages += int(fields[21])  # rss
        return cpu / _TICK, pages * _PAGE / 1e6

    def until(self, condition: Callable[[], bool], what: str, timeout: float) -> None:
        """Wait for it.

        Raises:
            PeerError: it ended, or the time is up.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if not self.running:
                raise PeerError(f"{self._name}: exit {self.code} before {what}\n{self._tail()}")
            if time.monotonic() > deadline:
                raise PeerError(f"{self._name}: no {what} within {timeout:g} s\n{self._tail()}")
            time.sleep(0.02)  # the poll interval of a wait on a condition

    @property
    def code(self) -> int:
        """The exit code as a shell would tell it; only when it has ended."""
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def terminate(self, timeout: float) -> tuple[int, float]:
        """TERM, and KILL after ``timeout`` seconds; the exit code and the seconds it took."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        took = time.monotonic() - began
        self.kill()
        return self.code, took

    def kill(self) -> None:
        """End it and all of its group, whatever state they are in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


def _service(directory: Path, bootstrap: str) -> dict[str, str]:
    """What `penstock run` has to be told about this machine; all else is as it comes."""
    (directory / "termination-log").touch()
    return {
        "PYTHONPATH": os.pathsep.join((str(ROOT / "app"), str(ROOT))),
        "PENSTOCK_BOOTSTRAP_SERVERS": bootstrap,
        "PENSTOCK_HTTP_HOST": "127.0.0.1",
        "PENSTOCK_HTTP_PORT": str(free_port()),
        "PENSTOCK_CONTROL_TOKEN": "bench-token",
        "PENSTOCK_STATE_DIR": str(directory / "state"),
        "PENSTOCK_RUNTIME_DIR": str(directory / "runtime"),
        "PENSTOCK_TERMINATION_LOG": str(directory / "termination-log"),
    }
