"""A Debian tree booted with systemd as its PID 1, in a container on this machine.

The network is the host's, so that a broker on loopback is reached. Everything that is written
goes to a tmpfs over the tree and is gone with the container.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from devtools import tools
from devtools.service import with_kill, worker_pids

BOOT_TIMEOUT: Final = 60.0
"""Seconds until a boot is given up; it takes about three on an idle machine."""

_POLL: Final = 0.05

#: Its processes are in a cgroup of their own from the first.
_START: Final = 'test -z "$1" || echo $$ > "$1/cgroup.procs"; shift; exec "$@"'


class ContainerUnavailable(Exception):
    """This machine cannot boot a container. The text says why."""


class ContainerError(Exception):
    """What was waited for did not come; the text says what the container looked like."""


class Container:
    """One boot of a tree. As a context manager it is up inside, and gone afterwards.

    Args:
        tree: the root file system; nothing is written to it.
        bind: what of the host to show inside, read-only, by its path there.
    """

    def __init__(self, tree: Path, *, bind: Mapping[str, Path] | None = None) -> None:
        self.tree = tree
        self.name = f"penstock-{secrets.token_hex(6)}"
        self._bind = dict(bind or {})
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._cgroups: list[Path] = []

    # -- life --------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.boot()
        except BaseException:
            self.close()
            raise
        return self

    def boot(self) -> None:
        """Boot it; returns when systemd has started everything that is enabled.

        Raises:
            ContainerUnavailable: no root, no systemd-nspawn, or it does not come up here.
        """
        nspawn = tools.find("systemd-nspawn")
        if nspawn is None:
            raise ContainerUnavailable("systemd-nspawn not found")
        if os.geteuid() != 0:
            raise ContainerUnavailable("systemd-nspawn needs root")
        command = [
            *("sh", "-c", _START, "sh"),
            *self._own_cgroup(),
            # Whatever ends us, the kernel tells nspawn, and nspawn kills the container's PID 1.
            # (A KILL of nspawn itself would leave the container running.)
            *("setpriv", "--pdeathsig", "TERM"),
            *(str(nspawn), "--quiet", "--boot", "--volatile=overlay", "--console=pipe"),
            *("--register=no", "--kill-signal=SIGKILL"),
            *(f"--directory={self.tree}", f"--machine={self.name}"),
            # Outside of systemd (a CI job's container) there is nobody to ask for a scope.
            *(() if _host_runs_systemd() else ("--keep-unit",)),
            *(f"--bind-ro={path}:{inside}" for inside, path in self._bind.items()),
        ]
        self._nspawn = subprocess.Popen(
            command,
            # cgroup v2 inside whatever there is outside; several containers on one tree.
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_LOCK": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._await_boot(self._nspawn)

    def close(self) -> None:
        """End it, whatever state it is in. May be called more than once."""
        if self._nspawn is not None:
            self._nspawn.terminate()
            try:
                self._nspawn.wait(10.0)
            except subprocess.TimeoutExpired:
                if self._leader:
                    with_kill(self._leader)
                self._nspawn.kill()
                self._nspawn.wait()
            if self._nspawn.stdout is not None:
                self._nspawn.stdout.close()
            self._nspawn = None
        for cgroup in self._cgroups:
            _until(lambda here=cgroup: _removed(here), 10.0)  # type: ignore[misc] # bound now
        self._cgroups.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- inside ------------------------------------------------------------------------

    def run(
        self, *command: str, cwd: str = "/root", check: bool = True, timeout: float = 60.0
    ) -> str:
        """Run a command as root in there; returns what it printed, both streams.

        Raises:
            ContainerError: it failed (unless ``check`` is off), or took too long.
        """
        entry = ("nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--pid")
        there = ("sh", "-c", 'cd "$0" && exec "$@"', cwd)
        try:
            done = subprocess.run(
                [*entry, *there, *command],
                env={
                    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "HOME": "/root",
                    "LANG": "C.UTF-8",
                    "TERM": "dumb",
                    "SYSTEMD_PAGER": "",
                },
                timeout=timeout,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ContainerError(f"{' '.join(command)}: more than {timeout:.0f} s") from error
        if check and done.returncode:
            raise ContainerError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}")
        return done.stdout

    @property
    def root(self) -> Path:
        """Its root directory, seen from here."""
        return Path(f"/proc/{self._leader}/root")

    def write(self, path: str, text: str) -> None:
        """Put a file there, with its directories."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """``systemctl show``: what systemd knows of a unit."""
        shown = self.run("systemctl", "show", *(f"--property={p}" for p in properties), unit)
        return dict(line.split("=", 1) for line in shown.splitlines())

    def until(self, condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
        """Wait for a condition.

        Raises:
            ContainerError: it did not come; with the end of the container's journal.
        """
        if not _until(condition, timeout):
            told = self.run("journalctl", "--no-pager", "--lines=40", check=False)
            raise ContainerError(f"no {what} within {timeout:.0f} s\n{told}")

    # -- how ---------------------------------------------------------------------------

    def _await_boot(self, nspawn: subprocess.Popen[bytes]) -> None:
        def up() -> bool:
            if nspawn.poll() is not None:
                return True
            children = worker_pids(nspawn.pid)
            if not children:
                return False
            self._leader = children[0]
            with contextlib.suppress(ContainerError):
                state = self.run("systemctl", "is-system-running", check=False, timeout=5.0)
                return state.strip() in {"running", "degraded"}
            return False

        came = _until(up, BOOT_TIMEOUT)
        if nspawn.poll() is not None:
            said = nspawn.stdout.read().decode(errors="replace") if nspawn.stdout else ""
            raise ContainerUnavailable(f"systemd-nspawn ended ({nspawn.returncode}): {said}")
        if not came:
            raise ContainerUnavailable(f"systemd was not up after {BOOT_TIMEOUT:.0f} s")

    def _own_cgroup(self) -> Sequence[str]:
        """Make a cgroup for the container where the host has no systemd that would do it."""
        if _host_runs_systemd():
            return [""]
        mounts = Path("/proc/self/mountinfo").read_text()
        unified = re.search(r"^(?:\S+ ){4}(\S+) .* - cgroup2 ", mounts, re.MULTILINE)
        if unified is None:
            raise ContainerUnavailable("no cgroup2 file system is mounted")
        ours = re.search(r"^0::(\S+)", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
        below = Path((ours[1] if ours else "/").lstrip("/")) / self.name
        made = Path(unified[1]) / below
        made.mkdir()
        self._cgroups.append(made)
        # Beside a cgroup v1, nspawn makes the same one in systemd's v1 hierarchy.
        named = re.search(r"^(?:\S+ ){4}(\S+) .* - cgroup .*\bname=systemd\b", mounts, re.MULTILINE)
        if named is not None:
            self._cgroups.append(Path(named[1]) / below)
        return [str(made)]


def _host_runs_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()  # sd_booted(3)


def _removed(cgroup: Path) -> bool:
    """Remove a cgroup and those below it; False while one is busy."""
    if not cgroup.exists():
        return True
    for directory, _, _ in os.walk(cgroup, topdown=False):
        with contextlib.suppress(OSError):
            Path(directory).rmdir()
    return not cgroup.exists()


def _until(condition: Callable[[], object], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)  # the poll interval of a wait on a condition
    return True
