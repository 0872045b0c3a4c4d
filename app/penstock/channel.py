"""The control channel between the supervisor and a worker: JSON lines over a socket pair.

Supervisor → worker: ``start``, ``drain``, ``quiet``, ``resume``, ``dump``.
Worker → supervisor: ``hello``, ``status``, ``drained``, ``fatal``.

The end of the stream is a message, too: a worker that reads it has lost its supervisor and
drains; a supervisor that reads it is about to reap a worker. JSON rather than pickles: what
crosses a process boundary should be readable in a debugger and harmless to parse.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from typing import Any, Final

Message = dict[str, Any]

#: A status of a thousand partitions is some 50 KB. A line beyond this is not ours.
_LONGEST: Final = 16 * 1024 * 1024
_PATIENCE: Final = 1


class Channel:
    """One end. ``send`` may be called from any thread; reading belongs to one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _PATIENCE, 0))
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._torn = False
        self._skipping = False
        #: Lines that were no message: too long, or no JSON object.
        self.garbled = 0
        self.ended = False

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """The supervisor's end, and the socket to hand to the worker."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        return cls(ours), theirs

    def fileno(self) -> int:
        """For selectors."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close this end; the other one reads the end of the stream."""
        self.ended = True
        with contextlib.suppress(OSError):  # wakes a reader of this same end
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def send(self, kind: str, **fields: Any) -> bool:
        """Send a message; false when the other end is gone or hopelessly behind.

        A worker waits a second for a supervisor that is behind and then drops the message:
        statuses are cumulative. The supervisor does not wait: commands are a few dozen bytes
        into an empty buffer, and a worker too stuck to read them is dealt with by the
        deadline.
        """
        data = json.dumps({"t": kind, **fields}, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            try:
                # Part of the last one may be on its way: end that line, or it eats this one.
                self._sock.sendall(b"\n" + data if self._torn else data)
            except OSError:
                self._torn = True
                return False
            self._torn = False
        return True

    def receive(self) -> list[Message]:
        """The complete messages that are there; sets ``ended`` at the stream's end.

        Whatever else is there is counted in ``garbled`` and left out.
        """
        data = b""
        while len(data) <= _LONGEST:  # an end that never stops writing is read in turns
            try:
                part = self._sock.recv(1 << 18, socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                part = b""
            if not part:
                self.ended = True
                break
            data += part
        self._buffer += data
        *lines, rest = bytes(self._buffer).split(b"\n")
        if self._skipping and lines:  # the end of a line that was too long
            self._skipping = False
            del lines[0]
        if self._skipping or len(rest) > _LONGEST:
            self.garbled += not self._skipping
            self._skipping = True
            rest = b""
        self._buffer = bytearray(rest)
        return [message for line in lines if (message := self._parsed(line)) is not None]

    def _parsed(self, line: bytes) -> Message | None:
        if not line:  # what ends a line that was cut
            return None
        try:
            message = json.loads(line)
        # A worker killed in the middle of a line; brackets ten thousand deep.
        except (ValueError, RecursionError):
            message = None
        if isinstance(message, dict):
            return message
        self.garbled += 1
        return None
