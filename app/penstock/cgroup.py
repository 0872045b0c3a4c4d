"""How much memory there is, and how much is used, as the kernel's memory cgroup has it (v1, v2).

The *working set* is what the kubelet evicts by and, nearly, what the kernel kills by: the usage
without the file pages that can be dropped at once. Everything here reads small files below
``/proc`` and ``/sys`` (some tens of microseconds); nothing is kept open. Where there is no
cgroup, or no Linux, there is nothing to read, and that is ``None``, never 0.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

#: v1 says "no limit" as the largest multiple of a page, v2 as "max".
_UNLIMITED: Final = 1 << 60

_PAGE: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a memory cgroup, in bytes; None is "not told" (``limit``: there is none).

    ``peak`` is the highest usage so far, droppable pages included; ``oom_kills`` counts the
    processes that the kernel killed in it for want of memory.
    """

    limit: int | None
    working_set: int
    peak: int | None = None
    oom_kills: int | None = None

    @property
    def share(self) -> float | None:
        """The working set as a share of the limit."""
        return self.working_set / self.limit if self.limit else None


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """What one process holds, in bytes: ``resident``, and of that ``private``, which ends with it.

    Pages that it shares (the interpreter's code, what it maps) count for ``resident`` only.
    """

    resident: int
    private: int


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A memory cgroup's directory. ``version`` is 1 or 2."""

    version: int
    path: Path

    def read(self) -> Reading | None:
        """Look at it now; None if it cannot be read."""
        parse, names = _FORMS[self.version]
        return parse({name: _text(self.path / name) for name in names})


def reading_v1(texts: Mapping[str, str]) -> Reading | None:
    """The files of a v1 memory cgroup → what they say. Pure."""
    usage = _number(texts["memory.usage_in_bytes"])
    if usage is None:
        return None
    stat = _fields(texts["memory.stat"])
    limit = _number(texts["memory.limit_in_bytes"])
    return Reading(
        limit=None if limit is None or limit >= _UNLIMITED else limit,
        working_set=max(0, usage - stat.get("total_inactive_file", 0)),
        peak=_number(texts["memory.max_usage_in_bytes"]),
        oom_kills=_fields(texts["memory.oom_control"]).get("oom_kill"),
    )


def reading_v2(texts: Mapping[str, str]) -> Reading | None:
    """The files of a v2 cgroup → what they say. Pure. ``memory.peak`` is there since Linux 5.19."""
    usage = _number(texts["memory.current"])
    if usage is None:
        return None
    return Reading(
        limit=_number(texts["memory.max"]),  # "max" is no number
        working_set=max(0, usage - _fields(texts["memory.stat"]).get("inactive_file", 0)),
        peak=_number(texts["memory.peak"]),
        oom_kills=_fields(texts["memory.events"]).get("oom_kill"),
    )


_FORMS: Final[
    Mapping[int, tuple[Callable[[Mapping[str, str]], Reading | None], tuple[str, ...]]]
] = {
    1: (
        reading_v1,
        (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "memory.max_usage_in_bytes",
            "memory.stat",
            "memory.oom_control",
        ),
    ),
    2: (
        reading_v2,
        ("memory.max", "memory.current", "memory.peak", "memory.stat", "memory.events"),
    ),
}


def find(proc: Path = Path("/proc/self")) -> Cgroup | None:
    """The cgroup whose limit is this process's: the tightest of its own and those above.

    A container sees its own as the root; a systemd unit's limit is in its own or in a slice
    above. Where a v1 memory controller is mounted, that one counts.
    """
    places = directories(_text(proc / "cgroup"), _text(proc / "mountinfo"))
    found: tuple[int, Cgroup] | None = None
    readable: Cgroup | None = None
    for version, path in places:  # from the innermost on, so that it wins a tie
        cgroup = Cgroup(version, path)
        reading = cgroup.read()
        if reading is None:
            continue
        readable = readable or cgroup
        if reading.limit is not None and (found is None or reading.limit < found[0]):
            found = reading.limit, cgroup
    return found[1] if found is not None else readable


def directories(cgroup: str, mountinfo: str) -> list[tuple[int, Path]]:
    """``(version, directory)`` of a process's memory cgroup and those above, innermost first.

    Pure: the texts are those of ``/proc/PID/cgroup`` and ``/proc/PID/mountinfo`` (proc(5)).
    """
    own: dict[int, str] = {}
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            own[1] = path
        elif number == "0" and not controllers:
            own[2] = path
    version = 1 if 1 in own else 2
    mount = _mount(mountinfo, version)
    if version not in own or mount is None:
        return []
    root, point = mount
    inner = PurePosixPath(own[version])
    # A container's mount shows a part of the tree only; from outside its namespace the path
    # may lead elsewhere, and then the mount's own top is the container's.
    steps = inner.relative_to(root).parts if inner.is_relative_to(root) else ()
    if ".." in steps:
        steps = ()
    top = Path(point)
    return [(version, top.joinpath(*steps[:depth])) for depth in range(len(steps), -1, -1)]


def _mount(mountinfo: str, version: int) -> tuple[str, str] | None:
    """``(root, mount point)`` of the memory controller, or of the v2 tree."""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        match left.split(), right.split():
            case [_, _, _, root, point, *_], [kind, _, options, *_]:
                v1 = kind == "cgroup" and "memory" in options.split(",")
                if v1 if version == 1 else kind == "cgroup2":
                    return root, point
    return None


def process_memory(pid: int | str = "self", proc: Path = Path("/proc")) -> ProcessMemory | None:
    """What a process holds now; None if it is gone, or there is no ``/proc``."""
    return parse_statm(_text(proc / str(pid) / "statm"), _PAGE)


def parse_statm(text: str, page: int) -> ProcessMemory | None:
    """``/proc/PID/statm`` → bytes. Pure. Cheap to read, unlike ``smaps``: no walk over pages."""
    match text.split():
        case [_, all_pages, shared_pages, *_] if all_pages.isdigit() and shared_pages.isdigit():
            resident, shared = int(all_pages) * page, int(shared_pages) * page
            # A process that ends has no pages any more; the counters may be off by a few.
            return ProcessMemory(resident, max(0, resident - shared))
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdigit() else None


def _fields(text: str) -> dict[str, int]:
    """Lines of ``name number``."""
    pairs = (line.partition(" ") for line in text.splitlines())
    return {name: int(value) for name, _, value in pairs if value.isdigit()}
