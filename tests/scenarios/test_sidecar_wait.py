"""With ``PENSTOCK_WAIT_URLS`` nothing reaches Kafka before the sidecar is up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from devtools.broker import Broker, CutProxy
from devtools.load import Ledger, Load
from devtools.service import Service
from tests.scenarios.support import assert_failed

Launch = Callable[..., Service]
LoadFor = Callable[..., Load]

LEDGER = "devtools.apps.ledger:app"


class Sidecar:
    """A proxy's health endpoint: 503 until it is ``ready``; counts who asked it to quit."""

    def __init__(self) -> None:
        self.ready = False
        self.asked = 0
        self.quits = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(200 if outer.ready else 503)
                self.end_headers()

            def do_POST(self) -> None:
                outer.quits += 1
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name)
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    made = Sidecar()
    yield made
    made.close()


def test_consuming_begins_when_the_sidecar_is_ready(
    launch: Launch, load_for: LoadFor, ledger: Ledger, sidecar: Sidecar
) -> None:
    service = launch(
        LEDGER, workers=2, wait_urls=f"{sidecar.url}/ready", quit_urls=f"{sidecar.url}/quit"
    )
    service.start().until_listening()
    load = load_for(service)
    load.stream.start()
    service.until(lambda: sidecar.asked >= 5, "the sidecar asked")
    assert service.get("/livez")[0] == 200
    assert service.get("/readyz")[0] == service.get("/startupz")[0] == 503
    assert {w["state"] for w in service.status()["workers"]} == {"waiting"}
    assert ledger.count() == 0
    sidecar.ready = True
    service.until_ready()
    load.until_more(100)
    asked = sidecar.asked
    service.send(signal.SIGHUP)  # a replacement asks for itself
    service.until_logged("reloaded")
    assert sidecar.asked > asked
    report = load.report()
    assert report.perfect, str(report)
    assert sidecar.quits == 1


def test_no_connection_before(
    make_service: Callable[..., Service], broker: Broker, topic: str, group: str, sidecar: Sidecar
) -> None:
    host, _, port = broker.bootstrap.rpartition(":")
    with CutProxy((host, int(port))) as proxy:
        service = make_service(
            LEDGER,
            bootstrap_servers=proxy.address,
            topics=topic,
            group_id=group,
            wait_urls=sidecar.url,
        ).start()
        service.until(lambda: sidecar.asked >= 5, "the sidecar asked")
        assert proxy.accepted == 0
        sidecar.ready = True
        service.until(lambda: proxy.accepted > 0, "a connection")
        assert service.stop() == 0


def test_a_sidecar_that_never_comes(launch: Launch, sidecar: Sidecar) -> None:
    service = launch(LEDGER, wait_urls=f"{sidecar.url}/ready", wait_timeout=1.5).start()
    assert_failed(service, 1, f"the sidecar at {sidecar.url}/ready was not ready within 1.5 s")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGUSR2, 4)])
def test_asked_to_leave_while_waiting(
    launch: Launch, sidecar: Sidecar, number: int, code: int
) -> None:
    service = launch(LEDGER, wait_urls=sidecar.url).start()
    service.until(lambda: sidecar.asked >= 2, "the sidecar asked")
    assert service.stop(number) == code
    assert service.exit_record()["drain_seconds"] < 2
