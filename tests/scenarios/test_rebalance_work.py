"""Members that come and go while work is under way: retries, batches, coroutines."""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Callable, Iterator

import pytest

from devtools.service import Service
from devtools.tasks import Task, partition_of
from tests.scenarios.course import Course, until_done, until_more

PARTITIONS = 6


def orders(seed: int, *, sleep: float, failing: float = 0) -> Iterator[Task]:
    """``failing``: the share that fails twice."""
    rng = random.Random(seed)
    for number in itertools.count():
        key = b"key-%d" % (number % 50)
        fails = 2 if rng.random() < failing else 0
        yield Task(partition_of(key, PARTITIONS), key, sleep=sleep * rng.random(), fails=fails)


def owns_some(service: Service) -> bool:
    """Whether each of its workers has partitions."""
    workers = service.status().get("workers", [])
    return bool(workers) and all(worker["assignment"] for worker in workers)


@pytest.mark.timeout(300)
def test_members_come_and_go_during_work(
    make_course: Callable[..., Course], serve: Callable[..., Service]
) -> None:
    retries = make_course(
        "retries",
        partitions=PARTITIONS,
        order_by="key",
        concurrency=8,
        retry={"first": 0.5, "limit": 0.5},
    )
    batches = make_course(
        "batches", partitions=PARTITIONS, kind="batch", concurrency=4, batch={"count": 20}
    )
    coroutines = make_course(
        "coroutines", partitions=PARTITIONS, order_by="key", concurrency=32, asynchronous=True
    )
    courses = [retries, batches, coroutines]
    retries.start(orders(1, sleep=0.01, failing=0.1), rate=60)
    batches.start(orders(2, sleep=0.1), rate=60)  # a batch takes a second
    coroutines.start(orders(3, sleep=0.6), rate=60)
    stays, guest = serve(*courses).start(), serve(*courses)
    stays.until_ready()
    until_more(stays.until, 40, *courses)
    for number, code in [(signal.SIGTERM, 0), (signal.SIGUSR2, 4)]:
        guest.start().until_ready()
        guest.until(lambda: owns_some(guest), "partitions for the guest")
        until_more(guest.until, 60, *courses)
        assert guest.stop(number) == code
        until_more(stays.until, 30, *courses)
    for course in courses:
        course.finish()
    until_done(stays.until, *courses)
    assert stays.stop() == 0
    for course in courses:
        verdict = course.judge()
        assert verdict.perfect, f"{course.topic}: {verdict}"
        assert len({span.pid for span in course.spans()}) == 3
    # What was finished behind records that waited for a retry went along with its partition.
    moved = [span for span in retries.spans() if not span.done]
    assert len({(span.pid, span.at) for span in moved}) > len({span.at for span in moved}), (
        "no partition moved while one of its records waited for its next try"
    )
