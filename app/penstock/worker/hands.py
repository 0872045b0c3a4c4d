"""What runs handlers: threads, or coroutines on one event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from penstock.failure import Failure
from penstock.lane import Job
from penstock.record import Record


class Jobs(Protocol):
    """Where runners get their work. Any thread."""

    def wait(self) -> Job | None:
        """The next job; waits for one. ``None`` at the end."""
        ...

    def take(self) -> Job | None:
        """The next job if there is one now."""
        ...

    def due(self) -> float | None:
        """When :meth:`take` may have something that it has not now (monotonic)."""
        ...

    def began(self, record: Record) -> float | None:
        """A runner begins with ``record``; returns its age in seconds, where that is known."""
        ...

    def failed(self, error: BaseException) -> Failure:
        """Judge what a handler raised. Never raises, whatever the exception does."""
        ...

    def broke(self, job: Job | None, error: BaseException) -> None:
        """A runner cannot go on, by no fault of the handler; ``job`` is what it held."""
        ...

    def ended(self, name: str, error: BaseException | None) -> None:
        """The thread ``name`` ended while it should live; ``error``: what it raised."""
        ...

    def give_back(
        self,
        job: Job,
        failure: Failure | None,
        durations: Sequence[float],
        age: float | None,
    ) -> Job | None:
        """Take a job back, and give the next one if there is one."""
        ...

    def send(self, job: Job) -> None:
        """Send a job's dead letter; the job is over when its outcome is known."""
        ...


class Hands(Protocol):
    """Runners. ``concurrency`` of them, each with a slot of the board."""

    def start(self) -> None:
        """Start them."""
        ...

    def nudge(self) -> None:
        """There may be work. From any thread, without the lock."""
        ...

    def end(self, timeout: float) -> bool:
        """Join them; false if one is still in a handler after ``timeout`` seconds."""
        ...

    def stack_of(self, slot: int) -> str | None:
        """Where the handler is that holds this slot."""
        ...
