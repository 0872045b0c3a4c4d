"""A key with nine tenths of the load: it waits for itself, and nobody else does."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable

from devtools.service import Service
from devtools.tasks import Task, partition_of
from tests.scenarios.course import Course, until_done

PARTITIONS = 2
HOT = b"hot"
WORK = 0.01


def orders(count: int) -> list[Task]:
    rng = random.Random(5)
    keys = [HOT if rng.random() < 0.9 else b"key-%d" % rng.randrange(40) for _ in range(count)]
    return [Task(partition_of(key, PARTITIONS), key, sleep=WORK) for key in keys]


def test_hot_key_starves_nobody(
    make_course: Callable[..., Course], serve: Callable[..., Service]
) -> None:
    course = make_course(partitions=PARTITIONS, order_by="key", concurrency=32)
    made = orders(600)
    course.send(made)
    service = serve(course).start()
    others = sum(task.key != HOT for task in made)
    service.until(lambda: course.done() >= others + 100, "the first records")
    assert service.stop(signal.SIGUSR2) == 4
    left = course.total - course.done()
    assert left > 100, "it was to be restarted in the middle"
    # What the others had finished behind the hot key's backlog must be known from now on.
    assert any(text for _, text in course.committed().values())
    service.start().until_ready()
    until_done(service.until, course)
    assert service.stop() == 0

    verdict = course.judge()
    assert verdict.perfect, str(verdict)
    spans = course.spans()
    hot = [span for span in spans if span.key == HOT.decode()]
    rest = [span for span in spans if span.key != HOT.decode()]
    began = spans[0].began
    waited = max(span.began for span in rest) - began
    # Of 32 handlers the hot key holds one; ahead of it the others are done in a fraction.
    before = [span for span in hot if span.pid == rest[0].pid]
    assert waited < (before[-1].began - began) / 2, f"another key's record waited {waited:.1f} s"
    assert len({span.pid for span in rest}) == 1, "others waited beyond the restart"
