"""Each case is its own process: logging is global, and its file descriptor is the subject."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import penstock

_PATH = str(Path(penstock.__file__).parent.parent)

_PROLOGUE = """
import logging, sys, structlog, warnings
from penstock.telemetry import logs
"""


def run(code: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", _PROLOGUE + code],
        env={**os.environ, "PYTHONPATH": _PATH},
        timeout=60,
        check=False,
        **{"capture_output": True, **options},
    )


def lines(code: str) -> list[dict[str, Any]]:
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == b""
    return [json.loads(line) for line in result.stderr.splitlines()]


def test_a_line_says_when_how_bad_where_and_what() -> None:
    (line,) = lines("""
logs.configure("json", "INFO", process="worker-3")
structlog.get_logger("penstock.drain").info("drain started", seconds=25, key=b"x")
""")
    when = datetime.fromisoformat(line.pop("timestamp"))
    assert abs(datetime.now(UTC) - when) < timedelta(minutes=1)
    assert line == {
        "level": "info",
        "process": "worker-3",
        "logger": "penstock.drain",
        "event": "drain started",
        "seconds": 25,
        "key": "b'x'",
    }


def test_the_standard_library_s_loggers_read_the_same() -> None:
    first, second = lines("""
logs.configure("json", "INFO", process="supervisor")
logging.getLogger("user.code").warning("%d of %d", 1, 2, extra={"order": 7})
warnings.warn("old", stacklevel=1)
""")
    assert list(first)[:5] == ["timestamp", "level", "process", "logger", "event"]
    assert (first["level"], first["logger"], first["event"]) == ("warning", "user.code", "1 of 2")
    assert first["order"] == 7
    assert second["logger"] == "py.warnings"


@pytest.mark.parametrize("logger", ["structlog.get_logger('x')", "logging.getLogger('x')"])
def test_an_exception_is_part_of_its_line(logger: str) -> None:
    (line,) = lines(f"""
logs.configure("json", "INFO", process="p")
try:
    1 / 0
except ZeroDivisionError:
    {logger}.exception("failed")
""")
    assert line["level"] == "error"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_the_console_shows_tracebacks_without_local_variables() -> None:
    result = run("""
logs.configure("console", "INFO", process="worker-0")
def connect(password):
    raise OSError("refused")
try:
    connect("hunter" + "2")
except OSError:
    structlog.get_logger("x").exception("failed", broker="b:9092")
""")
    text = result.stderr.decode()
    assert "failed" in text
    assert "worker-0" in text
    assert "OSError: refused" in text
    assert "hunter2" not in text
    assert "\x1b[" not in text  # no colours in a file


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("DEBUG", ["kafka info", "kafka warning", "own debug", "own info"]),
        ("INFO", ["kafka warning", "own info"]),
        ("info", ["kafka warning", "own info"]),
        ("WARNING", ["kafka warning"]),
        ("ERROR", []),
        ("nonsense", ["kafka warning", "own info"]),
    ],
)
def test_kafka_python_is_quiet_unless_all_is_wanted(level: str, expected: list[str]) -> None:
    found = lines(f"""
logs.configure("json", "{level}", process="p")
for level in ("debug", "info", "warning"):
    getattr(logging.getLogger("kafka.conn"), level)("kafka " + level)
for level in ("debug", "info"):
    getattr(structlog.get_logger("penstock.x"), level)("own " + level)
""")
    assert [line["event"] for line in found] == expected


CLIENT = r"""
from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest
import contextlib, struct

def client_at_work():
    with contextlib.suppress(Exception):
        KafkaAdminClient(bootstrap_servers="127.0.0.1:1", bootstrap_timeout_ms=1,
                         security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN",
                         sasl_plain_username="me", sasl_plain_password="hunter2-hunter2")
    protocol = KafkaProtocol(client_id="c")
    protocol.send_request(SaslAuthenticateRequest[1](auth_bytes=b"me hunter2-hunter2"))
    protocol.send_bytes()
    garbage = struct.pack(">i", 1) + b"\x00\x09\x7f\xffhunter2-hunter2"
    with contextlib.suppress(KafkaError):
        protocol.receive_bytes(struct.pack(">i", len(garbage)) + garbage)
"""


@pytest.mark.parametrize("wanted", ["", "logging.getLogger('kafka').setLevel('DEBUG')"])
@pytest.mark.parametrize("level", ["DEBUG", "INFO", "ERROR"])
def test_the_client_s_requests_and_responses_are_never_told(level: str, wanted: str) -> None:
    """When it authenticates, and when a response makes no sense; not even if code asks for them."""
    found = lines(f"""
{CLIENT}
logs.configure("json", "{level}", process="p")
{wanted}
client_at_work()
logging.getLogger("kafka.coordinator").debug("joined")
""")
    text = json.dumps(found)
    assert "hunter2" not in text
    assert ("joined" in text) == (level == "DEBUG" or bool(wanted))
    undecodable = [line for line in found if line["logger"] == "kafka.protocol.parser"]
    assert [line["event"] for line in undecodable] == [
        "a response cannot be decoded; its bytes are not shown"
    ]


def test_a_handler_of_the_application_s_own_gets_no_more() -> None:
    result = run(f"""
{CLIENT}
own = logging.StreamHandler(sys.stdout)
logging.getLogger("kafka").addHandler(own)
logs.configure("json", "DEBUG", process="p")
client_at_work()
""")
    assert result.returncode == 0, result.stderr
    assert b"not shown" in result.stdout
    assert b"hunter2" not in result.stdout + result.stderr


def test_configuring_again_does_not_print_twice() -> None:
    (line,) = lines("""
logging.basicConfig()
for process in ("a", "b"):
    logs.configure("json", "INFO", process=process)
logging.getLogger("x").info("once")
""")
    assert line["process"] == "b"


def test_arguments_that_do_not_fit_are_told_and_do_not_raise() -> None:
    result = run("""
class Bad:
    def __repr__(self): raise RuntimeError("no")
logs.configure("json", "INFO", process="p")
logging.getLogger("x").info("%d", "not a number")
structlog.get_logger("x").info("event", **{"value": Bad()})
logging.getLogger("x").info("after \\ud800")
""")
    assert result.returncode == 0, result.stderr
    first, second, third = result.stderr.decode().splitlines()
    assert first.startswith("unformattable log line")
    assert second.startswith("unformattable log line")
    assert "after" in json.loads(third)["event"]


_LOUD = """
logs.configure("json", "INFO", process="p")
log = structlog.get_logger("x")
for number in range(100):
    log.error("still here", exc_info=OSError("x"))
    logging.getLogger("y").error("and here")
sys.stdout.write("done")
"""


def test_a_broken_pipe_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = run(_LOUD, capture_output=False, stdout=subprocess.PIPE, stderr=writing)
    finally:
        os.close(writing)
    assert (result.returncode, result.stdout) == (0, b"done")


@pytest.mark.parametrize(
    "closing",
    ["sys.stderr.close()", "sys.stderr = None", "import os; os.close(2)"],
)
def test_a_closed_stderr_is_no_error(closing: str) -> None:
    result = run(closing + "\n" + _LOUD)
    assert (result.returncode, result.stdout) == (0, b"done")


def test_what_took_the_number_of_a_closed_stderr_gets_no_log_lines(tmp_path: Path) -> None:
    """A socket may: a log line in the middle of the Kafka protocol would be the end of it."""
    other = tmp_path / "other"
    result = run(f"""
import os
logs.configure("json", "INFO", process="p")
sys.stderr.close()  # leaves the descriptor open
os.close(2)
taken = os.open({str(other)!r}, os.O_WRONLY | os.O_CREAT)
assert taken == 2
logging.getLogger("x").error("secret")
sys.stdout.write("done")
""")
    assert result.stdout == b"done"
    assert other.read_bytes() == b""


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = """
logs.configure("json", "INFO", process=sys.argv[1])
log = structlog.get_logger("x")
for number in range(300):
    log.info("line", number=number, filler="f" * 3000)
"""
    with path.open("ab") as shared:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", _PROLOGUE + code, f"worker-{index}"],
                env={**os.environ, "PYTHONPATH": _PATH},
                stderr=shared,
            )
            for index in range(4)
        ]
        assert [process.wait(60) for process in processes] == [0] * 4
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for index in range(4):
        numbers = [line["number"] for line in found if line["process"] == f"worker-{index}"]
        assert numbers == list(range(300))


def test_each_line_is_one_write() -> None:
    """Seen from the other end of a packet socket: one write is one packet."""
    result = run("""
import os, socket
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
os.dup2(theirs.fileno(), 2)
logs.configure("json", "INFO", process="p")
for number in range(3):
    logging.getLogger("x").info("line %d %s", number, "f" * 9000)
    packet = ours.recv(100_000)
    assert packet.endswith(b"}\\n") and packet.count(b"\\n") == 1, packet
sys.stdout.write("done")
""")
    assert result.stdout == b"done"


def test_the_loggers_that_are_let_through_are_the_client_s() -> None:
    """After an upgrade that renames one, what helps would be gone without a word."""
    result = run("""
import kafka, kafka.coordinator.consumer, kafka.protocol.parser
from penstock.telemetry.client_logs import DETAILED, _PARSER
known = logging.root.manager.loggerDict
print([name for name in (*DETAILED, _PARSER) if name not in known])
""")
    assert result.stdout == b"[]\n", result.stderr


@pytest.mark.parametrize(("level", "expected"), [("INFO", 3), ("DEBUG", 5)])
def test_a_complaint_that_the_client_repeats_is_told_once_a_minute(
    level: str, expected: int
) -> None:
    """Of a topic that does not exist it tells ten times a second; all of it only at DEBUG."""
    found = lines(f"""
logs.configure("json", "{level}", process="p")
client = logging.getLogger("kafka.cluster")
for topic in ("orders", "orders", "orders", "prices"):
    client.error("Topic %s not found in cluster metadata", topic)
import time
later = time.time() + 61
time.time, time.time_ns = lambda: later, lambda: int(later * 1e9)
client.error("Topic %s not found in cluster metadata", "orders")
""")
    assert len(found) == expected
    assert {line["event"].split()[1] for line in found} == {"orders", "prices"}


def test_what_penstock_and_the_application_repeat_is_told_each_time() -> None:
    found = lines("""
logs.configure("json", "INFO", process="p")
for _ in range(3):
    structlog.get_logger("penstock.worker").warning("same")
    logging.getLogger("shop").error("same")
""")
    assert len(found) == 6


def test_of_complaints_without_end_only_so_many_are_remembered() -> None:
    result = run("""
from penstock.telemetry.client_logs import Unrepeated, _MOST
only_new = Unrepeated()
def new(text):
    return only_new.filter(logging.LogRecord("kafka", logging.ERROR, "f", 1, text, (), None))
assert all(new(f"{n}") for n in range(3 * _MOST))
assert len(only_new._told) <= _MOST
assert not new(f"{3 * _MOST - 1}")
""")
    assert result.returncode == 0, result.stderr
