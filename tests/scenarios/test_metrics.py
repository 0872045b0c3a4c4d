"""What Prometheus sees over planned restarts."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

from devtools.load import Load
from devtools.service import Service

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]

RESTARTS = 'penstock_exits_total{code="4",name="RESTART",planned="true"}'


def asked(metrics: dict[str, float]) -> dict[str, float]:
    return {
        source: metrics[f'penstock_restart_requests_total{{source="{source}"}}']
        for source in ("signal", "http", "prestop")
    }


def states(metrics: dict[str, float]) -> dict[str, float]:
    prefix = 'penstock_state{state="'
    return {
        name.removeprefix(prefix).removesuffix('"}'): value
        for name, value in metrics.items()
        if name.startswith(prefix)
    }


def gaps_counted(service: Service, count: int) -> bool:
    return service.metrics()["penstock_restart_gap_seconds_count"] == count


def test_planned_restarts_are_counted_across_runs(launch: Launch, load_for: LoadFor) -> None:
    service = launch("devtools.apps.ledger:app").start().until_listening()
    first = service.metrics()
    assert first["penstock_unplanned_exits_total"] == 0
    assert first[RESTARTS] == 0
    assert asked(first) == {"signal": 0, "http": 0, "prestop": 0}
    assert first["penstock_restart_gap_seconds_count"] == 0
    service.until_ready()
    load = load_for(service).start()
    for restarts in (1, 2):
        assert states(service.metrics()) == {
            "starting": 0,
            "running": 1,
            "quiet": 0,
            "draining": 0,
            "stopped": 0,
        }
        load.until_more(50)
        assert service.stop(signal.SIGUSR2) == 4
        service.start().until_ready()
        service.until(partial(gaps_counted, service, restarts), "the gap")
        metrics = service.metrics()
        assert metrics[RESTARTS] == restarts
        assert metrics["penstock_unplanned_exits_total"] == 0
        assert metrics["penstock_drain_duration_seconds_count"] == restarts
        assert metrics["penstock_restart_gap_seconds_sum"] > 0

    assert service.command("prestop").returncode == 0
    assert service.post("/restart")[0] == 202
    service.send(signal.SIGUSR2)
    service.until(lambda: asked(service.metrics())["signal"] == 1, "the signal's count")
    metrics = service.metrics()
    assert asked(metrics) == {"signal": 1, "http": 1, "prestop": 1}
    assert states(metrics)["draining"] == 1
    assert service.stop(signal.SIGTERM) == 4
