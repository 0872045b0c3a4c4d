"""The HTTP side as clients meet it: real uvicorn, real sockets, a fake service behind them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import structlog
from fastapi.openapi.models import OpenAPI

from penstock import cli
from penstock.errors import ConfigError
from penstock.exits import Exit
from penstock.http.api import build_api
from penstock.http.body import BodyLimits
from penstock.http.models import Build, ExitRecord, Intent, Status, Worker
from penstock.http.port import Verdict
from penstock.http.protocol import ConnectionLimits
from penstock.http.server import HttpServer, bind
from penstock.lifecycle import Lifecycle, Outcome, Request, State

TOKEN = "correct-horse-battery"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
CONTROL = ["restart", "stop", "quiet", "resume", "reload"]
SIZE = 16 * 1024


class FakeService:
    """The port, with the real precedence of requests and no workers behind it."""

    def __init__(self) -> None:
        self.lifecycle = Lifecycle()
        self.lifecycle.started()
        self.asked: list[Request] = []
        self.verdict = Verdict(ok=True)
        self.workers = [Worker(index=0, pid=7, state="running", joined=True)]
        self.accepts: list[str] = []
        self.broken = False

    def ask(self, request: Request) -> Outcome:
        self.asked.append(request)
        return self.lifecycle.request(request, alive=True)

    def live(self) -> Verdict:
        if self.broken:
            raise RuntimeError("a bug in the service")
        return self.verdict

    ready = started = live

    def status(self) -> Status:
        asked = self.lifecycle.intent
        intent = None
        if asked is not None:
            intent = Intent(kind=asked.kind, requested_by=asked.detail, held=self.lifecycle.held)
        return Status(
            state=self.lifecycle.state,
            ready=True,
            live=True,
            intent=intent,
            uptime_seconds=1.0,
            build=Build(version="0", python="3", kafka_python="3"),
            group="g",
            topics=["t"],
            workers=self.workers,
        )

    def journal(self) -> str | None:
        return "/state/journal.jsonl"

    def metrics(self, accept: str) -> tuple[bytes, str]:
        self.accepts.append(accept)
        return b"up 1\n", "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Running:
    """A server under test; every answer is held against the OpenAPI document."""

    service: FakeService
    server: HttpServer
    client: httpx.Client
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.server.port)

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self.address, timeout=10)
        sock.settimeout(10)
        return sock

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = self.client.request(method, path, **options)
        operation = self.document.get("paths", {}).get(path, {}).get(method.lower())
        if operation:
            declared = operation["responses"][str(answer.status_code)]
            assert answer.headers["content-type"].partition(";")[0] in declared["content"]
        return answer

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.ask("POST", path, headers=AUTH, **options)


Launch = Callable[..., Running]


@pytest.fixture
def launch() -> Iterator[Launch]:
    with contextlib.ExitStack() as stack:

        def start(
            body: BodyLimits | None = None, connections: ConnectionLimits | None = None
        ) -> Running:
            service = FakeService()
            api = build_api(service, TOKEN, version="9.9", limits=body)
            server = HttpServer(api, bind("127.0.0.1", 0), limits=connections)
            server.start()
            stack.callback(server.stop)
            client = httpx.Client(
                base_url=f"http://127.0.0.1:{server.port}", timeout=10, trust_env=False
            )
            stack.enter_context(client)
            return Running(service, server, client, client.get("/openapi.json").json())

        yield start


@pytest.fixture
def running(launch: Launch) -> Running:
    return launch()


def read_all(sock: socket.socket) -> bytes:
    """Everything until the server closes; the socket's timeout fails the test if it does not."""
    parts = []
    while part := sock.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: x", *lines, "", "")).encode()


AUTH_LINE = f"Authorization: Bearer {TOKEN}"


# -- reading ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
def test_probes(running: Running, path: str) -> None:
    answer = running.ask("GET", path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "reasons": []})
    running.service.verdict = Verdict(ok=False, reasons=("worker 0 stalled",))
    answer = running.ask("GET", path)
    assert answer.status_code == 503
    assert answer.json() == {"status": "failing", "reasons": ["worker 0 stalled"]}


def test_metrics_hand_over_the_accept_header(running: Running) -> None:
    answer = running.ask("GET", "/metrics", headers={"Accept": "application/openmetrics-text"})
    assert answer.content == b"up 1\n"
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert running.service.accepts == ["application/openmetrics-text"]


def test_status_is_the_model(running: Running) -> None:
    answer = running.ask("GET", "/status")
    assert Status.model_validate_json(answer.content) == running.service.status()
    assert "server" not in answer.headers


def test_an_exit_record_survives_the_journal() -> None:
    line = (
        '{"code":"unknown","name":"LOST","planned":false,"uptime_seconds":1,'
        '"at":"2025-01-02T03:04:05Z"}'
    )
    record = ExitRecord.model_validate_json(line)
    assert ExitRecord.model_validate_json(record.model_dump_json()) == record
    assert '"at":"2025-01-02T03:04:05Z"' in record.model_dump_json()


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/livez/", "/nothing"])
def test_what_is_not_there_is_404(running: Running, path: str) -> None:
    answer = running.client.get(path)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("POST", "/livez", "GET"), ("DELETE", "/status", "GET"), ("GET", "/restart", "POST")],
)
def test_the_wrong_method_is_405(running: Running, method: str, path: str, allow: str) -> None:
    answer = running.client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allow
    assert answer.json()["detail"]


# -- control ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONTROL)
def test_asking_without_a_body(running: Running, kind: str) -> None:
    if kind == "resume":
        running.service.lifecycle.want_quiet = True
    answer = running.post(f"/{kind}")
    assert answer.status_code == 202
    assert answer.json()["outcome"] == "accepted"
    assert Status.model_validate(answer.json()["status"]) == running.service.status()
    (asked,) = running.service.asked
    assert (asked.kind, asked.source, asked.detail) == (kind, "http", f"POST /{kind}")
    assert (asked.reason, asked.hold, asked.releases_hold) == ("", False, False)


def test_a_held_restart_of_the_prestop_hook(running: Running) -> None:
    body = {"reason": "new\n node\x00", "hold": True, "source": "prestop"}
    assert running.post("/restart", json=body).status_code == 202
    (asked,) = running.service.asked
    assert (asked.source, asked.detail, asked.hold) == ("prestop", "preStop", True)
    assert asked.reason == "new node"  # free text of a stranger stays on its line in the log


def test_every_outcome(running: Running) -> None:
    def outcome(path: str) -> tuple[int, str]:
        answer = running.post(path)
        return answer.status_code, answer.json().get("outcome") or answer.json()["detail"]

    assert outcome("/restart") == (202, "accepted")
    assert outcome("/restart") == (202, "repeated")
    assert outcome("/quiet") == (
        409,
        "quiet refused: the service is draining (restart, asked by POST /restart)",
    )
    assert outcome("/stop") == (202, "upgraded")
    assert outcome("/stop") == (202, "repeated")
    code, detail = outcome("/restart")
    assert code == 409
    assert "draining (stop, asked by POST /stop)" in detail
    assert [outcome(path)[0] for path in ("/quiet", "/resume", "/reload")] == [409] * 3


def test_a_release_is_accepted(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.service, "ask", lambda _: Outcome.RELEASED)
    answer = running.post("/stop")
    assert (answer.status_code, answer.json()["outcome"]) == (202, "released")


def test_a_refusal_names_the_state(running: Running) -> None:
    """A reload that is asked for while starting waits; while draining there is none any more."""
    running.service.lifecycle.state = State.DRAINING
    answer = running.post("/reload")
    assert answer.status_code == 409
    assert answer.json() == {"detail": "reload refused: the service is draining"}


# -- authorisation ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "", "Bearer", f"Basic {TOKEN}", TOKEN, f"Bearer{TOKEN}"])
def test_without_usable_credentials_401(running: Running, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value}
    for kind in CONTROL:
        answer = running.ask("POST", f"/{kind}", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert not running.service.asked


def test_two_authorizations_are_none(running: Running) -> None:
    headers = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")]
    assert running.ask("POST", "/stop", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "token", ["wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "wr\xf6ng", f"{TOKEN} x"]
)
def test_a_wrong_token_403(running: Running, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}".encode("latin-1")}
    answer = running.ask("POST", "/stop", headers=headers)
    assert (answer.status_code, answer.json()) == (403, {"detail": "wrong control token"})
    assert not running.service.asked


def test_the_scheme_is_not_case_sensitive(running: Running) -> None:
    headers = {"Authorization": f"bearer {TOKEN}"}
    assert running.ask("POST", "/quiet", headers=headers).status_code == 202


def test_the_token_is_checked_before_the_body_is_awaited(running: Running) -> None:
    with running.connect() as sock:
        sock.sendall(head("/restart", "Content-Length: 5000000", "Expect: 100-continue"))
        assert sock.recv(12) == b"HTTP/1.1 401"  # and not: 100 Continue
    answer = running.ask("POST", "/restart", content=b"not JSON", headers={})
    assert answer.status_code == 401


# -- bodies ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"{", "body: Invalid JSON"),
        (b"\x00\xff\xfe", "body: Invalid JSON"),
        (b'{"reason": "\xff"}', "body: Invalid JSON"),
        (b'{"reason": "\\ud800"}', "body: Invalid JSON"),
        (b"[" * 15_000, "body: Invalid JSON"),
        (b"null", "body: "),
        (b"[]", "body: "),
        (b'{"reson": "typo"}', "body.reson: Extra inputs are not permitted"),
        (b'{"reason": 1}', "body.reason: Input should be a valid string"),
        (json.dumps({"reason": "x" * 201}).encode(), "body.reason: String should have at most 200"),
        (b"reason=form", "body: Invalid JSON"),
    ],
)
def test_garbage_is_422_and_says_where(running: Running, content: bytes, detail: str) -> None:
    for kind in CONTROL:
        answer = running.post(f"/{kind}", content=content)
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(detail)
    assert not running.service.asked


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"hold": "no"}, "body.hold"),
        ({"source": "cron"}, "body.source"),
        ({"hold": 1}, "body.hold"),
    ],
)
def test_a_restart_is_not_guessed_from_nearly_right(
    running: Running, body: dict[str, object], place: str
) -> None:
    answer = running.post("/restart", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(place)
    assert not running.service.asked


def test_only_restart_can_be_held(running: Running) -> None:
    assert running.post("/stop", json={"hold": True}).status_code == 422


def test_a_body_of_the_largest_size_is_read(running: Running) -> None:
    body = b'{"reason": "big"}'
    assert running.post("/quiet", content=body + b" " * (SIZE - len(body))).status_code == 202
    (asked,) = running.service.asked
    assert asked.reason == "big"


def test_a_byte_more_is_413(running: Running) -> None:
    answer = running.post("/quiet", content=b" " * (SIZE + 1))
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"

    def pieces() -> Iterator[bytes]:
        yield b" " * SIZE
        yield b" "

    answer = running.post("/quiet", content=pieces())  # chunked: no Content-Length to go by
    assert answer.status_code == 413
    assert not running.service.asked


@pytest.mark.parametrize("chunked", [False, True])
def test_ten_megabytes_get_their_413(launch: Launch, chunked: bool) -> None:
    """The answer arrives although the client reads it only after sending everything."""
    running = launch(body=BodyLimits(linger=10))
    piece = b"x" * 0x10000
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {160 * len(piece)}"
    with running.connect() as sock:
        sock.sendall(head("/restart", AUTH_LINE, length))
        for _ in range(160):  # a reset by the server would be an error here
            sock.sendall(b"10000\r\n" + piece + b"\r\n" if chunked else piece)
        if chunked:
            sock.sendall(b"0\r\n\r\n")
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert not running.service.asked
    assert running.ask("GET", "/livez").status_code == 200


def test_an_endless_body_is_cut_off(launch: Launch) -> None:
    running = launch(body=BodyLimits(linger=0.2))
    with running.connect() as sock:
        sock.sendall(head("/restart", AUTH_LINE, "Transfer-Encoding: chunked"))
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

        def flood() -> None:
            while True:
                sock.sendall(chunk)

        with pytest.raises(ConnectionError):  # the server closes; a timeout is no such error
            flood()


def test_a_body_that_never_comes_is_408(launch: Launch) -> None:
    running = launch(body=BodyLimits(seconds=0.2, linger=0.1))
    with running.connect() as sock:
        sock.sendall(head("/restart", AUTH_LINE, "Content-Length: 20") + b'{"reas')
        answer = read_all(sock)  # to the end: the connection is closed
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 0.2 s" in answer
    assert not running.service.asked
    assert "408" in running.document["paths"]["/restart"]["post"]["responses"]


def test_a_body_in_pieces_is_read(running: Running) -> None:
    body = b'{"reason": "slow"}'
    with running.connect() as sock:
        sock.sendall(head("/quiet", AUTH_LINE, f"Content-Length: {len(body)}", "Connection: close"))
        for i in range(len(body)):
            assert running.client.get("/livez").status_code == 200  # nobody waits for the slow one
            sock.sendall(body[i : i + 1])
        assert read_all(sock).startswith(b"HTTP/1.1 202 ")
    (asked,) = running.service.asked
    assert asked.reason == "slow"


def test_a_client_that_leaves_in_its_body_is_no_error(running: Running) -> None:
    with structlog.testing.capture_logs() as logs:
        with running.connect() as sock:
            sock.sendall(head("/restart", AUTH_LINE, "Content-Length: 20") + b'{"reas')
        assert running.client.get("/livez").status_code == 200
        assert running.server.stop()  # the handler has ended, whatever it logs is logged
    assert not logs
    assert not running.service.asked


# -- a bug in the service --------------------------------------------------------------


def test_an_unexpected_error_is_500_logged_and_survived(running: Running) -> None:
    running.service.broken = True
    with structlog.testing.capture_logs() as logs:
        answer = running.ask("GET", "/livez")
    assert answer.status_code == 500
    assert answer.json() == {"detail": "internal error, see the log"}
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("http_handler_failed", "error")
    assert (line["method"], line["path"], line["exc_info"]) == ("GET", "/livez", True)
    running.service.broken = False
    assert running.ask("GET", "/livez").status_code == 200


# -- the document ----------------------------------------------------------------------


def test_the_openapi_document_is_valid_and_complete(running: Running) -> None:
    document = running.document
    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.1")
    assert document["info"]["version"] == "9.9"
    gets = {"/livez", "/readyz", "/startupz", "/metrics", "/status"}
    posts = {f"/{kind}" for kind in CONTROL}
    assert set(document["paths"]) == gets | posts
    probes = {"200", "500", "503"}
    for path in gets:
        operation = document["paths"][path]["get"]
        expected = {"200", "500"} if path in ("/metrics", "/status") else probes
        assert set(operation["responses"]) == expected
        assert "security" not in operation
    for path in posts:
        operation = document["paths"][path]["post"]
        assert set(operation["responses"]) == {
            *("202", "401", "403", "408", "409", "413", "422", "500")
        }
        assert operation["security"] == [{"controlToken": []}]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert schema["additionalProperties"] is False
        assert ("hold" in schema["properties"]) == (path == "/restart")
        assert operation["requestBody"]["required"] is False
    scheme = document["components"]["securitySchemes"]["controlToken"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    operations = [op for item in document["paths"].values() for op in item.values()]
    assert len({op["operationId"] for op in operations}) == len(operations)
    for operation in operations:
        for code, response in operation["responses"].items():
            assert response["description"]
            assert response["content"], (operation["operationId"], code)


def test_every_reference_of_the_document_resolves(running: Running) -> None:
    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                yield from references(child)

    found = set(references(running.document))
    assert "#/components/schemas/Status" in found
    for reference in found:
        target: Any = running.document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


# -- connections -----------------------------------------------------------------------


@pytest.fixture
def silent(running: Running) -> Iterator[list[socket.socket]]:
    """200 clients that connect; a third says nothing, a third stops mid-head, a third mid-body."""
    starts = [
        b"",
        b"GET /livez HTTP/1.1\r\nHost: x",
        head("/quiet", AUTH_LINE, "Content-Length: 9"),
    ]
    with contextlib.ExitStack() as stack:
        socks = []
        for i in range(200):
            sock = stack.enter_context(running.connect())
            sock.sendall(starts[i % 3])
            socks.append(sock)
        yield socks


def test_silent_clients_delay_no_probe(running: Running, silent: list[socket.socket]) -> None:
    slowest = 0.0
    for path in ("/livez", "/readyz", "/startupz", "/metrics", "/status") * 4:
        begin = time.monotonic()
        answer = httpx.get(
            f"http://127.0.0.1:{running.server.port}{path}", timeout=1, trust_env=False
        )
        slowest = max(slowest, time.monotonic() - begin)
        assert answer.status_code == 200
    assert slowest < 1
    assert len(silent) == 200


def test_stopping_does_not_wait_for_silent_clients(running: Running) -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(running.connect()) for _ in range(200)]
        assert running.client.get("/livez").status_code == 200  # they are all accepted by now
        begin = time.monotonic()
        assert running.server.stop()
        taken = time.monotonic() - begin
        for sock in socks:
            assert read_all(sock) == b""
    assert taken < 0.3


@pytest.mark.parametrize(
    "sent", [b"", b"GET /livez HTTP/1.1\r\nHost: x", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"]
)
def test_a_connection_without_a_request_head_is_closed(launch: Launch, sent: bytes) -> None:
    """Also after an answered request, and also when single bytes keep coming."""
    running = launch(connections=ConnectionLimits(head=0.3))
    with running.connect() as sock:
        sock.sendall(sent)
        begin = time.monotonic()
        answer = read_all(sock)
        assert time.monotonic() - begin < 5
    assert answer.startswith(b"HTTP/1.1 200 ") or not sent.endswith(b"\r\n\r\n")


def test_bytes_that_trickle_in_do_not_extend_the_time(launch: Launch) -> None:
    running = launch(connections=ConnectionLimits(head=0.3))
    with running.connect() as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        sock.settimeout(0.02)
        until = time.monotonic() + 10
        closed = False
        while not closed and time.monotonic() < until:
            try:
                closed = sock.recv(1) == b""
            except TimeoutError:
                with contextlib.suppress(OSError):
                    sock.sendall(b"x")
            except ConnectionResetError:
                closed = True
        assert closed


def test_a_client_that_does_not_read_is_cut_off(launch: Launch) -> None:
    running = launch(connections=ConnectionLimits(head=0.3))
    running.service.workers = [
        Worker(index=i, state="x" * 10_000, joined=True) for i in range(1_000)
    ]
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.settimeout(10)
        sock.connect(running.address)
        sock.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(1) == b"H"  # the answer is on its way; nobody reads on
        running.client.close()  # the only other connection
        connections = running.server._server.server_state.connections
        wait_until(lambda: not connections)


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    tick = threading.Event()
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition never came true"
        tick.wait(0.01)


def test_the_longest_idle_connection_makes_room(launch: Launch) -> None:
    running = launch(connections=ConnectionLimits(head=1_000, connections=5))
    running.client.close()
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(running.connect()) for _ in range(20)]
        sock = stack.enter_context(running.connect())
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")
        for early in socks[:15]:
            assert read_all(early) == b""


def test_garbage_on_the_wire_is_400_and_survived(running: Running) -> None:
    with running.connect() as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")  # a TLS hello
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")
    assert running.ask("GET", "/livez").status_code == 200


def test_pipelined_requests_are_all_answered(running: Running) -> None:
    one = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with running.connect() as sock:
        sock.sendall(one * 9 + last)
        assert read_all(sock).count(b"HTTP/1.1 200 ") == 10


# -- the server ------------------------------------------------------------------------


def test_the_thread_is_named_and_joined(running: Running) -> None:
    assert "penstock-http" in [t.name for t in threading.enumerate()]
    assert running.server.stop()
    assert "penstock-http" not in [t.name for t in threading.enumerate()]
    with pytest.raises(ConnectionRefusedError):
        running.connect()
    assert running.server.stop()  # twice is fine


def test_a_server_that_never_started_gives_its_socket_back() -> None:
    sock = bind("127.0.0.1", 0)
    assert HttpServer(build_api(FakeService(), TOKEN, version="0"), sock).stop()
    assert sock.fileno() == -1


def test_a_start_that_fails_says_so() -> None:
    sock = bind("127.0.0.1", 0)
    server = HttpServer(build_api(FakeService(), TOKEN, version="0"), sock)
    sock.close()
    with pytest.raises(RuntimeError, match="did not start"):
        server.start()
    assert server.stop()


def test_the_environment_of_other_servers_has_no_say(
    monkeypatch: pytest.MonkeyPatch, launch: Launch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    assert launch().ask("GET", "/livez").status_code == 200


def test_a_port_in_use_is_a_configuration_error() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"PENSTOCK_HTTP_PORT={port}") as caught:
            bind("127.0.0.1", port)
    assert "choose another port" in str(caught.value)
    assert caught.value.exit_code == Exit.CONFIG


@pytest.mark.parametrize("host", ["no such host", "203.0.113.7", "x" * 70])
def test_a_bad_address_is_a_configuration_error(host: str) -> None:
    with pytest.raises(ConfigError, match="PENSTOCK_HTTP_PORT=0") as caught:
        bind(host, 0)
    assert "PENSTOCK_HTTP_HOST" in str(caught.value)


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6_literals(host: str) -> None:
    with bind(host, 0) as sock:
        assert sock.family == socket.AF_INET6


def test_every_ipv6_address_includes_ipv4() -> None:
    with bind("::", 0) as sock:
        socket.create_connection(("127.0.0.1", sock.getsockname()[1]), timeout=5).close()


# -- the client commands against the real server ---------------------------------------


def test_the_commands_and_the_server_speak_the_same(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_CONTROL_TOKEN", TOKEN)
    monkeypatch.setenv("PENSTOCK_HTTP_PORT", str(running.server.port))
    for probe in ("live", "ready", "started"):
        assert cli.main(["health", probe]) == 0
    assert cli.main(["status"]) == 0
    for kind in ("quiet", "resume", "reload"):
        assert cli.main([kind, "--reason", "test"]) == 0
    running.service.workers = []  # drained, as far as the hook can see
    assert cli.main(["prestop"]) == 0
    assert capsys.readouterr().out.endswith("drained\n")
    asked = running.service.asked[-1]
    assert (asked.kind, asked.source, asked.hold) == ("restart", "prestop", True)
    assert cli.main(["stop"]) == 0
    assert cli.main(["restart"]) == 1
    assert "restart refused: the service is draining" in capsys.readouterr().err
