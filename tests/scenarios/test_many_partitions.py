"""A thousand partitions in one worker."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from devtools.service import Service
from devtools.tasks import Task
from tests.scenarios.course import Course, until_done

PARTITIONS = 1_000


@pytest.mark.timeout(300)
def test_a_thousand_partitions(
    make_course: Callable[..., Course], serve: Callable[..., Service]
) -> None:
    course = make_course(partitions=PARTITIONS, order_by="key", concurrency=32, asynchronous=True)
    service = serve(course).start().until_ready()
    course.send([Task(n % PARTITIONS, b"key-%d" % n, sleep=0.05) for n in range(4_000)])
    service.until(lambda: course.done() >= 1_000, "a thousand records")
    assert service.stop(signal.SIGUSR2) == 4
    assert course.done() < course.total, "it was to be restarted in the middle"
    service.start().until_ready()
    until_done(service.until, course)
    assert service.stop() == 0
    verdict = course.judge()
    assert verdict.perfect, str(verdict)
    assert course.positions() == course.sent
