"""Asked to end while liveness is failing: the exit was not planned, whoever asked."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest

from devtools.load import Load, Trap
from devtools.service import Service

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]


@pytest.mark.parametrize(
    ("number", "deed"),
    [(signal.SIGUSR2, "wait"), (signal.SIGTERM, "wait"), (signal.SIGUSR2, "gil")],
)
def test_slow_handler_fails_liveness(
    launch: Launch, load_for: LoadFor, trap: Trap, topic: str, number: int, deed: str
) -> None:
    service = launch(handler_timeout=1).start().until_ready()
    trap.set(0, 0, deed, 8)  # seconds, for gil: it ends within the drain
    work = load_for(service, partitions=1)
    work.stream.send(3)
    service.until(lambda: service.get("/livez")[0] == 503, "a failing liveness")
    (reason,) = json.loads(service.get("/livez")[1])["reasons"]
    assert f"{topic}[0]@0" in reason
    assert "PENSTOCK_HANDLER_TIMEOUT" in reason
    assert service.get("/readyz")[0] == 200  # not its question
    service.send(number)
    service.until(lambda: service.status().get("state") == "draining", "the drain")
    trap.spring()
    assert service.wait() == 3
    record = service.exit_record()
    assert (record["name"], record["planned"]) == ("UNHEALTHY", False)
    assert record["in_flight_at_deadline"] == []
    report = work.report()
    assert report.perfect, str(report)


def test_liveness_holds_while_draining(launch: Launch, load_for: LoadFor, trap: Trap) -> None:
    """The drain has a deadline of its own; a kubelet's kill would only cut it short."""
    service = launch(handler_timeout=1).start().until_ready()
    trap.set(0, 0, "wait")
    work = load_for(service, partitions=1)
    work.stream.send(1)
    service.until(work.ledger.count, "the record in the handler")
    service.send(signal.SIGUSR2)
    service.until(lambda: service.status().get("state") == "draining", "the drain")

    def age() -> float:
        return max(
            (i["age_seconds"] for w in service.status()["workers"] for i in w["in_flight"]),
            default=0,
        )

    service.until(lambda: age() > 1.5, "a record older than the limit")
    assert service.get("/livez")[0] == 200
    trap.spring()
    assert service.wait() == 4
