"""What the HTTP side needs of the service. Everything here may be called from any thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from penstock.http.models import Status
from penstock.lifecycle import Outcome, Request


@dataclass(frozen=True, slots=True)
class Verdict:
    """A probe's answer and, where it is no, why."""

    ok: bool
    reasons: tuple[str, ...] = ()


class Service(Protocol):
    """The running service, as seen from a request handler. No call here blocks on I/O."""

    def ask(self, request: Request) -> Outcome:
        """Take a request into account; the work it asks for goes on elsewhere."""
        ...

    def live(self) -> Verdict:
        """Liveness (``/livez``)."""
        ...

    def ready(self) -> Verdict:
        """Readiness (``/readyz``)."""
        ...

    def started(self) -> Verdict:
        """Start-up (``/startupz``)."""
        ...

    def status(self) -> Status:
        """The whole picture (``/status``)."""
        ...

    def journal(self) -> str | None:
        """The file that the exit will be written to."""
        ...

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Exposition text and its content type, for an ``Accept`` header."""
        ...
