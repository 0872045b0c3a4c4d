"""The promise for every kind of work: restarts on purpose under load repeat nothing."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator

import pytest

from devtools.service import Service
from devtools.tasks import Task, partition_of
from tests.scenarios.course import Course, until_done, until_more

PARTITIONS = 4
ROUNDS = 3

pytestmark = pytest.mark.timeout(300)


def orders(seed: int) -> Iterator[Task]:
    """Records of many keys, of random duration; one in ten fails at first.

    So there is always something finished beyond what waits for its turn or for its next try:
    at 100 a second and half a second's delay, five wait at any moment.
    """
    rng = random.Random(seed)
    while True:
        key = b"key-%d" % rng.randrange(60)
        yield Task(
            partition_of(key, PARTITIONS),
            key,
            sleep=rng.choice([0, 0.002, 0.01, 0.05]),
            fails=int(rng.random() < 0.1),
        )


def test_planned_restarts_of_every_kind_of_work(
    make_course: Callable[..., Course], serve: Callable[..., Service]
) -> None:
    retry = {"first": 0.5, "limit": 0.5}
    out_of_order = [
        make_course(
            f"{order}-{'async' if asynchronous else 'sync'}",
            partitions=PARTITIONS,
            asynchronous=asynchronous,
            order_by=order,
            concurrency=16,
            retry=retry,
        )
        for order, asynchronous in [("key", False), ("key", True), ("none", True)]
    ]
    batches = make_course(
        "batch",
        partitions=PARTITIONS,
        kind="batch",
        concurrency=2,
        retry=retry,
        batch={"count": 10},
    )
    courses = [*out_of_order, batches]
    for seed, course in enumerate(courses):
        course.start(orders(seed), rate=100)
    service = serve(*courses).start().until_ready()
    mapped = set()
    for _ in range(ROUNDS):
        until_more(service.until, 60, *courses)
        assert service.stop(signal.SIGUSR2) == 4, service.log_tail()
        for course in out_of_order:
            if any(text for _, text in course.committed().values()):
                mapped.add(course.topic)
        service.start().until_ready()
    for course in courses:
        course.finish()
    until_done(service.until, *courses)
    assert service.stop() == 0
    for course in courses:
        verdict = course.judge()
        assert verdict.perfect, f"{course.topic}: {verdict}"
        assert len({span.pid for span in course.spans()}) == ROUNDS + 1
    # Without the offsets beyond the watermark, the restarts would have repeated those.
    assert mapped == {course.topic for course in out_of_order}
