"""The HTTP listener, in a thread of its own: bind, serve, stop."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from typing import Final, cast

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn._types import ASGIApplication

from penstock.errors import ConfigError
from penstock.http.protocol import ConnectionLimits, GuardedProtocol

log = structlog.get_logger(__name__)

BACKLOG: Final = 2048
_TICK: Final = 1.0  # seconds between updates of the Date header


def bind(host: str, port: int) -> socket.socket:
    """Open the listening socket; port 0 takes a free one.

    Done before the thread starts, so that a port in use is a configuration error of the
    service and not a stack trace of a thread.

    Raises:
        ConfigError: the address cannot be listened on; names the settings and the remedy.
    """
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"PENSTOCK_HTTP_HOST={host} (with PENSTOCK_HTTP_PORT={port}) is not an address: "
            f"{error}; 0.0.0.0 listens on all of them"
        ) from error
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" answers IPv4 as well, whatever the host's bindv6only says: the client
            # commands and Docker's HEALTHCHECK go to 127.0.0.1.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"PENSTOCK_HTTP_PORT={port} cannot be listened on at {host}: {_remedy(error)}"
        ) from error
    return sock


def _remedy(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another process has it; stop that one or choose another port"
        case errno.EACCES:
            return "not permitted; choose a port of 1024 or above"
        case errno.EADDRNOTAVAIL:
            return "this machine does not have that address; correct PENSTOCK_HTTP_HOST"
        case _:
            return f"{error.strerror}; choose another port, or correct PENSTOCK_HTTP_HOST"


class _Server(uvicorn.Server):
    """uvicorn's server, told to stop by an event instead of a flag it polls ten times a second."""

    def __init__(
        self, config: uvicorn.Config, protocol: type[GuardedProtocol], on_serving: threading.Event
    ) -> None:
        super().__init__(config)
        self._protocol = protocol
        self._on_serving = on_serving
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._on_serving.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            try:
                async with asyncio.timeout(_TICK):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._protocol.stopping = True
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # what outlived the grace
            connection.transport.abort()

    def ask_to_stop(self) -> None:
        """From any thread."""
        self.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)


class HttpServer:
    """Serves an ASGI application on a bound socket, off the main thread.

    Off the main thread uvicorn leaves signals alone; on it, it would take INT and TERM, and
    raise them again after its shutdown, over our exit code.
    """

    def __init__(
        self,
        app: ASGIApp,
        sock: socket.socket,
        *,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self._sock = sock
        #: The port that is listened on.
        self.port = int(sock.getsockname()[1])
        self._serving = threading.Event()
        self._error: BaseException | None = None

        class Protocol(GuardedProtocol):  # a class for each server: uvicorn makes the instances
            pass

        Protocol.limits = limits or ConnectionLimits()
        config = uvicorn.Config(
            cast("ASGIApplication", app),  # Starlette's word for it and uvicorn's differ
            http=Protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            workers=1,  # or WEB_CONCURRENCY of the environment decides
            backlog=BACKLOG,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config, Protocol, self._serving)
        # A daemon, so that a main thread that dies of an error is not kept from exiting.
        self._thread = threading.Thread(target=self._run, name="penstock-http", daemon=True)

    def start(self) -> None:
        """Start the thread; return once it serves.

        Raises:
            RuntimeError: the server ended before it served; its error is the cause.
        """
        self._thread.start()
        self._serving.wait()
        if self._error is not None:
            raise RuntimeError("the HTTP server did not start") from self._error

    def stop(self, timeout: float = 2.0) -> bool:
        """Close the listener and every connection; tell whether the thread ended in time.

        A response under way gets a second to finish; idle connections are cut at once.
        """
        if self._thread.ident is None:
            self._sock.close()
            return True
        self._server.ask_to_stop()
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.warning("http_server_did_not_stop", seconds=timeout)
            return False
        return True

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._sock])
        except BaseException as error:  # uvicorn exits the interpreter (SystemExit) at times
            self._error = error
            log.exception("http_server_failed")
        finally:
            self._sock.close()
            self._serving.set()
