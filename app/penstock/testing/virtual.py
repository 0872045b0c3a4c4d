"""An event loop whose time passes only when nobody has anything to do."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final, TypeVar, TypeVarTuple

from penstock.testing.errors import KitError

#: The moment at which virtual time begins: 2026-01-01, in seconds since the epoch.
EPOCH: Final = 1_767_225_600

#: What asks the outside world. A test must not, and virtual time would not wait for it.
_REAL = (
    *("add_reader", "add_signal_handler", "add_writer", "connect_read_pipe"),
    *("connect_write_pipe", "create_connection", "create_datagram_endpoint", "create_server"),
    *("create_unix_connection", "create_unix_server", "getaddrinfo", "getnameinfo", "sendfile"),
    *("sock_accept", "sock_connect", "sock_recv", "sock_recv_into", "sock_sendall", "start_tls"),
    *("subprocess_exec", "subprocess_shell"),
)

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class VirtualLoop(asyncio.BaseEventLoop):
    """One callback at a time, in the order in which they were scheduled; no waiting.

    When nothing is ready, the clock jumps to the next timer, as far as ``horizon``.
    """

    # BaseEventLoop's own; these four have been there, so named, since asyncio came.
    _ready: Any
    _scheduled: Any
    _timer_cancelled_count: int
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        #: Virtual time goes no further.
        self.horizon = math.inf
        #: Called when nothing is ready, and nothing will be before the horizon.
        self.on_rest: Callable[[], None] = self.stop

    def __del__(self) -> None:
        """There is nothing to close."""

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def jump(self, to: float) -> None:
        """Let time pass in which nothing happens."""
        self._now = max(self._now, to)

    @property
    def forsaken(self) -> bool:
        """Whether nothing is ready, and nothing ever will be."""
        return not self._ready and not self._scheduled

    def _run_once(self) -> None:
        """One callback: ``stop()`` then means *now*, not after whatever else is ready."""
        if not self._ready:
            self._pass_time()
        if self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()  # noqa: SLF001 (as the base class does)

    def _pass_time(self) -> None:
        timers = self._scheduled
        while timers and timers[0].cancelled():
            self._timer_cancelled_count -= 1
            heapq.heappop(timers)._scheduled = False  # noqa: SLF001 (as the base class does)
        if not timers or timers[0].when() > self.horizon:
            self.on_rest()
            return
        self.jump(timers[0].when())
        while timers and timers[0].when() <= self._now:
            timer = heapq.heappop(timers)
            timer._scheduled = False  # noqa: SLF001 (as the base class does)
            self._ready.append(timer)

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*_Ts], _T],
        *args: *_Ts,
    ) -> asyncio.Future[_T]:
        """Run it here and now: ``asyncio.to_thread`` in a handler stays deterministic."""
        del executor
        future: asyncio.Future[_T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # the awaiting coroutine's
            future.set_exception(error)
        return future

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """As usual, but a test may end with handlers in flight."""
        if context.get("message") != "Task was destroyed but it is pending!":
            super().call_exception_handler(context)


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(*_args: Any, **_options: Any) -> Any:
        raise KitError(
            f"a handler asked for the outside world (loop.{name}), which virtual time cannot "
            "wait for: give it a stand-in in tests"
        )

    return refuse


for _name in _REAL:
    setattr(VirtualLoop, _name, _refusal(_name))
