"""A loopback TCP proxy whose cable can be pulled."""

from __future__ import annotations

import contextlib
import queue
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from .ports import HOST

CutMode = Literal["drop", "reset"]

_CHUNK = 64 * 1024
_BACKLOG = 128
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER, zero seconds: close() sends RST


class CutProxy:
    """Forwards TCP connections to `target` until it is cut, in one daemon thread.

    `cut("drop")` is a network that swallows packets: open connections stay open and nothing comes
    through, in either direction, not even the news that the other side closed; new connections are
    taken (by the kernel) and never answered. After `heal()` whatever was under way goes on, as TCP
    would by sending again. `cut("reset")` is a network that answers with errors: open connections
    are reset and new ones refused.

    Args:
        target: host and port to forward to.
        port: to listen on; any free one when 0.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, target: tuple[str, int], port: int = 0) -> None:
        self._target = target
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = _listen(port)
        self._port: int = self._listener.getsockname()[1]
        self._links: set[_Link] = set()
        self._mode: CutMode | None = None
        self._wake_read, self._wake_write = socket.socketpair()
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._closed = False
        #: Connections taken so far.
        self.accepted = 0
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._obey)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._thread = threading.Thread(
            target=self._run, name=f"cut-proxy-{self._port}", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        return f"{HOST}:{self._port}"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def is_cut(self) -> bool:
        """Whether the cable is pulled."""
        return self._mode is not None

    def cut(self, mode: CutMode = "drop") -> None:
        """Interrupt the network; it is interrupted when this returns.

        Raises:
            RuntimeError: the proxy is closed.
        """
        self._do(lambda: self._cut(mode))

    def heal(self) -> None:
        """Undo `cut`; new connections work when this returns.

        Raises:
            RuntimeError: the proxy is closed.
            OSError: somebody took the port meanwhile.
        """
        self._do(self._heal)

    def close(self) -> None:
        """Reset every connection and end the thread. May be called more than once."""
        if not self._closed:
            self._do(self._shut)
            self._thread.join()
            self._wake_write.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Below, all but _do runs on the proxy's thread, which alone touches sockets and state.

    def _do(self, action: Callable[[], None]) -> None:
        """Have the proxy's thread do something; return (or raise) when it has."""
        if self._closed:
            raise RuntimeError("the proxy is closed")
        order = _Order(action)
        self._orders.put(order)
        self._wake_write.send(b"!")
        order.done.wait()
        if order.error is not None:
            raise order.error

    def _run(self) -> None:
        while not self._closed:
            for key, mask in self._selector.select():
                if key.fileobj.fileno() >= 0:  # type: ignore[union-attr] # may be closed just now
                    key.data(mask)
        self._selector.close()
        self._wake_read.close()

    def _obey(self, _mask: int) -> None:
        self._wake_read.recv(_CHUNK)
        with contextlib.suppress(queue.Empty):
            while True:
                self._orders.get_nowait().execute()

    def _accept(self, _mask: int) -> None:
        if self._listener is None or self._mode is not None:
            return
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # it went away again
        self.accepted += 1
        self._links.add(_Link(self._selector, client, self._target, self._links.discard))

    def _cut(self, mode: CutMode) -> None:
        if self._mode is None and self._listener is not None:
            self._selector.unregister(self._listener)
        self._mode = mode
        if mode == "drop":
            for link in self._links:
                link.freeze()
        else:
            self._reset_all()
            if self._listener is not None:
                self._listener.close()
                self._listener = None

    def _heal(self) -> None:
        if self._mode is None:
            return
        if self._listener is None:
            self._listener = _listen(self._port)
        self._mode = None
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        for link in tuple(self._links):
            link.thaw()

    def _shut(self) -> None:
        self._closed = True
        self._reset_all()
        if self._listener is not None:
            self._listener.close()

    def _reset_all(self) -> None:
        for link in tuple(self._links):
            link.reset()


class _Order:
    """Something for the proxy's thread to do, and what came of it."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self.done = threading.Event()
        self.error: Exception | None = None

    def execute(self) -> None:
        try:
            self._action()
        except Exception as error:  # raised again in the thread that ordered it
            self.error = error
        finally:
            self.done.set()


class _Link:
    """One client connection and the connection to the target that belongs to it."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        client: socket.socket,
        target: tuple[str, int],
        forget: Callable[[_Link], None],
    ) -> None:
        self._selector = selector
        self._forget = forget
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._ends = (_End(client), _End(server))
        for end in self._ends:
            end.socket.setblocking(False)
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ends[1].connected = False
        server.connect_ex(target)  # its outcome shows as the socket turns writable
        self.thaw()

    def freeze(self) -> None:
        """Let nothing through, and see nothing."""
        for end in self._ends:
            self._watch(end, 0)

    def thaw(self) -> None:
        """Go on where it was frozen."""
        for end, other in (self._ends, self._ends[::-1]):
            # Reading waits until the other side has taken what was read before: back-pressure.
            read = end.connected and not other.pending and not end.finished
            write = bool(end.pending) or not end.connected
            self._watch(
                end,
                (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0),
            )

    def reset(self) -> None:
        """End both connections with RST."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close()

    def _close(self) -> None:
        for end in self._ends:
            self._watch(end, 0)
            end.socket.close()
        self._forget(self)

    def _watch(self, end: _End, events: int) -> None:
        if events == end.watched:
            return
        if not end.watched:
            other = self._ends[1] if end is self._ends[0] else self._ends[0]
            self._selector.register(end.socket, events, lambda mask: self._serve(end, other, mask))
        elif not events:
            self._selector.unregister(end.socket)
        else:
            data = self._selector.get_key(end.socket).data
            self._selector.modify(end.socket, events, data)
        end.watched = events

    def _serve(self, end: _End, other: _End, mask: int) -> None:
        mask &= end.watched  # it may have been frozen since the selector saw it
        try:
            if mask & selectors.EVENT_WRITE:
                end.establish()
                end.flush()
            if mask & selectors.EVENT_READ:
                other.take(end.socket.recv(_CHUNK))
                end.finished = other.pending_end
                other.flush()
        except BlockingIOError:
            pass
        except OSError:
            self.reset()
            return
        if all(each.shut for each in self._ends):
            self._close()
        elif mask:
            self.thaw()


class _End:
    """One socket of a link, and what is still to be written to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.connected = True
        self.watched = 0
        self.pending = b""
        self.pending_end = False
        """The other side sent its FIN: ours follows when `pending` is written."""
        self.finished = False
        """This side sent its FIN: there is nothing more to read."""
        self.shut = False
        """Our FIN is sent."""

    def take(self, data: bytes) -> None:
        """Accept what was read from the other side; nothing means it has finished."""
        if data:
            self.pending = data
        else:
            self.pending_end = True

    def establish(self) -> None:
        """Take note of the outcome of connecting; the socket has just become writable.

        Raises:
            OSError: the connection could not be made.
        """
        if not self.connected:
            error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "connect")
            self.connected = True

    def flush(self) -> None:
        """Write what can be written.

        Raises:
            OSError: the connection is broken.
        """
        if not self.connected:
            return
        if self.pending:
            self.pending = self.pending[self.socket.send(self.pending) :]
        if self.pending_end and not self.pending and not self.shut:
            self.socket.shutdown(socket.SHUT_WR)
            self.shut = True


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
