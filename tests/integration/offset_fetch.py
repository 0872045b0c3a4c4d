"""A network in which one question is answered badly: "what has the group committed?".

A proxy that reads the requests' headers (KIP-482, ``OffsetFetch`` is api key 9) and passes
everything else on. So a member can join its group and keep its heartbeats, and still not find
out where to begin: a coordinator that is loading, or has just moved.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self

OFFSET_FETCH = 9
COORDINATOR_LOADING = 14
NOT_COORDINATOR = 16
GROUP_AUTHORIZATION_FAILED = 30


class OffsetFetchProxy:
    """Listens on ``port`` and forwards to ``target``, both on loopback."""

    def __init__(self, target: int, port: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", port))
        self._sockets: list[socket.socket] = []
        #: The error code to answer with, -1 to end the connection instead; None for the truth.
        self.fault: int | None = None
        #: How many such questions were answered badly.
        self.spoiled = 0
        threading.Thread(target=self._accept, name="offset-fetch-proxy", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                lock = threading.Lock()
                for pump in (self._requests, self._answers):
                    threading.Thread(target=pump, args=(client, server, lock), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, lock: threading.Lock) -> None:
        with contextlib.suppress(OSError), client, server:
            while frame := _frame(client):
                if struct.unpack_from(">h", frame, 4)[0] != OFFSET_FETCH or self.fault is None:
                    server.sendall(frame)
                    continue
                self.spoiled += 1
                if self.fault < 0:
                    server.shutdown(socket.SHUT_RDWR)
                    return
                version, correlation = struct.unpack_from(">hi", frame, 6)
                assert version == 8, "the answer below is of version 8"
                with lock:
                    client.sendall(_refusal(correlation, self.fault))

    def _answers(self, client: socket.socket, server: socket.socket, lock: threading.Lock) -> None:
        with contextlib.suppress(OSError), client, server:
            while frame := _frame(server):
                with lock:  # whole answers only, or ours would land in the middle of one
                    client.sendall(frame)


def _frame(sock: socket.socket) -> bytes:
    """One request or answer with its length in front; empty at the end."""
    data = _read(sock, 4)
    return data + _read(sock, struct.unpack(">i", data)[0]) if data else b""


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data


def _refusal(correlation: int, code: int) -> bytes:
    """An ``OffsetFetch`` answer of version 8 for one group (unnamed), with an error and no topic.

    Tagged fields everywhere (the zeros), lengths plus one.
    """
    group = b"\x01" + b"\x01" + struct.pack(">h", code) + b"\0"
    body = struct.pack(">i", correlation) + b"\0" + struct.pack(">i", 0) + b"\x02" + group + b"\0"
    return struct.pack(">i", len(body)) + body
