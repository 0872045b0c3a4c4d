"""Records that kill their process: named each time, put aside after some, and nobody with them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

from devtools.broker import Admin
from devtools.reading import read
from devtools.service import Service
from devtools.tasks import Task
from tests.scenarios.course import Course, until_done
from tests.scenarios.test_poison import offset_of

MakeCourse = Callable[..., Course]
Serve = Callable[..., Service]

#: Static, so that a restart takes its own seat and nobody waits for a session to end.
STATIC = {"instance_id": "static", "session_timeout": 12, "heartbeat_interval": 2}

#: (partition, offset) → how it ends its process, and with which code the service then ends.
KILLERS = {(0, 2): ("SIGSEGV", 139), (1, 1): ("exit", 1), (1, 4): ("SIGKILL", 137)}


def orders() -> list[Task]:
    return [
        Task(partition, b"%d" % offset, sleep=0.05, dies=KILLERS.get((partition, offset), ("",))[0])
        for partition in (0, 1)
        for offset in range(8)
    ]


def names(items: list[dict[str, Any]]) -> set[tuple[int, int]]:
    return {(item["partition"], item["offset"]) for item in items}


def test_killers_are_put_aside_and_their_neighbours_are_handled(
    make_course: MakeCourse, serve: Serve, admin: Admin, group: str
) -> None:
    dead = f"dead-{group}"
    admin.create_topic(dead, 1)
    course = make_course(
        partitions=2, order_by="key", concurrency=3, deaths=1, then=["dead_letter", dead]
    )
    course.send(orders())
    service = serve(course, **STATIC)
    ends: list[int] = []
    alive = course.total - len(KILLERS)
    while len(ends) < 3 * len(KILLERS) + 1:
        service.start()
        service.until(lambda: not service.running or course.done() == alive, "an end, or all done")
        if service.running:
            break
        ends.append(service.wait())
        record = service.exit_record()
        codes = {KILLERS[at][1] for at in names(record["held_at_death"]) & set(KILLERS)}
        assert ends[-1] in codes, record
        assert any(f"{course.topic}[{p}]@{o}" in record["reason"] for p, o in KILLERS), record
        assert record["memory_peak_bytes"] > 10_000_000
    # Each in company once, and once alone; two that were together may have needed less.
    assert len(KILLERS) + 1 <= len(ends) <= 2 * len(KILLERS), ends
    assert service.running, ends
    status = service.status()
    assert names(status["last_exit"]["held_at_death"]) & set(KILLERS)
    until_done(service.until, course, but=len(KILLERS))
    service.until(lambda: len(read(course.bootstrap, dead)) >= len(KILLERS), "the letters", 20)
    killed = f'penstock_record_failures_total{{reason="killed",topic="{course.topic}"}}'
    service.until(lambda: service.metrics()[killed] >= 1, "the one of this run, counted")
    assert service.stop() == 0
    verdict = course.judge(without=set(KILLERS))
    assert not verdict.lost, str(verdict)
    letters = read(course.bootstrap, dead)
    found = set()  # a death before the commit repeats a letter, as it repeats a record
    for letter in letters:
        said = dict(letter.headers() or [])
        found.add((int(said["penstock.dlq.partition"]), offset_of(letter)))
        assert said["penstock.dlq.error"] == b"KilledItsProcess"
        assert said["penstock.dlq.reason"] == b"killed its process 2 times"
        assert said["penstock.dlq.attempts"] == b"2"
    assert found == set(KILLERS)
    assert course.positions() == course.sent  # and nothing is left to be said of anybody
    assert all("." not in text for _, text in course.committed().values())
    assert not list((service.directory / "state").glob("board-*"))


def test_a_container_that_died_as_a_whole_names_what_it_held(
    make_course: MakeCourse, serve: Serve
) -> None:
    """As the kubelet has it since 1.28, when one process of a container runs out of memory."""
    course = make_course(partitions=2, order_by="key", concurrency=3, deaths=1)
    course.send([Task(0, b"0", hangs=1), Task(0, b"1"), Task(1, b"0", hangs=1)])
    service = serve(course, **STATIC).start()
    service.until(
        lambda: (
            course.done() == 1 and [len(w["in_flight"]) for w in service.status()["workers"]] == [2]
        ),
        "two records in flight",
    )
    os.kill(service.pid, signal.SIGSTOP)  # or it would see its worker die
    for pid in [*service.workers(), service.pid]:
        os.kill(pid, signal.SIGKILL)
    assert service.wait() == 137
    service.start().until_ready()
    last = service.status()["last_exit"]
    assert (last["name"], names(last["held_at_death"])) == ("LOST", {(0, 0), (1, 0)})
    assert f"{course.topic}[0]@0" in last["reason"]
    # Suspects, both: one after the other, with nothing beside it.
    service.until(lambda: service.log_lines("handling a record alone"), "a record alone")
    [worker] = service.status()["workers"]
    assert len(worker["in_flight"]) == 1
    assert service.log_lines("handling a record alone")[0]["record"].endswith("[0]@0")


def test_the_count_outlives_a_pod_that_takes_its_state_directory_with_it(
    make_course: MakeCourse, serve: Serve
) -> None:
    """What the dead worker cannot commit is committed for it, before the service is gone."""
    course = make_course(order_by="key", partitions=1, concurrency=2, deaths=1, then=["skip"])
    course.send([Task(0, b"%d" % n, dies="SIGKILL" if n == 1 else "") for n in range(4)])
    service = serve(course, **STATIC)
    for _ in range(2):
        service.start()
        assert service.wait(60) == 137
        told = json.loads((service.directory / "state" / "deaths.json").read_text())
        assert told == {"tolls": []}, service.log_tail()  # the group has taken it
        assert course.committed()[0][1].startswith("penstock2:")
        shutil.rmtree(service.directory / "state")
    service.start()
    until_done(service.until, course, but=1)
    assert service.stop() == 0
    assert course.judge(without={(0, 1)}).lost == []
