"""What cannot work is refused at the start, with a sentence that names setting and remedy."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.service import TOKEN, Service
from penstock.paths import default_state_dir

Make = Callable[..., Service]

APP = "from penstock import App, Record\napp = App()\n@app.subscribe('t', group='g')\n"
GOOD = APP + "def handle(record: Record) -> None: ...\n"

BAD = {
    "bad value": (GOOD, {"drain_timeout": "soon"}, ["PENSTOCK_DRAIN_TIMEOUT=soon"]),
    "unknown name": (
        GOOD,
        {"drain_timout": 3},
        ["PENSTOCK_DRAIN_TIMOUT", "did you mean PENSTOCK_DRAIN_TIMEOUT?"],
    ),
    "missing": (GOOD, {"bootstrap_servers": None}, ["PENSTOCK_BOOTSTRAP_SERVERS", "required"]),
    "combination": (
        GOOD,
        {"session_timeout": 10, "heartbeat_interval": 9},
        ["PENSTOCK_HEARTBEAT_INTERVAL", "at most a third of PENSTOCK_SESSION_TIMEOUT"],
    ),
    "workers": (GOOD, {"workers": "many"}, ["PENSTOCK_WORKERS=many"]),
    "import error": ("import nosuchmodule\n", {}, ["nosuchmodule", "importing"]),
    "raises": ("raise RuntimeError('no database')\n", {}, ["no database", "importing"]),
    "exits": ("import sys\nsys.exit(0)\n", {}, ["SystemExit", "importing"]),
    "no handler": ("from penstock import App\napp = App()\n", {}, ["no handler", "subscribe"]),
    "beyond the board": (
        APP.replace("group='g'", "group='g', concurrency=2000") + "def handle(record): ...\n",
        {},
        ["subscribe(concurrency=2000): a whole number from 1 to 1024"],
    ),
    "not called": (
        APP.replace("group='g'", "group='g', then=app") + "def handle(record): ...\n",
        {},
        ["subscribe(then=<penstock.app.App object>): write", "then=skip() or then=stop()"],
    ),
    "an option of the client": (
        GOOD,
        {"kafka_options": '{"max_poll_records": 5}'},
        ["max_poll_records cannot be set here: set PENSTOCK_MAX_POLL_RECORDS instead"],
    ),
    "no certificate": (
        GOOD,
        {"security_protocol": "SSL", "ssl_cafile": "/dev/null"},
        ["PENSTOCK_SSL_CAFILE=/dev/null: it holds no certificates in PEM"],
    ),
    "twice in a group": (
        GOOD + "@app.subscribe(pattern='t.?', group='g')\ndef audit(record: Record): ...\n",
        {},
        ["handlers handle and audit both read 't' in group 'g'", "name another group"],
    ),
    "missing attribute": ("ap = None\n", {}, ["has no 'app'"]),
    "not an app": ("app = 3\n", {}, ["int", "not a penstock.App"]),
}


def refused(service: Service, words: list[str]) -> None:
    assert service.start().wait() == 78, service.log_tail()
    record = service.exit_record()
    assert (record["code"], record["name"], record["planned"]) == (78, "CONFIG", False)
    journal = (service.directory / "state" / "journal.jsonl").read_text().splitlines()
    last = json.loads(journal[-1])
    assert (last["t"], last["code"]) == ("exit", 78)
    told = service.log()
    for word in words:
        assert word in record["reason"]
        assert word in last["reason"]
        assert word in told


@pytest.mark.parametrize(("code", "settings", "words"), BAD.values(), ids=BAD)
def test_refused(
    make_service: Make, tmp_path: Path, code: str, settings: dict[str, object], words: list[str]
) -> None:
    (tmp_path / "shop.py").write_text(code)
    given = {"bootstrap_servers": "127.0.0.1:1", **settings}
    service = make_service(f"{tmp_path / 'shop.py'}:app", **given)
    refused(service, words)
    checked = service.command("check", service.target)
    assert checked.returncode == 78
    if "\n" not in (reason := service.exit_record()["reason"]):  # of a traceback, paths differ
        assert checked.stderr.strip().removeprefix("penstock: ") in reason, "the same words"


def test_no_such_module(make_service: Make) -> None:
    service = make_service("no.such.module:app", bootstrap_servers="127.0.0.1:1")
    refused(service, ["no module named", "PYTHONPATH"])


def test_port_in_use(make_service: Make, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(GOOD)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = make_service(
            f"{tmp_path / 'shop.py'}:app", bootstrap_servers="127.0.0.1:1", http_port=port
        )
        refused(service, [f"PENSTOCK_HTTP_PORT={port}", "choose another port"])


OPINIONATED = f"""
import os, ssl
from pydantic import SecretStr
from penstock import App, Record
os.environ["PENSTOCK_DRAIN_TIMEOUT"] = "7"
app = App(control_token=SecretStr("{TOKEN}"), security_protocol="SSL",
          kafka_options={{"ssl_context": ssl.create_default_context()}})
@app.subscribe("t", group="g")
def handle(record: Record) -> None: ...
"""


def test_what_the_code_decides_and_a_state_directory_that_others_may_write_to(
    make_service: Make, tmp_path: Path
) -> None:
    """Both processes have the same settings; the default state directory must be ours alone."""
    (tmp_path / "shop.py").write_text(OPINIONATED)
    target = f"{tmp_path / 'shop.py'}:app"
    nothing = dict.fromkeys(("control_token", "state_dir", "runtime_dir"))
    env = {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": ""}
    service = make_service(target, env=env, bootstrap_servers="127.0.0.1:1", **nothing)
    service.start().until_listening()
    assert service.post("/stop")[0] == 202, "the token is the code's, not ten asterisks"
    assert service.wait() == 0
    assert [line["budget"] for line in service.log_lines("draining")] == [7.0]

    state = default_state_dir(env, service.port, target, service.directory)
    assert (state / "journal.jsonl").exists()
    state.chmod(0o777)
    assert service.start().wait() == 78
    reason = service.exit_record()["reason"]
    assert f"the state directory {state} is writable by others" in reason
    assert "set PENSTOCK_STATE_DIR" in reason


@pytest.mark.parametrize("arguments", [["frobnicate"], ["run", "--fast", "shop:app"], ["run"], []])
def test_usage(arguments: list[str]) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "penstock", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "app")},
    )
    assert found.returncode == 64
    assert "Usage" in found.stderr
