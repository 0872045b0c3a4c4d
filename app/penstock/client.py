"""Ask a running service over HTTP: the other end of the client commands.

Only the standard library, and proxies of the environment are ignored: these commands run as
exec hooks of the kubelet, next to the service that they ask.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from penstock import paths
from penstock.errors import ConfigError, PenstockError
from penstock.http.token import UNSENDABLE, read_token, sendable

DEFAULT_PORT: Final = 8080
#: Seconds for a connect, and for each read. The service answers from memory.
TIMEOUT: Final = 3.0
_POLL: Final = 0.2
_WILDCARDS: Final = frozenset({"", "0.0.0.0", "::", "[::]"})


class ServiceError(PenstockError):
    """The service did not do what was asked. The text names the cause and the remedy."""


class ServiceGoneError(ServiceError):
    """Nothing listens there, or the connection ended: there is no service (any more)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status code and the JSON object that came with it."""

    code: int
    json: dict[str, Any]

    @property
    def detail(self) -> str:
        """The service's own words on a refusal."""
        return str(self.json.get("detail", f"status {self.code}"))


class Client:
    """Talks to one service. Every call opens a connection of its own and closes it."""

    def __init__(self, url: str, env: Mapping[str, str]) -> None:
        self.url = url
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is not a URL of a service, like http://127.0.0.1:8080")
        try:
            self._port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise ConfigError(f"{url!r}: {error}") from error
        self._host = parts.hostname
        self._tls = parts.scheme == "https"
        self._base = parts.path.rstrip("/")
        self._env = env

    def get(self, path: str) -> Answer:
        """``GET path``; any status.

        Raises:
            ServiceGoneError: nothing listens.
            ServiceError: no answer in time, or one that is not Penstock's.
        """
        return self._call("GET", path)

    def status(self) -> dict[str, Any]:
        """The service's ``/status``.

        Raises:
            ServiceGoneError: nothing listens.
            ServiceError: no answer in time, or one that is not Penstock's.
        """
        answer = self.get("/status")
        if answer.code != http.client.OK or "state" not in answer.json:
            raise self._stranger()
        return answer.json

    def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        """``POST path`` with the control token; returns what was accepted, or the 409.

        Raises:
            ServiceGoneError: nothing listens.
            ServiceError: no token, an unusable or a wrong one, or a refusal other than 409.
        """
        token = read_token(self._env, self._port)
        if token is None:
            raise ServiceError(self._no_token())
        if not sendable(token):
            raise ServiceError(f"{self._source()}: {UNSENDABLE}")
        answer = self._call("POST", path, json.dumps(body), {"Authorization": f"Bearer {token}"})
        if answer.code in (http.client.ACCEPTED, http.client.CONFLICT):
            return answer
        if answer.code in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            raise ServiceError(
                f"{self.url} refused the control token: set PENSTOCK_CONTROL_TOKEN or "
                "PENSTOCK_CONTROL_TOKEN_FILE to the one that the service has"
            )
        if answer.code == http.client.NOT_FOUND:
            raise self._stranger()
        raise ServiceError(f"{self.url}{path}: {answer.detail}")

    def poll(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Statuses, a few a second, for at most ``seconds`` or until it is gone.

        A service that is too busy to answer is asked again.
        """
        for _ in _now_and_then(seconds):
            try:
                report = self.status()
            except ServiceGoneError:
                raise
            except ServiceError:
                pass
            else:
                yield report

    def poll_on(self, seconds: float) -> Iterator[dict[str, Any] | None]:
        """Statuses for ``seconds``, whether it is there or not: None is a service that is not."""
        for _ in _now_and_then(seconds):
            try:
                yield self.status()
            except ServiceError:
                yield None

    def _call(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] = {}
    ) -> Answer:
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=TIMEOUT)
        try:
            # http.client encodes str headers as latin-1 and refuses control characters.
            connection.request(method, self._base + path, body, dict(headers))
            response = connection.getresponse()
            content = response.read()
        except TimeoutError as error:
            raise ServiceError(f"{self.url} did not answer within {TIMEOUT:g} s") from error
        except (http.client.RemoteDisconnected, ConnectionError) as error:
            raise ServiceGoneError(
                f"nothing answers at {self.url}: is the service running, and is "
                "PENSTOCK_HTTP_PORT (or --url) its port?"
            ) from error
        except (http.client.HTTPException, ValueError) as error:
            raise self._stranger() from error
        except OSError as error:
            raise ServiceGoneError(
                f"{self.url} cannot be reached: {error.strerror or error}"
            ) from error
        finally:
            connection.close()
        try:
            parsed = json.loads(content)
        except ValueError as error:
            raise self._stranger() from error
        if not isinstance(parsed, dict):
            raise self._stranger()
        return Answer(response.status, parsed)

    def _stranger(self) -> ServiceError:
        return ServiceError(
            f"what answers at {self.url} is not Penstock: is PENSTOCK_HTTP_PORT (or --url) right?"
        )

    def _source(self) -> str:
        """Where the control token is looked for."""
        if self._env.get("PENSTOCK_CONTROL_TOKEN", "").strip():
            return "PENSTOCK_CONTROL_TOKEN"
        return self._env.get("PENSTOCK_CONTROL_TOKEN_FILE") or str(
            paths.runtime_dir(self._env, self._port) / paths.TOKEN_FILE
        )

    def _no_token(self) -> str:
        return (
            f"no control token: {self._source()} cannot be read: is the service running, here and "
            "on this port? If it is, run this as its user and with its PENSTOCK_RUNTIME_DIR, or "
            "set PENSTOCK_CONTROL_TOKEN"
        )


def default_url(env: Mapping[str, str] = os.environ) -> str:
    """Where the service on this machine (in this pod) listens.

    Raises:
        ConfigError: ``PENSTOCK_HTTP_PORT`` is not a port.
    """
    text = env.get("PENSTOCK_HTTP_PORT") or str(DEFAULT_PORT)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65_536):  # noqa: PLR2004 (ports)
        raise ConfigError(f"PENSTOCK_HTTP_PORT={text} is not a port")
    host = env.get("PENSTOCK_HTTP_HOST", "")
    if host in _WILDCARDS:
        host = "127.0.0.1"
    elif ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"http://{host}:{text}"


def _now_and_then(seconds: float) -> Iterator[None]:
    """A few times a second, for ``seconds``."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield
        time.sleep(max(0.0, min(_POLL, until - time.monotonic())))
