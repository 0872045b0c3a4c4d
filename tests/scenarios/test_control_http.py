"""Hostile requests to the real service, and what they do to it: nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median

import pytest

from devtools.load import Load
from devtools.service import TOKEN, Service

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
JSON = {**RIGHT, "Content-Type": "application/json"}

REQUESTS: list[tuple[str, bytes | None, dict[str, str], int]] = [
    ("POST", None, {}, 401),
    ("POST", None, {"Authorization": "Basic dXNlcjpwYXNz"}, 401),
    ("POST", None, {"Authorization": "Bearer wrong-token-here"}, 403),
    ("GET", None, RIGHT, 405),
    ("POST", b" " * (10 << 20), JSON, 413),
    ("POST", b'{"hold": ', JSON, 422),
    ("POST", b'{"hold": "perhaps"}', JSON, 422),
    ("POST", b'{"hodl": true}', JSON, 422),
    ("POST", b"\xff\x00" * 50, JSON, 422),
]


def test_refused_requests_change_nothing(launch: Launch, load_for: LoadFor) -> None:
    service = launch("devtools.apps.ledger:app").start().until_ready()
    load = load_for(service).start()
    for method, body, headers, code in REQUESTS:
        assert service.http(method, "/restart", body, headers, timeout=20)[0] == code
    status = service.status()
    assert (status["state"], status["intent"]) == ("running", None)
    assert TOKEN not in service.log()
    load.until_more(50)
    report = load.report()
    assert report.perfect, str(report)


@pytest.mark.parametrize("said", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_slow_clients_do_not_delay_probes(launch: Launch, said: bytes) -> None:
    service = launch("devtools.apps.ledger:app").start().until_ready()
    with ExitStack() as stack:
        for _ in range(200):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 10))
            client.sendall(said)
        took = []
        for _ in range(10):
            began = time.monotonic()
            assert service.http("GET", "/livez", timeout=10)[0] == 200
            took.append(time.monotonic() - began)
        assert median(took) < 1  # a busy machine may delay one of them
        assert service.stop() == 0
