from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from penstock.errors import SidecarMissing
from penstock.worker.sidecars import wait_for

pytestmark = pytest.mark.usefixtures("no_log")


class Sidecar:
    """Answers 503 so many times, then 200."""

    def __init__(self, refusals: float) -> None:
        self.asked: list[str] = []
        self.refusals = refusals
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.send_response(503 if len(outer.asked) <= outer.refusals else 200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name)
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def sidecars() -> Iterator[list[Sidecar]]:
    made = [Sidecar(0), Sidecar(2), Sidecar(float("inf"))]
    yield made
    for sidecar in made:
        sidecar.close()


def test_it_waits_until_each_is_ready(sidecars: list[Sidecar]) -> None:
    up, late, _ = sidecars
    urls = [f"{late.url}/healthz/ready?x=1", up.url]
    wait_for(urls, 30, threading.Event(), lambda: False)
    assert late.asked == ["/healthz/ready?x=1"] * 3
    assert up.asked == ["/"]


def test_one_that_never_is(sidecars: list[Sidecar]) -> None:
    up, _, never = sidecars
    with pytest.raises(SidecarMissing, match=r"not ready within 0.6 s .*: HTTP 503") as failure:
        wait_for([up.url, never.url], 0.6, threading.Event(), lambda: False)
    assert never.url in str(failure.value)
    assert failure.value.exit_code == 1
    assert len(never.asked) >= 2


def test_nobody_there() -> None:
    with pytest.raises(SidecarMissing, match="refused"):
        wait_for(["http://127.0.0.1:9/ready"], 0.1, threading.Event(), lambda: False)


def test_whoever_leaves_does_not_wait(sidecars: list[Sidecar]) -> None:
    never = sidecars[2]
    wake, asked = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=wait_for, args=([never.url], 60, wake, asked.is_set), name="waits"
    )
    thread.start()
    over = time.monotonic() + 5
    while not never.asked and time.monotonic() < over:
        pass
    asked.set()
    wake.set()
    thread.join(5)
    assert not thread.is_alive()


def test_no_sidecars_no_wait() -> None:
    wait_for([], 0.001, threading.Event(), lambda: False)
