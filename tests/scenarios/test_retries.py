"""Handlers that fail now and then: retries that hold nobody else up."""

from __future__ import annotations

import random
from collections.abc import Callable

from devtools.service import Service
from devtools.spans import Span
from devtools.tasks import Task, partition_of
from tests.scenarios.course import Course, until_done

PARTITIONS = 4
STUBBORN = Task(0, b"stubborn", fails=6)


def orders(seed: int, count: int) -> list[Task]:
    """Each try fails in 30 % of all cases, whatever came before; one key is worse."""
    rng = random.Random(seed)
    made = [STUBBORN, Task(0, b"stubborn")]
    for _ in range(count):
        key, fails = b"key-%d" % rng.randrange(40), 0
        while rng.random() < 0.3:
            fails += 1
        made.append(Task(partition_of(key, PARTITIONS), key, sleep=0.002, fails=fails))
    return made


def test_thirty_percent_of_all_tries_fail(
    make_course: Callable[..., Course], serve: Callable[..., Service]
) -> None:
    retry = {"first": 0.1, "limit": 0.4}
    by_key = make_course(
        "key", partitions=PARTITIONS, order_by="key", concurrency=8, retry=retry, asynchronous=True
    )
    in_order = make_course("partition", partitions=PARTITIONS, concurrency=4, retry=retry)
    made = {by_key: orders(1, 600), in_order: orders(2, 20)}
    service = serve(by_key, in_order).start().until_ready()
    for course, tasks in made.items():
        course.send(tasks)
    until_done(service.until, by_key, in_order)

    counted = {"penstock_retrying_records": 0.0}
    for course, tasks in made.items():
        failures = sum(task.fails for task in tasks)
        of = f'topic="{course.topic}"'
        counted[f'penstock_records_total{{outcome="done",{of}}}'] = len(tasks)
        counted[f'penstock_records_total{{outcome="retried",{of}}}'] = failures
        counted[f'penstock_record_failures_total{{reason="error",{of}}}'] = failures
    service.until(lambda: counted.items() <= service.metrics().items(), str(counted), 5)
    assert service.stop() == 0
    for course, tasks in made.items():
        verdict = course.judge()
        assert verdict.perfect, f"{course.topic}: {verdict}"
        assert verdict.tries == sum(1 + task.fails for task in tasks)

    # While the stubborn one waited for its next try, only what belongs behind it waited, too.
    meanwhile = beside(by_key)
    assert {span.key for span in meanwhile if span.partition == 0} > {"stubborn"}
    behind = [span for span in beside(in_order) if span.partition == 0]
    assert {span.offset for span in behind} == {0}
    assert {span.partition for span in beside(in_order)} == set(range(PARTITIONS))


def beside(course: Course) -> list[Span]:
    """What was tried between the first and the last try of the stubborn record."""
    tries = course.spans()
    mine = [span for span in tries if span.at == (0, 0)]
    return [span for span in tries if mine[0].began <= span.began <= mine[-1].began]
