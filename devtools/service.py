"""A Penstock service as its own OS process, the way a platform would run it.

Used by the scenario tests, the demo and the benchmarks. Real signals, real HTTP, real exit
codes; waiting is always for a condition, with a deadline.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from devtools import leaks

TOKEN = "test-control-token"
_ROOT = Path(__file__).resolve().parent.parent


class ServiceError(Exception):
    """The service did not do what was waited for; the text ends with its log."""


def free_port() -> int:
    """A loopback port that nobody listens on right now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Service:
    """One `penstock run`. Settings are given as ``PENSTOCK_*`` without the prefix."""

    def __init__(
        self,
        target: str,
        directory: Path,
        *,
        env: Mapping[str, str] | None = None,
        wrapper: tuple[str, ...] = (),
        **settings: object,
    ) -> None:
        """``directory`` gets the log, the state and the runtime files.

        ``wrapper`` is a command to run it under (``prlimit``, ``unshare``, …).
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.target = target
        self.port = int(str(settings.pop("http_port", 0))) or free_port()
        self.wrapper = wrapper
        self.log_path = directory / "service.log"
        self.termination_log = directory / "termination-log"
        self.termination_log.touch()
        self.settings: dict[str, object] = {
            "http_host": "127.0.0.1",
            "http_port": self.port,
            "control_token": TOKEN,
            "state_dir": directory / "state",
            "runtime_dir": directory / "runtime",
            "termination_log": self.termination_log,
            **settings,
        }
        self._env = dict(env or {})
        #: What must be in no log, journal, status or message; a test may add record values.
        self.secrets: set[str] = set()
        self._leaks: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.exits: list[int] = []

    # -- life --------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it; returns at once. May be called again after it ended."""
        env = self._environment()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.wrapper, sys.executable, "-m", "penstock", "run", self.target],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        return self

    def _environment(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        path = os.pathsep.join([str(_ROOT / "app"), str(_ROOT), env.get("PYTHONPATH", "")])
        env |= {"PYTHONPATH": path.rstrip(os.pathsep), "PYTHONUNBUFFERED": "1"}
        env |= {f"PENSTOCK_{k.upper()}": str(v) for k, v in self.settings.items() if v is not None}
        return env | self._env

    @property
    def pid(self) -> int:
        """The supervisor's pid (the wrapper must ``exec``)."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the supervisor process is there."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: int) -> None:
        """Send the supervisor a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the exit; returns the code as a shell would see it (128 + n)."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise ServiceError(f"still running after {timeout} s\n{self.log_tail()}") from error
        code = 128 - code if code < 0 else code
        self.exits.append(code)
        return code

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30.0) -> int:
        """Send a signal and wait for the exit code."""
        self.send(number)
        return self.wait(timeout)

    def close(self) -> None:
        """End it, and its workers, whatever state they are in; look for secrets that got out.

        Raises:
            LeakError: one did.
        """
        if self._process is None:
            return
        children = worker_pids(self._process.pid) if self.running else []
        if self.running:
            self._process.kill()
        self._process.wait()
        for pid in children:
            with_kill(pid)
        self._look_for_leaks()

    def _look_for_leaks(self) -> None:
        state, runtime = (Path(str(self.settings[name])) for name in ("state_dir", "runtime_dir"))
        self.secrets.update(leaks.kept_in(runtime))
        places = chain(
            [
                (str(file), file.read_bytes())
                for file in (self.log_path, self.termination_log)
                if file.exists()
            ],
            leaks.files_below(state),
            leaks.files_below(runtime),
        )
        self._search(*places)
        if self._leaks:
            raise leaks.LeakError("\n".join(self._leaks))

    def _search(self, *places: tuple[str, bytes]) -> None:
        secrets = self.secrets.union(leaks.secrets_of(self._environment()))
        self._leaks += leaks.leaks(secrets, places)

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- asking it ---------------------------------------------------------------------

    def http(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> tuple[int, bytes]:
        """One request; ``(status, body)``. Raises OSError when nothing answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            answer = response.read()
            self._search((f"the answer to {method} {path}", answer))
            return response.status, answer
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, bytes]:
        """GET; ``(0, b"")`` when nothing answers."""
        try:
            return self.http("GET", path)
        except (OSError, http.client.HTTPException):
            return 0, b""

    def post(self, path: str, **body: Any) -> tuple[int, bytes]:
        """POST with the control token and a JSON body (none if empty)."""
        data = json.dumps(body).encode() if body else None
        return self.http("POST", path, data, {"Authorization": f"Bearer {TOKEN}"})

    def status(self) -> dict[str, Any]:
        """``GET /status``; empty when nothing answers."""
        code, body = self.get("/status")
        return dict(json.loads(body)) if code == 200 else {}

    def metrics(self) -> dict[str, float]:
        """``GET /metrics`` as ``name{labels}`` → value."""
        _, body = self.get("/metrics")
        rows = (line.rpartition(" ") for line in body.decode().splitlines() if line[:1] != "#")
        return {name: float(value) for name, _, value in rows}

    def command(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """``penstock`` with these arguments, beside the service, as a hook would run it."""
        done = subprocess.run(
            [sys.executable, "-m", "penstock", *arguments],
            env=self._environment(),
            cwd=self.directory,
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )
        said = (done.stdout + done.stderr).encode()
        self._search((f"what penstock {' '.join(arguments)} said", said))
        return done

    # -- waiting -----------------------------------------------------------------------

    def until(self, condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
        """Wait for a condition; fails with the log if it does not come or the service ends."""
        deadline = time.monotonic() + timeout
        while not condition():
            if not self.running:
                code = self._process.poll() if self._process else None
                raise ServiceError(f"ended ({code}) while waiting for {what}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServiceError(f"no {what} within {timeout} s\n{self.log_tail()}")
            time.sleep(0.02)  # the poll interval of a wait on a condition

    def until_listening(self, timeout: float = 30.0) -> Self:
        """Wait until HTTP answers."""
        self.until(lambda: self.get("/livez")[0], "HTTP", timeout)
        return self

    def until_ready(self, timeout: float = 30.0) -> Self:
        """Wait until ``/readyz`` says yes."""
        self.until(lambda: self.get("/readyz")[0] == 200, "readiness", timeout)
        return self

    def until_logged(self, text: str, timeout: float = 30.0) -> None:
        """Wait until the log has ``text``."""
        self.until(lambda: text in self.log(), f"log line {text!r}", timeout)

    # -- looking -----------------------------------------------------------------------

    def log(self) -> str:
        """Everything logged so far, over all starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """JSON log lines (of one event)."""
        found = []
        for line in self.log().splitlines():
            try:
                data = json.loads(line)
            except ValueError:
                continue
            if isinstance(data, dict) and event in (None, data.get("event")):
                found.append(data)
        return found

    def log_tail(self, lines: int = 40) -> str:
        """The log's last lines."""
        return "\n".join(self.log().splitlines()[-lines:])

    def workers(self) -> list[int]:
        """Pids of the worker processes."""
        return worker_pids(self.pid)

    def exit_record(self) -> dict[str, Any]:
        """What the termination message says."""
        return dict(json.loads(self.termination_log.read_text() or "{}"))


def worker_pids(parent: int) -> list[int]:
    """Direct children of a process, by /proc."""
    try:
        return [int(p) for p in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except OSError:
        return []


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def with_kill(pid: int) -> None:
    """KILL a process if it is there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
