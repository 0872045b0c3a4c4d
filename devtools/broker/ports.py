"""Loopback ports that stay ours across a broker's restarts."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator

HOST = "127.0.0.1"

# Below Linux's ephemeral range (32768 and up). A client that keeps trying to reconnect to a stopped
# broker on an *ephemeral* port may be given that very port as its own end, and then it is connected
# to itself: the port is taken and the broker can never come back.
_RANGE = range(18_000, 32_000)
_ATTEMPTS = 200


def free_ports(count: int) -> list[int]:
    """Return `count` different loopback TCP ports that nothing listens on right now.

    Raises:
        OSError: no free ones were found.
    """
    with contextlib.ExitStack() as held:
        # All are held until the last is found, so that they differ.
        return [held.enter_context(_bound()).getsockname()[1] for _ in range(count)]


@contextlib.contextmanager
def _bound() -> Iterator[socket.socket]:
    for _ in range(_ATTEMPTS):
        candidate = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind((HOST, random.choice(_RANGE)))
            except OSError:
                continue
            yield candidate
            return
    raise OSError(f"no free port found in {_RANGE.start}-{_RANGE.stop - 1}")
