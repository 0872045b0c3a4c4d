"""The command line: exit codes, what it says, and client commands against a real listener."""

from __future__ import annotations

import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import cli, exits, follow, render
from penstock.client import default_url
from penstock.errors import ConfigError, KafkaFailure

Capture = pytest.CaptureFixture[str]
MODULE = """
from penstock import App
app = App(drain_timeout=12, kafka_options={"proxy_url": "http://hunter22@b", "fetch_min_bytes": 9})
@app.subscribe("orders", group="billing", concurrency=3)
def bill(record): ...
"""


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # whoever goes there gets nowhere
    monkeypatch.setenv("PENSTOCK_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.chdir(tmp_path)


# -- exit codes and help ---------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["--nonsense"],
        ["run"],
        ["run", "a:b", "c:d"],
        ["health", "sideways"],
        ["restart", "--timeout", "soon"],
        ["stop", "--wait", "--timeout", "0"],
        ["stop", "--wait", "--timeout", "nan"],
        ["prestop", "--timeout", "nan"],
        ["reload", "--timeout", "5"],  # nothing waits
        ["status", "--url"],
        ["dlq", "nonsense"],
        ["dlq", "list"],
        ["dlq", "list", "dead", "--by", "size"],
        ["dlq", "list", "dead", "--limit", "0"],
        ["dlq", "list", "dead", "--partition", "-1"],
        ["dlq", "list", "dead", "--since", "yesterday"],
        ["dlq", "list", "dead", "--at", "0"],
        ["dlq", "list", "dead", "--at", "0:9-3"],
        ["dlq", "list", "dead", "--group", ""],
        ["dlq", "show", "dead"],
        ["dlq", "show", "dead", "0:1-2"],
        ["dlq", "replay", "dead"],  # no terminal to ask on
        ["dlq", "replay", "dead", "--yes", "--to", "dead"],
        ["dlq", "drop", "dead", "--yes"],
        ["dlq", "drop", "dead", "--yes", "--all", "--error", "OutOfStock"],
    ],
)
def test_a_bad_command_line_exits_64_and_says_why(arguments: list[str], capsys: Capture) -> None:
    assert cli.main(arguments) == 64
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(("Usage: penstock", "Error: "))


@pytest.mark.parametrize("command", ["", *cli.cli.commands])
def test_help_exits_0_and_teaches(command: str, capsys: Capture) -> None:
    assert cli.main([*([command] if command else []), "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"Usage: penstock{' ' if command else ''}{command}")
    assert not re.search(r"\w\.\.\.", out)  # a sentence that was cut off in the list
    assert not err


@pytest.mark.parametrize("command", ["", "list", "show", "replay", "drop"])
def test_help_of_dlq_teaches(command: str, capsys: Capture) -> None:
    assert cli.main(["dlq", *([command] if command else []), "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"Usage: penstock dlq {command}")
    assert f"penstock dlq {command or 'list'} orders.dead" in out  # an example
    assert not err


@pytest.mark.parametrize("command", ["list", "replay", "drop"])
def test_dlq_without_or_with_a_wrong_cluster_exits_78(
    monkeypatch: pytest.MonkeyPatch, command: str, capsys: Capture
) -> None:
    more = [] if command == "list" else ["--yes", "--error", "OutOfStock"]
    assert cli.main(["dlq", command, "dead", *more]) == 78
    assert "PENSTOCK_BOOTSTRAP_SERVERS is not set" in capsys.readouterr().err
    monkeypatch.setenv("PENSTOCK_BOOTSTRAP_SERVERS", "kafka:9092")  # the option outranks it
    assert cli.main(["dlq", command, "dead", *more, "--bootstrap-servers", "nowhere"]) == 78
    assert "'nowhere' is not host:port" in capsys.readouterr().err


def test_the_front_page_lists_every_exit_code(capsys: Capture) -> None:
    cli.main(["--help"])
    out = capsys.readouterr().out
    assert "penstock run shop.orders:app" in out
    for kind in exits.TABLE:
        assert f" {kind.code} " in out
        assert kind.name in out


def test_version(capsys: Capture) -> None:
    assert cli.main(["--version"]) == 0
    assert penstock.__version__ in capsys.readouterr().out


def test_exits_prints_the_contract(capsys: Capture) -> None:
    assert cli.main(["exits"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["CODE", "NAME", "PLANNED", "WHEN"]
    assert [tuple(row.split(maxsplit=3)) for row in rows] == [
        (k.code, k.name, "yes" if k.planned else "no", k.when) for k in exits.TABLE
    ]
    assert cli.main(["exits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"code": k.code, "name": k.name, "planned": k.planned, "when": k.when} for k in exits.TABLE
    ]


def run_with(monkeypatch: pytest.MonkeyPatch, run: Callable[[str], int]) -> int:
    """``penstock run`` with the supervisor replaced: it is not under test here."""
    service = types.ModuleType("penstock.supervisor.run")
    service.run = run  # type: ignore[attr-defined]  # a module made by hand
    monkeypatch.setitem(sys.modules, service.__name__, service)
    return cli.main(["run", "shop:app"])


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 78, 137])
def test_run_returns_what_the_service_returns(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    targets: list[str] = []

    def run(target: str) -> int:
        targets.append(target)
        return code

    assert run_with(monkeypatch, run) == code
    assert targets == ["shop:app"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("A is wrong: do B\nC is missing"), 78), (KafkaFailure("refused"), 1)],
)
def test_an_error_of_ours_is_told_sentence_by_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: Exception, code: int
) -> None:
    def run(_: str) -> int:
        raise error

    assert run_with(monkeypatch, run) == code
    out, err = capsys.readouterr()
    assert not out
    assert err.splitlines() == [f"penstock: {line}" for line in str(error).splitlines()]


def test_an_interrupt_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: str) -> int:
        raise KeyboardInterrupt

    assert run_with(monkeypatch, run) == 130


def test_a_reader_that_goes_away_changes_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)  # before anything is written
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from penstock.cli import main; sys.exit(main())",
                "exits",
            ],
            stdout=gone,
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert (done.returncode, done.stderr) == (0, b"")


# -- check -----------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"shop_{tmp_path.name.replace('-', '_')}"  # modules are cached by name
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    return f"{name}:app"


def test_check_prints_what_takes_effect(
    shop: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("PENSTOCK_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setenv("PENSTOCK_CONTROL_TOKEN", "swordfish-9")
    assert cli.main(["check", shop]) == 0
    out = capsys.readouterr().out
    table, _, memory = out.partition("\n\n")
    assert memory == (
        "memory at most: supervisor 64 + 1 x (base 64 + buffer 64 + fetch 40 + handlers 64) "
        "= 296 MB\n"
    )
    head, *lines = table.splitlines()
    assert head.split() == ["NAME", "VALUE", "SOURCE"]
    rows = {line.split()[0]: (line.split()[1], line.split()[-1]) for line in lines}
    assert rows["PENSTOCK_BOOTSTRAP_SERVERS"] == ("kafka:9092", "environment")
    assert rows["PENSTOCK_DRAIN_TIMEOUT"] == ("12", "code")
    assert rows["PENSTOCK_WORKERS"] == ("1", "default")
    assert rows["PENSTOCK_GROUP_ID"] == ("billing", "code")
    assert rows["PENSTOCK_TOPICS"] == ("orders", "code")
    assert rows["PENSTOCK_CONCURRENCY"] == ("3", "code")
    assert rows["PENSTOCK_CONTROL_TOKEN"] == ("********", "environment")
    assert "swordfish" not in out
    assert "hunter22" not in out
    assert '"fetch_min_bytes": 9' in out


def test_check_refuses_what_cannot_work(
    shop: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    assert cli.main(["check", shop]) == 78
    assert "PENSTOCK_BOOTSTRAP_SERVERS" in capsys.readouterr().err
    assert cli.main(["check", "no_such_module:app"]) == 78
    assert capsys.readouterr().err.startswith("penstock: no module named")
    monkeypatch.setenv("PENSTOCK_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setenv("PENSTOCK_CONTROL_TOKEN_FILE", str(tmp_path / "none"))
    assert cli.main(["check", shop]) == 78
    assert "PENSTOCK_CONTROL_TOKEN_FILE" in capsys.readouterr().err


# -- client commands -------------------------------------------------------------------

TOKEN = "a-token-of-the-test"  # one that the listener below expects


def report(**changes: Any) -> dict[str, Any]:
    worker = {
        "index": 0,
        "pid": 12,
        "state": "running",
        "joined": True,
        "poll_age_seconds": 0.1,
        "assignment": {"orders": [0, 1]},
        "lag": {"orders": {"0": 5, "1": 2}},
        "in_flight": [
            {"topic": "orders", "partition": 1, "offset": 42, "key": "k1", "age_seconds": 75.0}
        ],
        "warnings": ["slow"],
    }
    whole = {
        "state": "running",
        "ready": True,
        "live": True,
        "uptime_seconds": 100.0,
        "build": {"version": "1", "python": "3", "kafka_python": "3"},
        "group": "billing",
        "topics": ["orders"],
        "workers": [worker],
        "exits": [{"code": "4", "name": "RESTART", "planned": True, "count": 2}],
    }
    return {**whole, **changes}


DRAINING = {"age_seconds": 0.0, "left_seconds": 30.0}


class Listener(http.server.ThreadingHTTPServer):
    """A service that answers from a script; the real one has its tests in test_http."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.post: tuple[int, dict[str, Any]] = (202, {})
        self.statuses: list[dict[str, Any]] = []  # the last one stays
        self.probe: tuple[int, dict[str, Any]] = (200, {"status": "ok", "reasons": []})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Listener

    def do_GET(self) -> None:
        if self.path != "/status":
            self.answer(*self.server.probe)
            return
        statuses = self.server.statuses
        if not statuses:  # the service exits while it is asked
            self.close_connection = True
            return
        self.answer(200, statuses.pop(0) if len(statuses) > 1 else statuses[0])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, body))
        if self.headers["authorization"] != f"Bearer {TOKEN}":
            self.answer(403, {"detail": "wrong control token"})
            return
        self.answer(*self.server.post)

    def answer(self, code: int, content: object) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    with Listener() as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("PENSTOCK_HTTP_PORT", str(listener.server_port))
        monkeypatch.setenv("PENSTOCK_CONTROL_TOKEN", TOKEN)
        yield listener
        listener.shutdown()
        thread.join()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port where nobody listens, held so that nobody else takes it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PENSTOCK_HTTP_PORT", str(sock.getsockname()[1]))
        monkeypatch.setenv("PENSTOCK_CONTROL_TOKEN", TOKEN)
        yield sock.getsockname()[1]


ASKING = ["restart", "stop", "quiet", "resume", "reload"]


@pytest.mark.parametrize("kind", ASKING)
def test_asking(service: Listener, kind: str, capsys: Capture) -> None:
    service.post = (202, {"outcome": "accepted", "status": report(state="draining")})
    assert cli.main([kind, "--reason", "because"]) == 0
    assert service.asked == [(f"/{kind}", {"reason": "because"})]
    assert f"{kind} accepted: the service is draining" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ASKING)
def test_a_refusal_exits_1_in_the_services_words(
    service: Listener, kind: str, capsys: Capture
) -> None:
    service.post = (409, {"detail": "refused: the service is draining"})
    assert cli.main([kind]) == 1
    assert capsys.readouterr().err == "penstock: refused: the service is draining\n"


@pytest.mark.parametrize("command", [*ASKING, "status", "health"])
def test_nobody_there_exits_1_and_names_the_remedy(
    nobody: int, command: str, capsys: Capture
) -> None:
    assert cli.main([command]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    assert "PENSTOCK_HTTP_PORT" in err
    assert str(nobody) in err


def test_a_missing_token_names_its_file(
    service: Listener, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.delenv("PENSTOCK_CONTROL_TOKEN")
    assert cli.main(["restart"]) == 1
    assert str(tmp_path / "run" / "control-token") in capsys.readouterr().err
    assert not service.asked


def test_a_wrong_token_names_the_setting(
    service: Listener, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("PENSTOCK_CONTROL_TOKEN", "another-token")
    assert cli.main(["restart", "--url", service.url]) == 1
    assert "PENSTOCK_CONTROL_TOKEN_FILE" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["nonsense", "ftp://host", "http://host:99999", "http://"])
def test_a_url_that_is_none(url: str, capsys: Capture) -> None:
    assert cli.main(["status", "--url", url]) == 78
    assert url in capsys.readouterr().err


def test_somebody_else_on_the_port(service: Listener, capsys: Capture) -> None:
    service.statuses = [{"hello": "world"}]
    assert cli.main(["status"]) == 1
    assert "is not Penstock" in capsys.readouterr().err


@pytest.fixture
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing starts these services again: do not wait for it."""
    monkeypatch.setattr(follow, "AGAIN", 0.05)
    monkeypatch.setattr(follow, "_WORD", 0.05)


def journal_with(tmp_path: Path, *lines: dict[str, Any]) -> str:
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


STARTED = {"t": "start", "run": "r1", "at": 1.0, "version": "1"}


@pytest.mark.usefixtures("_no_patience")
@pytest.mark.parametrize(
    ("kind", "code", "status", "words"),
    [
        ("stop", 0, 0, "exited 0 STOPPED, as asked"),
        ("restart", 4, 0, "nothing started it again"),
        ("restart", 2, 1, "exited 2 FORCED and not 4 RESTART: stuck"),
        ("stop", 137, 1, "exited 137 KILLED and not 0 STOPPED: stuck"),
        ("restart", 0, 1, "exited 0 STOPPED and not 4 RESTART: something else was asked for"),
        ("restart", "unknown", 1, "ended without a word: stuck"),
        ("restart", None, 1, "ended without a word: its journal has no exit record"),
        ("reload", 1, 1, "exited 1 CRASHED before the reload was over: stuck"),
    ],
)
def test_wait_reads_the_end_in_the_journal(
    service: Listener,
    capsys: Capture,
    tmp_path: Path,
    kind: str,
    code: object,
    status: int,
    words: str,
) -> None:
    end = {"t": "exit", "run": "r1", "code": code, "reason": "stuck"}
    other = {"t": "exit", "run": "r0", "code": 4, "reason": ""}
    lines = [other, STARTED, end] if code is not None else [other, STARTED]
    answer = {"outcome": "accepted", "status": report(run="r1")}
    service.post = (202, {**answer, "journal": journal_with(tmp_path, *lines)})
    assert cli.main([kind, "--wait"]) == status  # the script has no status: it is gone
    out, err = capsys.readouterr()
    assert words in (err if status else out)


@pytest.mark.usefixtures("_no_patience")
def test_wait_hears_of_a_next_run_that_never_listened(
    service: Listener, capsys: Capture, tmp_path: Path
) -> None:
    """Code or configuration that does not start: HTTP never opens, and nobody is there to ask."""
    done = {"t": "exit", "run": "r1", "code": 4, "reason": ""}
    failed = {"t": "exit", "run": "r2", "code": 78, "reason": "PENSTOCK_WORKERS=x is no number"}
    answer = {"outcome": "accepted", "status": report(run="r1")}
    service.post = (202, {**answer, "journal": journal_with(tmp_path, STARTED, done, failed)})
    assert cli.main(["restart", "--wait"]) == 1
    assert "but the next run exited 78 CONFIG: PENSTOCK_WORKERS=x" in capsys.readouterr().err


@pytest.mark.usefixtures("_no_patience")
@pytest.mark.parametrize("kind", ["stop", "restart", "reload"])
@pytest.mark.parametrize("journal", [None, "/nonexistent/journal.jsonl", "another"])
def test_wait_does_not_guess(
    service: Listener, capsys: Capture, tmp_path: Path, kind: str, journal: str | None
) -> None:
    """Not readable, on another machine, or of another run: it may have been anything."""
    if journal == "another":
        journal = journal_with(tmp_path, {**STARTED, "run": "r0"})
    answer = {"outcome": "accepted", "status": report(run="r1")}
    service.post = (202, {**answer, "journal": journal})
    assert cli.main([kind, "--wait"]) == 69
    assert "nothing here tells how it ended" in capsys.readouterr().err


def following(code: int, run: str = "r1", **changes: Any) -> dict[str, Any]:
    """What the next run says."""
    last = {"code": code, "name": "?", "planned": True, "reason": "because", "run": run}
    return report(run="r2", last_exit=last, **changes)


def test_wait_hears_it_from_the_next_run(service: Listener, capsys: Capture) -> None:
    service.post = (202, {"outcome": "accepted", "status": report(run="r1")})
    drain = report(run="r1", state="draining", drain=DRAINING)
    service.statuses = [
        drain,
        following(4, ready=False, state="starting"),
        following(4, ready=False, state="starting"),
        following(4),
    ]
    assert cli.main(["restart", "--wait"]) == 0
    out, err = capsys.readouterr()
    assert "exited 4 RESTART, as asked, and is ready again" in out
    assert len(err.splitlines()) == 3  # what it waits for: draining, starting, running
    assert "waits for orders[1]@42, in its handler for 1 min 15 s" in err


@pytest.mark.parametrize(
    ("next_run", "status", "words"),
    [
        (following(2), 1, "exited 2 FORCED and not 4 RESTART: because"),
        (following(4, run="r1b"), 69, "nothing here tells"),  # another one came in between
        (following(4, ready=False, reasons=["worker 0 has not joined"]), 75, "has not joined"),
    ],
)
def test_wait_is_not_content_with_less(
    service: Listener, capsys: Capture, next_run: dict[str, Any], status: int, words: str
) -> None:
    service.post = (202, {"outcome": "accepted", "status": report(run="r1")})
    service.statuses = [report(run="r1"), next_run]
    assert cli.main(["restart", "--wait", "--timeout", "0.5"]) == status
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["stop", "restart", "reload"])
def test_wait_gives_up(service: Listener, capsys: Capture, kind: str) -> None:
    service.post = (202, {"outcome": "accepted", "status": report(reload={"id": 1})})
    service.statuses = [report(drain=DRAINING)]
    assert cli.main([kind, "--wait", "--timeout", "0.3"]) == 75
    err = capsys.readouterr().err
    assert "still there after 0.3 s, draining: waits for orders[1]@42" in err


@pytest.mark.parametrize(
    ("state", "status", "words"),
    [("done", 0, "every worker was replaced"), ("given up", 1, "given up: no module named x")],
)
def test_wait_tells_what_became_of_a_reload(
    service: Listener, capsys: Capture, state: str, status: int, words: str
) -> None:
    before = {"id": 3, "state": "done"}
    over = {"id": 4, "state": state, "reason": "no module named x"}
    service.post = (202, {"outcome": "accepted", "status": report(reload={"id": 4})})
    running = {"id": 4, "state": "running"}
    service.statuses = [report(reload=each) for each in (before, running, over)]
    assert cli.main(["reload", "--wait"]) == status
    out, err = capsys.readouterr()
    assert words in (err if status else out)


def test_a_reload_says_where_its_end_is_told(service: Listener, capsys: Capture) -> None:
    service.post = (202, {"outcome": "accepted", "status": report()})
    assert cli.main(["reload"]) == 0
    assert "`penstock status` tells what becomes of it" in capsys.readouterr().out


def test_status_for_a_person(service: Listener, capsys: Capture) -> None:
    last = {"code": 137, "name": "KILLED", "planned": False, "reason": "oom", "at": "noon"}
    intent = {"kind": "restart", "reason": "new", "requested_by": "SIGUSR2", "held": True}
    failure = {"code": 2, "name": "FORCED", "reason": "late"}
    service.statuses = [
        report(drain=DRAINING, last_exit=last, intent=intent, failure=failure, reasons=["sad"])
    ]
    assert cli.main(["status"]) == 0
    out = capsys.readouterr().out
    for part in (
        "running (ready, live), up 1 min 40 s",
        "sad",
        "restart (held) asked by SIGUSR2: new",
        "will exit 2 FORCED: late",
        "draining for 0.0 s, 30 s left",
        "group billing, topics orders",
        "orders[0,1]  7",
        "worker 0: slow",
        "orders[1]@42  1 min 15 s  k1",
        "2 x 4 RESTART",
        "last exit: 137 KILLED (not planned) at noon: oom",
    ):
        assert part in out
    assert cli.main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == service.statuses[0]


def test_a_partly_unknown_lag_is_not_shown_as_less(service: Listener, capsys: Capture) -> None:
    service.statuses = [report()]
    service.statuses[0]["workers"][0]["lag"] = {"orders": {"0": 5}}
    assert cli.main(["status"]) == 0
    assert "orders[0,1]  unknown" in capsys.readouterr().out


@pytest.mark.parametrize("probe", [[], ["live"], ["ready"], ["started"]])
def test_health(service: Listener, probe: list[str], capsys: Capture) -> None:
    name = probe[0] if probe else "live"
    assert cli.main(["health", *probe]) == 0
    assert capsys.readouterr().out == f"{name}: ok\n"
    service.probe = (503, {"status": "failing", "reasons": ["worker 0 stalled", "so did 1"]})
    assert cli.main(["health", *probe]) == 1
    assert capsys.readouterr().out == f"{name}: failing: worker 0 stalled; so did 1\n"


# -- prestop never fails the pod's deletion --------------------------------------------


def test_prestop_asks_for_a_held_restart_and_waits(service: Listener, capsys: Capture) -> None:
    service.post = (202, {"outcome": "accepted", "status": report(drain=DRAINING)})
    service.statuses = [report(drain=DRAINING), report(drain=DRAINING, workers=[])]
    assert cli.main(["prestop"]) == 0
    assert service.asked == [("/restart", {"hold": True, "source": "prestop"})]
    assert capsys.readouterr().out == "drained\n"
    assert len(service.statuses) == 1


def test_prestop_of_a_service_that_exits_meanwhile(service: Listener, capsys: Capture) -> None:
    service.post = (202, {"outcome": "accepted", "status": report(drain=DRAINING)})
    assert cli.main(["prestop"]) == 0
    assert capsys.readouterr().out == "the service has exited\n"


def test_prestop_waits_as_well_where_a_stop_is_under_way(
    service: Listener, capsys: Capture
) -> None:
    service.post = (409, {"detail": "restart refused"})
    service.statuses = [report(drain=DRAINING), report(drain=DRAINING), report(workers=[])]
    assert cli.main(["prestop"]) == 0
    assert capsys.readouterr().out == "drained\n"


@pytest.mark.parametrize(
    ("arguments", "left"), [(["--timeout", "0.2"], 30.0), ([], -1.9), (["--timeout", "0"], 30.0)]
)
def test_prestop_ends_with_the_budget(
    service: Listener, capsys: Capture, arguments: list[str], left: float
) -> None:
    drain = {"age_seconds": 0.0, "left_seconds": left}
    service.post = (202, {"outcome": "accepted", "status": report(drain=drain)})
    service.statuses = [report(drain=drain)]
    assert cli.main(["prestop", *arguments]) == 0
    assert capsys.readouterr().out.startswith("not drained within 0")


def test_prestop_when_nobody_listens(nobody: int, capsys: Capture) -> None:
    assert cli.main(["prestop"]) == 0
    assert f"nothing answers at http://127.0.0.1:{nobody}" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [{}, {"status": 7}, {"status": {"workers": "many"}}])
def test_prestop_when_the_answer_is_nonsense(
    service: Listener, capsys: Capture, answer: dict[str, Any]
) -> None:
    service.post = (202, answer)
    service.statuses = [{"state": "?"}]
    assert cli.main(["prestop", "--timeout", "0.1"]) == 0
    assert "prestop did not drain" in capsys.readouterr().err


def test_prestop_without_a_usable_token_or_port(
    service: Listener, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("PENSTOCK_CONTROL_TOKEN", "wrong-token")
    assert cli.main(["prestop"]) == 0
    monkeypatch.delenv("PENSTOCK_CONTROL_TOKEN")
    assert cli.main(["prestop"]) == 0
    monkeypatch.setenv("PENSTOCK_HTTP_PORT", "http")
    assert cli.main(["prestop"]) == 0
    first, second, third = capsys.readouterr().err.splitlines()
    assert "refused the control token" in first
    assert "no control token" in second
    assert "is the service running" in second
    assert "PENSTOCK_HTTP_PORT=http is not a port" in third


def test_a_reason_that_is_no_text_is_sent_as_one(service: Listener) -> None:
    service.post = (202, {"outcome": "accepted", "status": report()})
    assert cli.main(["restart", "--reason", "new \udcff certificates"]) == 0
    [(_, body)] = service.asked
    assert body["reason"] == "new \ufffd certificates"


@pytest.mark.parametrize("token", ["two words here", "over\ntwo-lines", "schlüssel"])
def test_a_token_that_cannot_be_sent_is_named(
    service: Listener, monkeypatch: pytest.MonkeyPatch, capsys: Capture, token: str
) -> None:
    monkeypatch.setenv("PENSTOCK_CONTROL_TOKEN", token)
    assert cli.main(["restart"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("penstock: PENSTOCK_CONTROL_TOKEN: a control token travels in a header")
    assert token not in told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_result_that_does_not_fit_where_it_goes_is_no_success(tmp_path: Path) -> None:
    """A file that ends in the middle looks like one that is whole."""
    (tmp_path / "shop_full.py").write_text(MODULE)
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [str(Path(sys.executable).with_name("penstock")), "check", "shop_full:app"],
            env={**os.environ, "PENSTOCK_BOOTSTRAP_SERVERS": "a:1"},
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == "penstock: the output is not complete: No space left on device\n"


# -- small things ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.96, "10.0 s"), (12.7, "12 s"), (60, "1 min 0 s"), (90_000, "1 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://127.0.0.1:8080"),
        ("10.0.0.5", "http://10.0.0.5:8080"),
        ("::1", "http://[::1]:8080"),
    ],
)
def test_the_default_url_follows_the_listener(host: str, url: str) -> None:
    assert default_url({"PENSTOCK_HTTP_HOST": host, "PENSTOCK_HTTP_PORT": ""}) == url
