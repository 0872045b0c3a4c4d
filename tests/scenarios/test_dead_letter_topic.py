"""A dead-letter topic that is missing: the record waits for it, and nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Callable

from devtools.broker import Admin
from devtools.reading import read
from devtools.service import Service
from devtools.tasks import Task
from tests.scenarios.course import Course, until_done, warnings

POISON = 5
FIRST_TRY_LATER = "a dead letter was not taken; its record waits"


def orders(value: bytes = b"") -> list[Task]:
    """One in the middle of partition 0 is refused by its handler."""
    made = [Task(n % 2, b"key-%d" % n, value) for n in range(40)]
    made[2 * POISON] = Task(0, b"bad", value, poison="no such customer")
    return made


def test_missing_topic_holds_its_record_back_and_nothing_else(
    make_course: Callable[..., Course], serve: Callable[..., Service], admin: Admin, group: str
) -> None:
    dead = f"dead-{group}"
    course = make_course(partitions=2, order_by="key", concurrency=4, then=["dead_letter", dead])
    course.send(orders())
    service = serve(course, drain_timeout=4).start()
    until_done(service.until, course, but=1)
    service.until_logged(FIRST_TRY_LATER)
    # Everything else is handled and committed; this one is neither, nor what comes behind it
    # in the offset, which cannot leave it out.
    service.until(lambda: course.positions()[1] == 20, "the other's commit")
    position, text = course.committed()[0]
    assert position == POISON
    assert text, "the offsets behind it were finished"
    service.until(lambda: dead in warnings(service), "a warning in /status")
    assert any("create it" in str(line) and dead in str(line) for line in service.log_lines()), (
        "the log names no remedy"
    )
    assert service.get("/livez")[0] == 200
    assert service.metrics()["penstock_retrying_records"] == 1

    # A restart cannot finish it, and nothing of it is lost: the record is handled again.
    code = service.stop(signal.SIGUSR2)
    record = service.exit_record()
    assert code == 4, record

    service.start().until_ready()
    service.until(lambda: len([s for s in course.spans() if s.key == "bad"]) == 2, "another try")
    admin.create_topic(dead, 1)
    service.until(lambda: course.positions()[0] == 20, "the commit of everything", 60)
    service.until(lambda: dead not in warnings(service), "the end of the warning")
    assert service.stop() == 0
    verdict = course.judge(without=[(0, POISON)])
    assert verdict.perfect, str(verdict)
    (letter,) = read(course.bootstrap, dead)
    assert dict(letter.headers() or [])["penstock.dlq.offset"] == b"%d" % POISON
