"""How a run ended: gathered from its workers, logged, and written down for whoever asks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError
from penstock.settings import Settings
from penstock.supervisor import termination
from penstock.supervisor.exit_record import ExitRecord, InFlight, Memory

if TYPE_CHECKING:
    from penstock.supervisor.host import Host
    from penstock.supervisor.journal import Journal
    from penstock.supervisor.post_mortem import Findings
    from penstock.supervisor.service import Supervisor


class LastRecord:
    """What the exit record will tell of the workers."""

    def __init__(self) -> None:
        self._held: list[InFlight] = []
        self._memory: Memory | None = None
        self._last_done: float | None = None

    def done(self, at: float | None) -> None:
        """When a worker was last done with a record, in seconds since the epoch."""
        if at is not None:
            self._last_done = max(at, self._last_done or 0.0)

    def died(self, found: Findings) -> None:
        """What was found out about one that did not end as planned: of memory, the first one's."""
        self._held.extend(found.held)
        self._memory = self._memory or found.memory

    def of(self, sup: Supervisor, code: int) -> ExitRecord:
        """The record of a service whose processes have all ended."""
        return ExitRecord.of(
            code,
            reason=sup.lifecycle.reason,
            at=sup.host.wall(),
            requested_by=sup.lifecycle.requested_by,
            drain_seconds=sup.drain.seconds,
            in_flight_at_deadline=tuple(sup.drain.stuck),
            uptime_seconds=sup.host.monotonic() - sup.began,
            last_done_at=self._last_done,
            held_at_death=tuple(self._held),
            memory=self._memory,
        )


def log_exit(record: ExitRecord, log: Any) -> None:
    """The last line of a run's log."""
    (log.info if record.planned else log.error)(
        "exit",
        code=record.code,
        name=record.name,
        planned=record.planned,
        reason=record.reason,
        requested_by=record.requested_by or None,
        drain_seconds=None if record.drain_seconds is None else round(record.drain_seconds, 3),
    )


def write_down(
    record: ExitRecord,
    *,
    journal: Journal | None,
    settings: Settings | None,
    host: Host,
    log: Any,
) -> None:
    """Tell the next run and the kubelet. Closes the journal."""
    if journal is None and (state_dir := os.environ.get("PENSTOCK_STATE_DIR")):
        # The configuration was refused before the journal was opened: count it anyway.
        try:
            journal = host.journal(Path(state_dir))
        except ConfigError as error:
            log.warning(str(error))
    if journal is not None:
        journal.write_exit(record)
        journal.close()
    path = settings.termination_log if settings else termination_hint()
    termination.write_termination(path, record)


def termination_hint() -> Path:
    """Where the exit record goes when the settings were refused."""
    default: Any = Settings.model_fields["termination_log"].default
    return Path(os.environ.get("PENSTOCK_TERMINATION_LOG") or default)
