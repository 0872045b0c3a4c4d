"""Writing down how a run ended: into the journal and the termination message."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError
from penstock.settings import Settings
from penstock.supervisor import termination

if TYPE_CHECKING:
    from penstock.supervisor.exit_record import ExitRecord
    from penstock.supervisor.host import Host
    from penstock.supervisor.journal import Journal


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
