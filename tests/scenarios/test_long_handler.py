"""A handler, or a wait, longer than ``max_poll_interval``: nobody loses the seat for it."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from devtools.service import Service
from devtools.tasks import Task
from tests.scenarios.course import Course

#: Ten minutes of work with a limit of five: as it is, where that is wanted, else scaled down.
#: Every limit is shorter than the work.
FULL_LENGTH = "PENSTOCK_FULL_LENGTH" in os.environ
WORK = 600.0 if FULL_LENGTH else 9.0
LIMITS: dict[str, object] = {
    "max_poll_interval": 300 if FULL_LENGTH else 6,
    "handler_timeout": WORK + 60,
    "poll_stall_timeout": 5,
    "session_timeout": 6,
    "heartbeat_interval": 1.5,
    "revoke_timeout": 4,
}


@pytest.mark.timeout(WORK + 180)
def test_handler_longer_than_every_limit_keeps_its_seat(
    make_course: Callable[..., Course], serve: Callable[..., Service]
) -> None:
    courses = [
        make_course("sync", partitions=2),
        make_course("async", partitions=2, asynchronous=True),
        make_course("batch", partitions=2, kind="batch"),
    ]
    waits = make_course("waits", partitions=2, retry={"first": WORK, "limit": WORK})
    service = serve(*courses, waits, **LIMITS).start().until_ready()
    for course in courses:
        course.send([Task(0, b"long", sleep=WORK), Task(0, b"next"), Task(1, b"other")])
    waits.send([Task(0, b"fails", fails=1), Task(0, b"next"), Task(1, b"other")])

    def assigned() -> dict[str, float]:
        name = "penstock_rebalances_total"
        return {k: v for k, v in service.metrics().items() if k.startswith(name)}

    at_work = {"penstock_in_flight_records": 3.0, "penstock_retrying_records": 1.0}
    service.until(lambda: at_work.items() <= service.metrics().items(), "the long ones")
    before, alive = assigned(), set[int]()

    def look() -> bool:
        alive.add(service.get("/livez")[0])
        return sum(course.done() for course in (*courses, waits)) >= 3 * (len(courses) + 1)

    service.until(look, "all records", WORK + 60)
    assert alive == {200}
    assert assigned() == before
    assert all(member["joined"] for member in service.status()["workers"])
    assert service.stop() == 0
    for course in (*courses, waits):
        verdict = course.judge()
        assert verdict.perfect, f"{course.topic}: {verdict}"
        assert course.positions() == course.sent
    for course in courses:
        (span,) = [span for span in course.spans() if span.key == "long"]
        assert span.ended is not None
        assert span.ended - span.began >= WORK
    first, second = [span for span in waits.spans() if span.key == "fails"]
    assert first.ended is not None
    assert second.began - first.ended >= WORK * 0.8 - 0.1  # a fifth of the delay is jitter
