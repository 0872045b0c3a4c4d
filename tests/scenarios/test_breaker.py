"""A circuit breaker: a handler that fails for all does not fill the dead-letter topic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from devtools.broker import Admin
from devtools.reading import read
from devtools.service import Service
from devtools.tasks import Task
from tests.scenarios.course import Course, until_done, until_more

PARTITIONS = 3
CONCURRENCY = 4
WINDOW = 10


def test_breaker_opens_and_closes(
    make_course: Callable[..., Course],
    serve: Callable[..., Service],
    admin: Admin,
    group: str,
    tmp_path: Path,
) -> None:
    dead, trouble = f"dead-{group}", tmp_path / "database-is-down"
    admin.create_topic(dead, 1)
    course = make_course(
        partitions=PARTITIONS,
        order_by="key",
        concurrency=CONCURRENCY,
        trouble=trouble,
        retry={"attempts": 2, "first": 0.05},
        then=["dead_letter", dead],
        breaker={"share": 0.5, "window": WINDOW, "pause": 0.5, "limit": 1.0},
    )
    is_open = f'penstock_breaker_open{{group="{course.group}"}}'
    opened = f'penstock_breaker_opened_total{{group="{course.group}"}}'
    service = serve(course).start().until_ready()
    good = [Task(n % PARTITIONS, b"key-%d" % n) for n in range(60)]
    course.send(good)
    until_done(service.until, course)
    trouble.touch()
    course.send(good * 5)
    service.until(lambda: service.metrics().get(is_open) == 1, "an open breaker")
    # It stays open as long as the trouble lasts, and tries one record at a time.
    tries = len(course.spans())
    service.until(lambda: len(course.spans()) >= tries + 3, "three probes")
    assert service.metrics()[is_open] == 1
    assert service.get("/livez")[0] == 200
    trouble.unlink()
    until_more(service.until, 100, course)
    letters = read(course.bootstrap, dead)
    lost = {
        (int(said["penstock.dlq.partition"]), int(said["penstock.dlq.offset"]))
        for said in (dict(letter.headers() or []) for letter in letters)
    }
    until_done(service.until, course, but=len(lost))
    service.until(lambda: service.metrics().get(is_open) == 0, "a closed breaker")
    assert service.metrics()[opened] >= 1
    assert service.stop() == 0
    # At most what had its second try before the first ones of the window were counted.
    assert len(letters) <= WINDOW, f"{len(letters)} dead letters"
    verdict = course.judge(without=lost)
    assert verdict.perfect, str(verdict)
    assert course.positions() == course.sent
