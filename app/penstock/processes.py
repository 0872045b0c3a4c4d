"""What a worker started: found in ``/proc``, and ended.

A worker is the leader of a session and has a mark in its environment; what it starts has both,
unless it takes care not to. Whatever has one of them, or descends from what has, is the
worker's. As PID 1 a supervisor also gets the orphans of others (``kubectl exec``): they have
neither, and are left alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

#: In the environment of a worker and of what it starts; the value is the worker's own. Not
#: ``PENSTOCK_``: that would be a setting.
MARK: Final = "_STARTED_BY_PENSTOCK"

#: Looking again finds what was started meanwhile; a fork bomb is not ours to win against.
_PASSES: Final = 10
#: Seconds between two looks at a process whose end nothing tells.
_LOOK: Final = 0.02
_GONE: Final = frozenset("ZXx")
#: ``multiprocessing``'s own helper. It outlives those that it serves, by a moment, to remove
#: the shared memory and semaphores that they left; it ends by itself, and ignores TERM.
_TRACKER: Final = b"multiprocessing.resource_tracker"


@dataclass(frozen=True, slots=True)
class Process:
    """A line of the process table. ``started`` is in clock ticks since boot."""

    pid: int
    parent: int
    session: int
    started: int
    ended: bool


Table = Mapping[int, Process]


def table() -> dict[int, Process]:
    """Every process there is; empty where there is no ``/proc`` of ours.

    In a pid namespace that was made without one, ``/proc`` is that of the namespace outside: its
    numbers are other processes' here, and one of them would be killed.
    """
    found = {}
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # noqa: PTH115 (as below)
            return {}
        names = os.listdir("/proc")  # noqa: PTH208 (some hundred paths would be made)
    except OSError:
        return {}
    for name in names:
        if name.isdigit() and (process := read(int(name))) is not None:
            found[process.pid] = process
    return found


def read(pid: int) -> Process | None:
    """One process, if it is there."""
    raw = _content(pid, "stat")
    fields = raw.rpartition(b")")[2].split()  # the name before may hold spaces and parentheses
    try:
        state, parent, session = fields[0].decode(), int(fields[1]), int(fields[3])
        return Process(pid, parent, session, int(fields[19]), state in _GONE)
    except (IndexError, ValueError):
        return None


def _content(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 (as above)
            return file.read(1 << 20)
    except OSError:  # it is gone, or another user's
        return b""


def offspring(processes: Table, roots: Iterable[int]) -> set[int]:
    """Everything that descends from ``roots``, without themselves. Pure."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        new = [pid for pid in children.get(todo.pop(), ()) if pid not in found]
        found.update(new)
        todo += new
    return found


def belonging(
    processes: Table, worker: int, *, marked: Callable[[int], bool], within: int | None
) -> set[int]:
    """What belongs to the worker, without itself. Pure, but for what ``marked`` does.

    ``within`` is a process that everything descends from, the supervisor: marks are looked for
    only there. Without one, everywhere.
    """
    somewhere = processes.keys() if within is None else offspring(processes, (within,))
    own = {p.pid for p in processes.values() if p.session == worker}
    own |= {pid for pid in somewhere if pid not in own and marked(pid)}
    own |= offspring(processes, {worker, *own})
    return own - {worker, within}


def mark_of(pid: int) -> str:
    """The mark in a process's environment, or nothing."""
    key = MARK.encode() + b"="
    for entry in _content(pid, "environ").split(b"\0"):
        if entry.startswith(key):
            return entry.removeprefix(key).decode(errors="replace")
    return ""


def name_of(pid: int) -> str:
    """The program. Without its arguments: they may hold secrets."""
    return _content(pid, "cmdline").partition(b"\0")[0].decode(errors="replace")


def left_by(worker: int, mark: str, *, within: int | None) -> list[Process]:
    """What a worker started and what is still there, in the order of their start."""
    processes = table()
    own = belonging(processes, worker, marked=lambda pid: mark_of(pid) == mark, within=within)
    return _alive(processes[pid] for pid in own)


def after(started: int) -> list[Process]:
    """What descends from this process and was started after ``started``."""
    processes = table()
    own = offspring(processes, (os.getpid(),))
    return _alive(processes[pid] for pid in own if processes[pid].started > started)


def _alive(some: Iterable[Process]) -> list[Process]:
    here = os.getpid()
    return sorted(
        (
            process
            for process in some
            if process.pid != here
            and not process.ended
            and _TRACKER not in _content(process.pid, "cmdline")
        ),
        key=lambda process: process.started,
    )


def send(process: Process, number: int) -> bool:
    """Signal exactly this process, not a later one with its number; whether it was there."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:  # a kernel or a sandbox without
        return _signalled(lambda: os.kill(process.pid, number))
    try:
        if not _is_there(process):
            return False
        return _signalled(lambda: signal.pidfd_send_signal(handle, number))
    finally:
        os.close(handle)


def _signalled(send_it: Callable[[], None]) -> bool:
    try:
        send_it()
    except OSError:  # gone, or another user's
        return False
    return True


def kill(find: Callable[[], list[Process]]) -> dict[int, str]:
    """KILL what ``find`` finds until it finds nothing; returns pids and programs."""
    killed: dict[int, str] = {}
    for _ in range(_PASSES):
        found = find()
        if not found:
            break
        for process in found:
            name = name_of(process.pid)
            if send(process, signal.SIGKILL):
                killed.setdefault(process.pid, name)
        wait_for(found, 0.1)
    return killed


def wait_for(some: Iterable[Process], seconds: float) -> None:
    """Wait until they have all ended, or for so long."""
    until = time.monotonic() + seconds
    poller = select.poll()
    waiting: set[int] = set()
    unseen: list[Process] = []  # no handle tells of their end
    with contextlib.ExitStack() as stack:
        for process in some:
            try:
                handle = os.pidfd_open(process.pid)
            except ProcessLookupError:
                continue
            except OSError:  # as in send
                unseen.append(process)
                continue
            stack.callback(os.close, handle)
            poller.register(handle, select.POLLIN)
            waiting.add(handle)
        while (waiting or unseen) and (left := until - time.monotonic()) > 0:
            for handle, _ in poller.poll(1000 * (min(left, _LOOK) if unseen else left)):
                poller.unregister(handle)
                waiting.discard(handle)
            unseen = [process for process in unseen if _is_there(process)]


def _is_there(process: Process) -> bool:
    now = read(process.pid)
    return now is not None and not now.ended and now.started == process.started
