from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from penstock.supervisor.quit import ask_sidecars

pytestmark = pytest.mark.usefixtures("no_log")


@pytest.fixture
def sidecar() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@pytest.fixture
def deaf() -> Iterator[str]:
    """Accepts, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_every_sidecar_is_asked(sidecar: tuple[str, list[str]]) -> None:
    url, asked = sidecar
    ask_sidecars([f"{url}/quitquitquit", url, f"{url}/quit?now=1"], timeout=5.0)
    assert sorted(asked) == ["/", "/quit?now=1", "/quitquitquit"]


def test_one_that_does_not_answer_holds_nobody_up(
    sidecar: tuple[str, list[str]], deaf: str
) -> None:
    url, asked = sidecar
    before = time.monotonic()
    ask_sidecars([f"{deaf}/{n}" for n in range(10)] + [url], timeout=0.3)
    assert time.monotonic() - before < 1.0
    assert asked == ["/"]


def test_one_that_is_not_there_is_no_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ask_sidecars([f"http://127.0.0.1:{port}/"], timeout=1.0)
    ask_sidecars([], timeout=1.0)
