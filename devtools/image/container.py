"""A container, as `docker run --read-only` makes it, on a machine that has only a runtime."""

from __future__ import annotations

import http.client
import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from .build import Image

#: The only places that the service writes to.
WRITABLE: Final = ("/var/lib/penstock", "/run/penstock", "/tmp")

_NO_CAPABILITIES: Final[dict[str, list[str]]] = {
    kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
}


class ContainerError(Exception):
    """It did not do what was waited for; with the end of its log."""


class Container:
    """One container on the host's network: read-only root, no capabilities, no new privileges.

    Args:
        crun: the runtime's program.
        image: whose entrypoint, command, user, directory and environment hold, as with Docker.
        directory: for the bundle and the log; an empty one.
        env: added to the image's; `PENSTOCK_HTTP_PORT` is the port that is asked.
        entrypoint: in place of the image's.
        command: in place of the image's CMD.
        mounts: host directories by where they are seen, read-only.
        tmpfs: what can be written to.
        root: a tree to use, and to write into everywhere, in place of the image's.
    """

    def __init__(
        self,
        crun: Path,
        image: Image,
        directory: Path,
        *,
        env: Mapping[str, str],
        entrypoint: Sequence[str] | None = None,
        command: Sequence[str] | None = None,
        mounts: Mapping[str, Path] | None = None,
        tmpfs: Sequence[str] = WRITABLE,
        root: Path | None = None,
    ) -> None:
        directory.mkdir(parents=True)
        self._crun = crun
        self._directory = directory
        self._port = int(env["PENSTOCK_HTTP_PORT"])
        self._process: subprocess.Popen[bytes] | None = None
        self.log_path = directory / "log"
        self.pid = 0  #: of its first process, as seen from here
        config = image.config
        user, group = map(int, config["User"].split(":"))
        variables = dict(line.split("=", 1) for line in config["Env"]) | dict(env)
        self._task: dict[str, Any] = {
            "user": {"uid": user, "gid": group},
            "args": [*(entrypoint or config["Entrypoint"]), *(command or config["Cmd"])],
            "env": [f"{name}={value}" for name, value in variables.items()],
            "cwd": config["WorkingDir"],
            "capabilities": _NO_CAPABILITIES,
            "noNewPrivileges": True,
        }
        bundle = {
            "ociVersion": "1.0.0",
            "process": self._task,
            "root": {"path": str(root or image.root), "readonly": root is None},
            "mounts": _mounts(dict(mounts or {}), tmpfs if root is None else ()),
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
                "maskedPaths": ["/proc/kcore", "/proc/keys"],
                "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
            },
        }
        (directory / "config.json").write_text(json.dumps(bundle))

    # -- its life ----------------------------------------------------------------------

    def start(self) -> Self:
        """Start it, and return when its first process is there."""
        pid_file = self._directory / "pid"
        run = "run", f"--pid-file={pid_file}", f"--bundle={self._directory}", "c"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(*run), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.until(lambda: pid_file.exists() and pid_file.read_text(), "first process")
        self.pid = int(pid_file.read_text())
        return self

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self, signal: str) -> None:
        """As `docker kill -s`."""
        self._run("kill", "c", signal)

    def wait(self, timeout: float = 40.0) -> int:
        """Wait for the end; the exit status."""
        assert self._process is not None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise ContainerError(f"still there after {timeout} s\n{self._tail()}") from error

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None and self.running:
            self._run("delete", "--force", "c")
            self._process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- asking it ---------------------------------------------------------------------

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As `docker exec`: same user, directory, environment, and as few rights."""
        task = self._directory / "exec.json"
        task.write_text(json.dumps(self._task | {"args": list(command)}))
        return self._run("exec", f"--process={task}", "c")

    def get(self, path: str) -> int:
        """GET; the status, 0 when nothing answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def log(self) -> str:
        """What it has written so far."""
        return self.log_path.read_text(errors="replace")

    # -- waiting -----------------------------------------------------------------------

    def until(self, condition: Callable[[], object], what: str, timeout: float = 40.0) -> None:
        """Wait for a condition; fails with the log if it does not come or the container ends."""
        assert self._process is not None
        deadline = time.monotonic() + timeout
        while not condition():
            if self._process.poll() is not None:
                raise ContainerError(
                    f"ended ({self._process.returncode}) while waiting for {what}\n{self._tail()}"
                )
            if time.monotonic() > deadline:
                raise ContainerError(f"no {what} within {timeout} s\n{self._tail()}")
            time.sleep(0.05)  # the poll interval of a wait on a condition

    def until_ready(self) -> Self:
        """Wait until ``/readyz`` says yes."""
        self.until(lambda: self.get("/readyz") == 200, "readiness")
        return self

    def until_logged(self, text: str) -> None:
        """Wait until the log has ``text``."""
        self.until(lambda: text in self.log(), f"log line {text!r}")

    def _tail(self) -> str:
        return "\n".join(self.log().splitlines()[-40:])

    # -- the runtime -------------------------------------------------------------------

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*arguments), timeout=60, capture_output=True, text=True, check=False
        )

    def _command(self, *arguments: str) -> list[str]:
        """The runtime, without cgroups: it refuses the mixed hierarchies that some machines have.

        In a mount namespace of its own it sees only a new one, and leaves nothing behind.
        """
        state = f"--root={self._directory / 'state'}"
        crun = shlex.join([str(self._crun), "--cgroup-manager=disabled", state, *arguments])
        unshare = shutil.which("unshare")
        assert unshare is not None, "util-linux is essential"
        script = f"mount -t cgroup2 none /sys/fs/cgroup && exec {crun}"
        return [unshare, "--mount", "sh", "-c", script]


def _mounts(mounts: dict[str, Path], tmpfs: Sequence[str]) -> list[dict[str, Any]]:
    quiet = ["nosuid", "nodev", "noexec"]
    found: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": [*quiet, "mode=1777"],
        },
    ]
    found += [
        # the mode that `docker run --tmpfs` gives it
        {
            "destination": path,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": [*quiet, "mode=1777"],
        }
        for path in tmpfs
    ]
    found += [
        {
            "destination": path,
            "type": "bind",
            "source": str(source),
            "options": ["bind", "ro", *quiet],
        }
        for path, source in mounts.items()
    ]
    return found
