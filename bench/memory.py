"""Resident memory of supervisor and worker: idle, and before a backlog of a million records."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.tools import fill, table
from devtools.broker import Admin, Broker
from devtools.service import Service

BACKLOG = 1_000_000


def resident(pid: int) -> tuple[float, float]:
    """MB resident, and MB of that which is not shared with others (proportional)."""
    fields = {
        name: int(rest.split()[0])
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        for name, _, rest in [line.partition(":")]
        if rest.split()
    }
    return fields["Rss"] / 1024, fields["Pss"] / 1024


def main() -> None:
    """Print a row each."""
    rows = []
    with Broker() as broker, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for what in ("idle", "backlog"):
            Admin(broker.bootstrap).create_topic(what, 12)
            if what == "backlog":
                fill(broker.bootstrap, what, 12, BACKLOG, 100)
            ledger = directory / f"{what}.ledger"
            service = Service(
                "devtools.apps.ledger:app",
                directory / what,
                env={"LEDGER": str(ledger), "LEDGER_SLEEP": "0.001"},
                bootstrap_servers=broker.bootstrap,
                topics=what,
                group_id=what,
            )
            with service:
                service.until_ready(60)
                if what == "backlog":  # well into it, so that every buffer has filled up
                    service.until(
                        lambda f=ledger: f.exists() and f.stat().st_size > 20_000 * 30,  # type: ignore[misc]
                        "20,000 records",
                        120,
                    )
                (worker,) = service.workers()
                both = resident(service.pid), resident(worker)
                service.stop()
            for who, (rss, pss) in zip(("supervisor", "worker"), both, strict=True):
                rows.append((what, who, f"{rss:.0f}", f"{pss:.0f}"))
            rows.append(
                (
                    what,
                    "**together**",
                    f"{both[0][0] + both[1][0]:.0f}",
                    f"{both[0][1] + both[1][1]:.0f}",
                )
            )
    table(("", "process", "RSS MB", "PSS MB"), rows)
