"""Records that say what their handler is to do, and the handlers that do it.

:class:`Task` is one record's wish, :class:`TaskStream` produces them, :class:`Reader` is a
subscription of ``devtools.apps.tasks``.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devtools.stream import Stream

APP = "devtools.apps.tasks:app"


@dataclass(frozen=True, slots=True)
class Task:
    """One record, and what its handler is to do with it.

    ``sleep`` seconds of work; the first ``fails`` tries raise (each process counts anew), the
    first ``hangs`` tries take a minute; ``poison`` is what the handler raises ``Poison`` with;
    ``dies`` is how it ends its process, each time: ``exit`` or a signal's name.
    """

    partition: int
    key: bytes | None = None
    value: bytes | None = b""
    sleep: float = 0.0
    fails: int = 0
    hangs: int = 0
    poison: str = ""
    dies: str = ""
    more: tuple[tuple[str, bytes], ...] = ()

    def headers(self) -> list[tuple[str, bytes]]:
        """What ``devtools.apps.tasks`` reads, and ``more``."""
        asked = (
            ("sleep", self.sleep and f"{self.sleep:.4f}"),
            ("fails", self.fails),
            ("hangs", self.hangs),
            ("poison", self.poison),
            ("dies", self.dies),
        )
        return [*self.more, *((name, str(value).encode()) for name, value in asked if value)]


def partition_of(key: bytes, partitions: int) -> int:
    """Where a key's records go; the same for ever, as producers do it."""
    return zlib.crc32(key) % partitions


class TaskStream(Stream):
    """Produces tasks, in their order, as fast as ``rate`` says or at once."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        partitions: int,
        tasks: Iterable[Task],
        *,
        rate: float = 1.0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(bootstrap, topic, partitions, rate=rate, config=config)
        self._tasks: Iterator[Task] = iter(tasks)

    def _one(self, partition: int) -> None:
        del partition  # the task says
        task = next(self._tasks)
        self._produce(task.partition, task.key, task.value, task.headers())

    def expected(self) -> dict[int, int]:
        """How many records there are in each partition."""
        return dict(enumerate(self.confirmed))


@dataclass(frozen=True, slots=True)
class Reader:
    """A subscription: what it reads, what takes its records, where that notes.

    ``kind`` is ``record``, ``batch`` or ``model`` (a JSON object with a whole ``amount``).
    ``trouble`` names a file: while it is there, the handler fails. ``options`` are those of
    ``App.subscribe``, as JSON has them: ``then=["dead_letter", topic]``, ``retry={…}``.
    """

    topic: str
    group: str
    ledger: Path
    kind: str = "record"
    asynchronous: bool = False
    trouble: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def environment(*readers: Reader) -> dict[str, str]:
    """What tells ``devtools.apps.tasks`` of its subscriptions."""
    return {"TASKS": json.dumps([dataclasses.asdict(r) for r in readers], default=str)}


def send(
    bootstrap: str, topic: str, partitions: int, tasks: Sequence[Task], **config: Any
) -> dict[int, int]:
    """Produce these at once; how many each partition got."""
    stream = TaskStream(bootstrap, topic, partitions, tasks, config=config)
    stream.send(len(tasks))
    assert stream.produced == len(tasks)
    return stream.expected()
