"""HUP: workers are replaced one after another; the service never goes away."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.apps import __file__ as apps
from devtools.load import Load
from devtools.service import Service

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]


def pids(service: Service) -> tuple[int, ...]:
    """The workers in their places; shorter while one is being replaced."""
    return tuple(w["pid"] for w in service.status().get("workers", []))


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_workers_are_replaced_one_after_another(
    launch: Launch, load_for: LoadFor, static: bool
) -> None:
    service = launch(
        "devtools.apps.ledger:app", workers=2, instance_id="billing" if static else None
    )
    service.start().until_ready()
    load = load_for(service).start()
    pid, old = service.pid, pids(service)
    service.send(signal.SIGHUP)
    seen = [old]

    def replaced() -> bool:
        now = pids(service)
        if now != seen[-1]:
            seen.append(now)
        return bool(service.log_lines("reloaded"))

    service.until(replaced, "the end of the reload", 60)
    service.until_ready()
    new = pids(service)
    assert len(set(new) | set(old)) == 4
    assert any(len(s) == 2 and s[0] != old[0] and s[1] == old[1] for s in seen), seen
    assert service.pid == pid
    assert (
        service.metrics()['penstock_worker_exits_total{code="4",name="RESTART",planned="true"}']
        == 2
    )
    load.until_more(50)
    report = load.report()
    assert report.perfect, str(report)


def test_new_code_that_does_not_import_changes_nothing(
    launch: Launch, load_for: LoadFor, tmp_path: Path
) -> None:
    app = tmp_path / "shop.py"
    good = (Path(apps).parent / "ledger.py").read_text()
    app.write_text(good)
    service = launch(f"{app}:app").start().until_ready()
    load = load_for(service).start()
    old = pids(service)
    app.write_text("raise RuntimeError('half deployed')\n")
    service.send(signal.SIGHUP)
    service.until_logged("reload given up")
    assert "half deployed" in service.log()
    load.until_more(50)
    assert pids(service) == old
    assert service.get("/readyz")[0] == 200
    app.write_text(good + "\n# mended\n")
    service.send(signal.SIGHUP)
    service.until(lambda: service.log_lines("reloaded"), "the second reload")
    assert not set(pids(service)) & set(old)
    report = load.report()
    assert report.perfect, str(report)
