"""Records that no try will help: put aside, skipped, or the reason to stop; never a loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from devtools.broker import Admin
from devtools.reading import read
from devtools.service import Service
from devtools.tasks import Task
from tests.scenarios.course import Course, until_done
from tests.scenarios.support import assert_failed

GOOD = b'{"amount": 7}'
#: Offsets in partition 0, and what is wrong there.
DAMAGED, WRONG, REFUSED = 5, 10, 15
POISON = {(0, DAMAGED), (0, WRONG), (0, REFUSED)}
OWN = (("trace", b"\xff\x00"), ("trace", b"again"), ("penstock", b"is no prefix of ours"))


def orders() -> list[Task]:
    made = [Task(0, b"key-%d" % n, GOOD) for n in range(21)]
    made[DAMAGED] = Task(0, b"\xfe", b'{"amount": ', more=OWN)
    made[WRONG] = Task(0, None, b'{"amount": "much"}')
    made[REFUSED] = Task(0, b"key", GOOD, poison="no such customer")
    return [*made, *(Task(1, b"key-%d" % n, GOOD) for n in range(10))]


def test_poison_in_the_middle_of_a_partition(
    make_course: Callable[..., Course],
    serve: Callable[..., Service],
    admin: Admin,
    group: str,
) -> None:
    dead = f"dead-{group}"
    admin.create_topic(dead, 1)
    aside = make_course("aside", partitions=2, kind="model", then=["dead_letter", dead])
    skipped = make_course(
        "skipped", partitions=2, kind="model", order_by="key", concurrency=4, then=["skip"]
    )
    courses = {aside: "dead_lettered", skipped: "skipped"}
    service = serve(*courses).start()
    for course in courses:
        course.send(orders())
    until_done(service.until, *courses, but=len(courses) * len(POISON))
    counted = {"penstock_in_flight_records": 0.0}
    for course, outcome in courses.items():
        of = f'topic="{course.topic}"'
        counted[f'penstock_records_total{{outcome="{outcome}",{of}}}'] = len(POISON)
        counted[f'penstock_records_total{{outcome="done",{of}}}'] = course.total - len(POISON)
        counted[f'penstock_record_failures_total{{reason="poison",{of}}}'] = len(POISON)
    service.until(lambda: counted.items() <= service.metrics().items(), str(counted), 5)
    assert service.stop() == 0
    for course in courses:
        verdict = course.judge(without=POISON)
        assert verdict.perfect, f"{course.topic}: {verdict}"
        # Only the one that the handler refused got as far as to it, and once.
        assert verdict.tries == course.total - len(POISON) + 1
        assert course.positions() == course.sent

    letters = {offset_of(letter): letter for letter in read(aside.bootstrap, dead)}
    assert sorted(letters) == [DAMAGED, WRONG, REFUSED]
    damaged = letters[DAMAGED]
    assert (damaged.key(), damaged.value()) == (b"\xfe", b'{"amount": ')
    headers = damaged.headers() or []
    assert tuple(headers[: len(OWN)]) == OWN
    said = dict(headers[len(OWN) :])
    assert said["penstock.dlq.topic"] == aside.topic.encode()
    assert said["penstock.dlq.partition"] == b"0"
    assert said["penstock.dlq.group"] == aside.group.encode()
    assert said["penstock.dlq.error"] == b"Undecodable"
    assert said["penstock.dlq.attempts"] == b"1"
    assert (letters[WRONG].key(), letters[WRONG].value()) == (None, b'{"amount": "much"}')
    assert b"amount" in dict(letters[WRONG].headers() or [])["penstock.dlq.reason"]
    refused = dict(letters[REFUSED].headers() or [])
    assert refused["penstock.dlq.error"] == b"Poison"
    assert refused["penstock.dlq.reason"] == b"no such customer"
    assert b"devtools/apps/tasks.py" in refused["penstock.dlq.traceback"]


def offset_of(letter: object) -> int:
    headers = dict(letter.headers())  # type: ignore[attr-defined] # a librdkafka message
    return int(headers["penstock.dlq.offset"])


@pytest.mark.parametrize("order", ["partition", "key"])
def test_poison_stops_the_service_and_stays_uncommitted(
    make_course: Callable[..., Course], serve: Callable[..., Service], order: str
) -> None:
    course = make_course(partitions=2, kind="model", order_by=order, concurrency=4)
    course.send([Task(0, b"k%d" % n, GOOD if n != DAMAGED else b"{") for n in range(40)])
    service = serve(course).start()
    poison = f"{course.topic}[0]@{DAMAGED}"
    assert_failed(service, 1, poison, "Undecodable", "then=dead_letter(…) or skip()")
    offset, _ = course.committed()[0]
    assert offset == DAMAGED if order == "partition" else offset <= DAMAGED

    mended = serve(course.read_as(kind="record")).start()
    until_done(mended.until, course)
    assert mended.stop() == 0
    verdict = course.judge()
    assert verdict.perfect, str(verdict)
