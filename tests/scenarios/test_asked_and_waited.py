"""``penstock restart|stop|reload --wait`` tell what became of it: a real service, a real client."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from devtools.apps import __file__ as apps
from devtools.load import Ledger, Load, Trap
from devtools.service import Service

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]


def started_again(service: Service) -> threading.Thread:
    """What systemd, Docker or the kubelet does: start it again once it has ended."""

    def again() -> None:
        service.wait()
        service.start()

    thread = threading.Thread(target=again, name="restarter")
    thread.start()
    return thread


def test_the_verdict_is_what_became_of_it(
    launch: Launch, load_for: LoadFor, ledger: Ledger, trap: Trap, tmp_path: Path
) -> None:
    app = tmp_path / "shop.py"
    good = (Path(apps).parent / "mischief.py").read_text()
    app.write_text(good)
    service = launch(f"{app}:app", drain_timeout=4, session_timeout=6, heartbeat_interval=1)
    service.start().until_ready()

    # New code that does not even import: given up, and it says why.
    app.write_text("raise RuntimeError('half deployed')\n")
    told = service.command("reload", "--wait")
    assert told.returncode == 1, told
    assert "the reload was given up" in told.stderr
    app.write_text(good)
    told = service.command("reload", "--wait")
    assert (told.returncode, "every worker was replaced" in told.stdout) == (0, True), told

    # It is started again by something: over when it is ready again.
    run = service.status()["run"]
    restarter = started_again(service)
    told = service.command("restart", "--wait")
    assert told.returncode == 0, told
    assert "exited 4 RESTART, as asked, and is ready again" in told.stdout
    assert service.get("/readyz")[0] == 200
    status = service.status()
    assert status["run"] != run == status["last_exit"]["run"]
    restarter.join()

    # A record is stuck: it is named while that is waited for, and the exit is another one.
    work = load_for(service)
    trap.set(3, 10, "sleep", 3600)
    work.stream.send(132)
    service.until(lambda: [3, 10] in [[r.partition, r.sequence] for r in ledger.rows()], "the deed")
    told = service.command("restart", "--wait")
    assert told.returncode == 1, told
    assert "exited 2 FORCED and not 4 RESTART" in told.stderr
    assert "[3]@10" in told.stderr
    assert "1 record in flight" in told.stderr
    assert service.wait() == 2

    trap.spring()
    service.start().until_ready()
    told = service.command("stop", "--wait")
    assert (told.returncode, told.stdout.splitlines()[-1]) == (
        0,
        "the service exited 0 STOPPED, as asked",
    ), told
    assert service.wait() == 0
