"""Records of 10 MB: handled, put aside, and never more of them in memory than was allowed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.broker import Admin
from devtools.reading import read
from devtools.service import Service
from devtools.tasks import Task
from tests.scenarios.course import Course, until_done

SIZE = 10_000_000
COUNT = 40
POISON = 12
LARGE = {"max.message.bytes": str(SIZE + 100_000)}
#: Bytes that may wait in the worker, and what it may use beside an idle one: those, one fetch
#: more (a record of each partition), and kafka-python's copies: some three of what it fetches,
#: some four of a letter on its way, and what the heap does not give back between them. All
#: records together are 400 MB.
BUFFER = 20_000_000
ALLOWED = 270_000_000


def peak(pid: int) -> int:
    """The most memory that a process ever had, in bytes."""
    (line,) = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) << 10


@pytest.mark.parametrize("order", ["partition", "key"])
def test_records_of_ten_megabytes(
    make_course: Callable[..., Course],
    serve: Callable[..., Service],
    admin: Admin,
    group: str,
    order: str,
) -> None:
    dead = f"dead-{group}"
    admin.create_topic(dead, 1, config=LARGE)
    course = make_course(
        partitions=2,
        config=LARGE,
        order_by=order,
        then=["dead_letter", dead],
    )
    service = serve(course, buffer_bytes=BUFFER).start().until_ready()
    (worker,) = service.workers()
    before = peak(worker)
    values = [bytes([n]) * SIZE for n in range(COUNT)]
    # While the first one takes its time, everything could be fetched.
    made = [
        Task(n % 2, b"key-%d" % n, value, sleep=0 if n else 8.0) for n, value in enumerate(values)
    ]
    made[POISON] = Task(0, b"bad", values[POISON], poison="no such customer")
    course.send(made, **{"message.max.bytes": SIZE + 100_000})
    until_done(service.until, course, but=1)
    service.until(lambda: course.positions() == course.sent, "the commit of everything")
    used = peak(worker) - before
    assert service.stop() == 0
    verdict = course.judge(without=[(0, POISON // 2)])
    assert verdict.perfect, str(verdict)
    (letter,) = read(course.bootstrap, dead)
    assert hashlib.sha256(letter.value() or b"").digest() == hashlib.sha256(values[POISON]).digest()
    assert letter.key() == b"bad"
    assert used < ALLOWED, f"{used / 1e6:.0f} MB beside {before / 1e6:.0f} MB"
