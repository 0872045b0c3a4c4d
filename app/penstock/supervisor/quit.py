"""Asking sidecars to quit, once nothing needs them any more (drain step 7).

Loopback only (the settings see to that), short, best effort: a sidecar that does not answer
must not change how this service ended.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Sequence

import structlog

from penstock.http.sidecar import ask

log = structlog.get_logger("penstock.supervisor")


def ask_sidecars(urls: Sequence[str], *, timeout: float) -> None:
    """POST to every URL at once; return when all answered, or after ``timeout`` seconds."""
    threads = [
        threading.Thread(target=_post, args=(url, timeout), name=f"quit-{i}", daemon=True)
        for i, url in enumerate(urls)
    ]
    for thread in threads:
        thread.start()
    until = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def _post(url: str, timeout: float) -> None:
    try:
        log.info("asked a sidecar to quit", url=url, status=ask("POST", url, timeout=timeout))
    except (OSError, http.client.HTTPException) as error:
        log.warning("a sidecar could not be asked to quit", url=url, error=str(error))
