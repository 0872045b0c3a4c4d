"""Work of one kind on its way through a service: a topic, its handlers, what they noted."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devtools import spans, tasks
from devtools.commits import Commits
from devtools.service import Service
from devtools.spans import At, Span, Verdict
from devtools.tasks import Reader, Task, TaskStream


class Done:
    """Counts the different records that a growing ledger calls done."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._read = 0
        self._found: set[bytes] = set()

    def __call__(self) -> int:
        """How many by now."""
        if self._ledger.exists():
            with self._ledger.open("rb") as file:
                file.seek(self._read)
                data = file.read()
            self._read += len(data)  # lines are written whole
            lines = (line.split(b" ", 3) for line in data.splitlines() if line[:2] == b"D ")
            self._found.update(b" ".join(line[1:3]) for line in lines)
        return len(self._found)


@dataclass(eq=False)
class Course:
    """A topic that a subscription reads. Its records are from :meth:`send` and :meth:`start`."""

    bootstrap: str
    partitions: int
    reader: Reader
    stream: TaskStream | None = None
    sent: dict[int, int] = field(default_factory=dict)
    done: Callable[[], int] = field(init=False)

    def __post_init__(self) -> None:
        self.done = Done(self.reader.ledger)

    @property
    def topic(self) -> str:
        return self.reader.topic

    @property
    def group(self) -> str:
        return self.reader.group

    # -- records -----------------------------------------------------------------------

    def send(self, made: Sequence[Task], **config: object) -> None:
        """Produce these at once; returns when the broker has them."""
        self._add(tasks.send(self.bootstrap, self.topic, self.partitions, made, **config))

    def start(self, made: Iterable[Task], rate: float) -> None:
        """Produce these, ``rate`` a second, until :meth:`finish`."""
        stream = TaskStream(self.bootstrap, self.topic, self.partitions, made, rate=rate)
        self.stream = stream
        stream.start()

    def finish(self) -> None:
        """Produce no more."""
        if self.stream is not None:
            self.stream.stop()
            self._add(self.stream.expected())
            self.stream = None

    def _add(self, counts: dict[int, int]) -> None:
        for partition, count in counts.items():
            self.sent[partition] = self.sent.get(partition, 0) + count

    @property
    def total(self) -> int:
        return sum(self.sent.values())

    # -- what became of them -----------------------------------------------------------

    def spans(self) -> list[Span]:
        return spans.read(self.reader.ledger)

    def judge(
        self, row: Callable[[Span], object] | None = None, without: Iterable[At] = ()
    ) -> Verdict:
        """Everything that was sent, compared with what the handlers noted."""
        order = str(self.reader.options.get("order_by", "partition"))
        rows = {"key": spans.by_key, "partition": spans.by_partition, "none": spans.by_record}
        return spans.judge(self.spans(), self.sent, row or rows[order], without)

    def read_as(self, **changed: Any) -> Course:
        """The same records and ledger, read by another handler of the same group."""
        return Course(self.bootstrap, self.partitions, dataclasses.replace(self.reader, **changed))

    def committed(self) -> dict[int, tuple[int, str]]:
        """Offset and metadata of each partition, as the group has them."""
        with Commits(self.bootstrap) as commits:
            return commits.of(self.group, self.topic)

    def positions(self) -> dict[int, int]:
        """The committed offset of each partition that had records; 0 where there is none."""
        committed = self.committed()
        return {number: committed.get(number, (0, ""))[0] for number in self.sent}


def until_more(until: Callable[..., None], count: int, *courses: Course) -> None:
    """Wait until ``count`` more records of each course are done. ``until`` is a service's."""
    goals = [(course, course.done() + count) for course in courses]
    until(lambda: all(course.done() >= goal for course, goal in goals), f"{count} more records")


def until_done(
    until: Callable[..., None], *courses: Course, but: int = 0, stall: float = 30.0
) -> None:
    """Wait until everything sent (``but`` so many) is done; not when it ceases for ``stall`` s.

    ``until`` is a service's. How long it takes is the machine's business, that it goes on ours.
    """
    total = sum(course.total for course in courses) - but

    def count() -> int:
        return sum(course.done() for course in courses)

    before, since = count(), time.monotonic()

    def over() -> bool:
        nonlocal before, since
        now = count()
        if now > before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > stall:
            verdicts = "\n".join(f"{c.topic}: {c.judge()}" for c in courses)
            raise AssertionError(f"{now} of {total}, and no more for {stall} s\n{verdicts}")
        return now >= total

    until(over, f"{total} records done", 600.0)


def warnings(service: Service) -> str:
    """What the workers warn of in ``/status``."""
    return str([worker["warnings"] for worker in service.status().get("workers", [])])
