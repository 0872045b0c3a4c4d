"""One request to a sidecar, for those who wait for it and those who ask it to quit."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit


def ask(method: str, url: str, *, timeout: float) -> int:
    """Send a request without a body; returns the status of the answer.

    ``timeout`` is for each step, in seconds.

    Raises:
        OSError: nobody there, or no answer in time.
        http.client.HTTPException: an answer that is none.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)
    try:
        query = f"?{parts.query}" if parts.query else ""
        connection.request(method, (parts.path or "/") + query)
        return connection.getresponse().status
    finally:
        connection.close()
