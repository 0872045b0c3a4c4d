"""HTTP/1.1 connections that cannot be held open for nothing.

uvicorn has no limit on how long a client may take for its request head, drops its keep-alive
timer at the first byte that follows, and waits without end for a client that does not read.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import ClassVar, cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Seconds a connection may spend in each phase, and how many connections may be open.

    ``head``: until a request head is complete, counted from the connect or from the last
    response. ``exchange``: from there until the response is handed over. ``connections``:
    beyond it the connection that has been idle longest makes room, so that probes are
    answered while file descriptors last.
    """

    head: float = 10.0
    exchange: float = 30.0
    connections: int = 512


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol with a watchdog on every connection."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()
    stopping: ClassVar[bool] = False

    _watchdog: asyncio.TimerHandle | None = None
    busy = False
    idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too
        """Start the clock of the first request head."""
        super().connection_made(transport)
        self._watch(self.limits.head)
        if self.stopping:  # accepted before the listener closed, seen only now
            transport.abort()
        elif len(self.connections) > self.limits.connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Hand the bytes on; change clocks when they completed a request head."""
        super().data_received(data)
        self._follow()

    def on_response_complete(self) -> None:
        """Start the clock of the next request head."""
        super().on_response_complete()
        self.busy = False
        self._watch(self.limits.head)
        self._follow()  # a pipelined request has begun already

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        super().connection_lost(exc)
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    def shutdown(self) -> None:
        """End the connection now, or once the response under way is written."""
        if self.busy:
            self.cycle.keep_alive = False
        elif self.transport.get_write_buffer_size():
            self.transport.close()
        else:
            self.transport.abort()

    def _follow(self) -> None:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None until the first head
        if not self.busy and cycle is not None and not cycle.response_complete:
            self.busy = True
            self._watch(self.limits.exchange)

    def _watch(self, seconds: float) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        self.idle_since = time.monotonic()
        # abort, not close: a close waits for a client that does not read.
        self._watchdog = self.loop.call_later(seconds, self.transport.abort)

    def _make_room(self) -> None:
        idle = [
            c
            for c in self.connections
            if isinstance(c, GuardedProtocol) and c is not self and not c.busy
        ]
        if idle:
            oldest = min(idle, key=lambda c: c.idle_since)
            self.connections.discard(oldest)  # at once: the next connect must not count it
            oldest.transport.abort()
