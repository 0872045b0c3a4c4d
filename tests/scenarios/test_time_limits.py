"""A time limit for each record: what takes longer is tried again, then put aside."""

from __future__ import annotations

from collections.abc import Callable

from devtools.broker import Admin
from devtools.reading import read
from devtools.service import Service
from devtools.tasks import Task
from tests.scenarios.course import Course, until_done

LIMIT = 0.5
#: Seconds until the limit strikes, on a busy machine.
GRACE = 2.0
ONCE, ALWAYS = 3, 6


def test_handlers_past_their_time_limit(
    make_course: Callable[..., Course], serve: Callable[..., Service], admin: Admin, group: str
) -> None:
    dead = f"dead-{group}"
    admin.create_topic(dead, 1)
    courses = [
        make_course(
            name,
            partitions=1,
            asynchronous=name == "async",
            timeout=LIMIT,
            retry={"attempts": 2, "first": 0.1},
            then=["dead_letter", dead],
        )
        for name in ("sync", "async")
    ]
    made = [Task(0, b"key-%d" % n) for n in range(10)]
    made[ONCE] = Task(0, b"once", hangs=1)
    made[ALWAYS] = Task(0, b"always", hangs=9)
    service = serve(*courses).start()
    for course in courses:
        course.send(made)
    until_done(service.until, *courses, but=len(courses))
    counted = {
        f'penstock_record_failures_total{{reason="timeout",topic="{course.topic}"}}': 3.0
        for course in courses
    }
    service.until(lambda: counted.items() <= service.metrics().items(), str(counted), 5)
    assert service.stop() == 0

    letters = {
        dict(letter.headers() or [])["penstock.dlq.topic"]: letter
        for letter in read(courses[0].bootstrap, dead)
    }
    for course in courses:
        verdict = course.judge(without=[(0, ALWAYS)])
        assert verdict.perfect, f"{course.topic}: {verdict}"
        late = [span for span in course.spans() if not span.done]
        assert [span.offset for span in late] == [ONCE, ALWAYS, ALWAYS]
        for span in late:
            assert LIMIT <= (span.ended or 0) - span.began < LIMIT + GRACE, str(span)
        said = dict(letters[course.topic.encode()].headers() or [])
        assert said["penstock.dlq.offset"] == b"%d" % ALWAYS
        assert said["penstock.dlq.error"] == b"HandlerTimeout"
        assert said["penstock.dlq.attempts"] == b"2"
        assert b"longer than 0.5 s" in said["penstock.dlq.reason"]
        assert course.positions() == course.sent
