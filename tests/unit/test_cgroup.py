"""Memory cgroups: v1 and v2 as they are in containers, below systemd, and where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock import cgroup
from penstock.cgroup import Cgroup, ProcessMemory, Reading

MIB = 1 << 20

V1_MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 {root} {point}/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / {point}/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2_MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 {root} {point} ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate
"""
V1_OWN = "9:name=systemd:{path}\n5:cpu,cpuacct:{path}\n4:memory:{path}\n0::/\n"


def v1(
    limit: str = "419430400", usage: int = 300 * MIB, inactive: int = 20 * MIB
) -> dict[str, str]:
    return {
        "memory.limit_in_bytes": f"{limit}\n",
        "memory.usage_in_bytes": f"{usage}\n",
        "memory.max_usage_in_bytes": f"{usage + 5}\n",
        "memory.stat": f"cache 1\ninactive_file 7\ntotal_inactive_file {inactive}\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    }


def v2(
    limit: str = "419430400", usage: int = 300 * MIB, inactive: int = 20 * MIB
) -> dict[str, str]:
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{usage}\n",
        "memory.peak": f"{usage + 5}\n",
        "memory.stat": f"anon 1\nactive_file 3\ninactive_file {inactive}\n",
        "memory.events": "low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 0\n",
    }


def place(directory: Path, texts: dict[str, str]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (directory / name).write_text(text)
    return directory


@pytest.mark.parametrize(("version", "texts"), [(1, v1()), (2, v2())])
def test_a_cgroup_with_a_limit(tmp_path: Path, version: int, texts: dict[str, str]) -> None:
    found = Cgroup(version, place(tmp_path, texts)).read()
    assert found == Reading(400 * MIB, 280 * MIB, peak=300 * MIB + 5, oom_kills=3)
    assert found.share == 0.7


@pytest.mark.parametrize(
    ("version", "texts"), [(1, v1(limit="9223372036854771712")), (2, v2(limit="max"))]
)
def test_a_cgroup_without_one(tmp_path: Path, version: int, texts: dict[str, str]) -> None:
    found = Cgroup(version, place(tmp_path, texts)).read()
    assert found is not None
    assert (found.limit, found.share) == (None, None)


@pytest.mark.parametrize("version", [1, 2])
def test_nothing_to_read(tmp_path: Path, version: int) -> None:
    assert Cgroup(version, tmp_path / "not-there").read() is None


def test_an_older_kernel_has_no_peak_and_droppable_pages_may_exceed_the_usage(
    tmp_path: Path,
) -> None:
    texts = v2(usage=10, inactive=4096)
    del texts["memory.peak"]
    assert Cgroup(2, place(tmp_path, texts)).read() == Reading(400 * MIB, 0, None, 3)


@pytest.mark.parametrize(
    ("own", "mounts", "expected"),
    [
        # a container with a cgroup namespace, v2: its own is the root
        ("0::/\n", V2_MOUNTS.format(root="/", point="/sys/fs/cgroup"), [(2, "")]),
        # the same without a namespace: the mount shows the host's tree
        (
            "0::/kubepods.slice/pod1/cri-2\n",
            V2_MOUNTS.format(root="/", point="/sys/fs/cgroup"),
            [
                (2, "kubepods.slice/pod1/cri-2"),
                (2, "kubepods.slice/pod1"),
                (2, "kubepods.slice"),
                (2, ""),
            ],
        ),
        # a v1 container: the mount's root is its own cgroup
        (
            V1_OWN.format(path="/kubepods/burstable/pod1/abc"),
            V1_MOUNTS.format(root="/kubepods/burstable/pod1/abc", point="/sys/fs/cgroup"),
            [(1, "memory")],
        ),
        # a systemd unit, v1 beside a v2 tree without controllers
        (
            V1_OWN.format(path="/system.slice/penstock.service"),
            V1_MOUNTS.format(root="/", point="/sys/fs/cgroup"),
            [
                (1, "memory/system.slice/penstock.service"),
                (1, "memory/system.slice"),
                (1, "memory"),
            ],
        ),
        # moved out of its namespace: the path leads out of what is mounted
        ("0::/../other\n", V2_MOUNTS.format(root="/", point="/sys/fs/cgroup"), [(2, "")]),
        (
            V1_OWN.format(path="/elsewhere"),
            V1_MOUNTS.format(root="/docker/abc", point="/sys/fs/cgroup"),
            [(1, "memory")],
        ),
        ("0::/\n", "22 27 0:21 / /proc rw,relatime - proc proc rw\n", []),
        ("", "", []),
        ("nonsense\n", "nonsense\n", []),
    ],
)
def test_where_a_process_memory_cgroup_is(
    own: str, mounts: str, expected: list[tuple[int, str]]
) -> None:
    top = Path("/sys/fs/cgroup")
    assert cgroup.directories(own, mounts) == [(v, top / rest) for v, rest in expected]


def test_the_tightest_limit_of_the_way_up_counts(tmp_path: Path) -> None:
    point = tmp_path / "mounted"
    proc = place(
        tmp_path / "proc",
        {
            "cgroup": "0::/a.slice/b.service\n",
            "mountinfo": V2_MOUNTS.format(root="/", point=point),
        },
    )
    place(point / "a.slice", v2(limit="1000"))
    place(point / "a.slice" / "b.service", v2(limit="max"))
    assert cgroup.find(proc) == Cgroup(2, point / "a.slice")
    place(point / "a.slice" / "b.service", v2(limit="1000"))
    assert cgroup.find(proc) == Cgroup(2, point / "a.slice" / "b.service")  # the inner at a tie
    for directory in (point / "a.slice", point / "a.slice" / "b.service"):
        place(directory, v2(limit="max"))
    found = cgroup.find(proc)  # none anywhere: its own, for what it uses
    assert found == Cgroup(2, point / "a.slice" / "b.service")


def test_no_cgroup_no_proc(tmp_path: Path) -> None:
    assert cgroup.find(tmp_path) is None
    assert cgroup.process_memory(1, tmp_path) is None


def test_a_process() -> None:
    assert cgroup.parse_statm("2500 1000 400 1 0 300 0\n", 4096) == ProcessMemory(
        1000 * 4096, 600 * 4096
    )
    assert cgroup.parse_statm("10 5 7 0 0 0 0\n", 4096) == ProcessMemory(5 * 4096, 0)
    assert cgroup.parse_statm("", 4096) is None
    assert cgroup.parse_statm("a b c", 4096) is None


def test_this_very_process() -> None:
    found = cgroup.process_memory(os.getpid())
    if found is None:
        pytest.skip("no /proc here")
    hoard = bytes(32 * MIB)
    more = cgroup.process_memory()
    assert more is not None
    assert len(hoard) == 32 * MIB
    assert more.private >= found.private
    assert 0 < found.private <= found.resident
