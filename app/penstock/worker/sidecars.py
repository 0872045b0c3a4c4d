"""Waiting for sidecars before the first connection to Kafka.

A *native* sidecar is started, and waited for, by the kubelet (KEP-753). A classic one, such as
a mesh proxy injected as a plain container, starts beside us: until it is up there is no
network, and a connection tried too early only earns a back-off.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Sequence

import structlog

from penstock.errors import SidecarMissing
from penstock.http.sidecar import ask

log = structlog.get_logger("penstock.worker")

_BETWEEN = 0.25
_PATIENCE = 1.0


def wait_for(
    urls: Sequence[str], timeout: float, wake: threading.Event, leaving: Callable[[], bool]
) -> None:
    """Ask every URL, in order, until it answers 2xx to a GET; return at once when ``leaving()``.

    ``wake`` is set by whoever makes ``leaving`` true. ``timeout``, in seconds, is for all of
    them together.

    Raises:
        SidecarMissing: naming the one that did not answer, and how it failed last.
    """
    began = time.monotonic()
    for url in urls:
        told = False
        while (failure := _ask(url)) is not None and not leaving():
            waited = time.monotonic() - began
            if waited >= timeout:
                raise SidecarMissing(
                    f"the sidecar at {url} was not ready within {timeout:g} s "
                    f"(PENSTOCK_WAIT_TIMEOUT): {failure}"
                )
            if not told:
                log.info("waiting for a sidecar", url=url, error=failure)
                told = True
            wake.wait(min(_BETWEEN, timeout - waited))
    if urls and not leaving():
        log.info("sidecars are ready", seconds=round(time.monotonic() - began, 3))


def _ask(url: str) -> str | None:
    """Why the sidecar is not ready, or None."""
    try:
        status = ask("GET", url, timeout=_PATIENCE)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return None if http.client.OK <= status < http.client.MULTIPLE_CHOICES else f"HTTP {status}"
