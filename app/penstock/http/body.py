"""Request bodies: small, soon, and never buffered beyond their limit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeVar

import structlog
from fastapi import HTTPException
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

M = TypeVar("M", bound=BaseModel)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """``size`` in bytes, ``seconds`` for the whole body, ``linger`` seconds before a close."""

    size: int = 16 * 1024
    seconds: float = 10.0
    linger: float = 1.0


async def read(request: Request, model: type[M], limits: BodyLimits) -> M:
    """Read and validate a JSON body; none at all means the model's defaults.

    The content type is not looked at: the bearer token already rules out a browser's forged
    form, and ``curl -d`` sends the wrong one.
    """
    body = await _bounded(request, limits)
    if not body.strip():
        return model()
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(422, _sentence(error)) from error


async def _bounded(request: Request, limits: BodyLimits) -> bytes:
    too_large = HTTPException(413, f"a request body may have at most {limits.size} bytes")
    declared = request.headers.get("content-length", "0")
    if len(declared) > len(str(limits.size)) or int(declared) > limits.size:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.size:
                    raise too_large
    except TimeoutError:
        raise HTTPException(
            408, f"the request body did not arrive within {limits.seconds:g} s"
        ) from None
    return bytes(body)


def _sentence(error: ValidationError) -> str:
    return "; ".join(
        ".".join(str(part) for part in ("body", *item["loc"])) + ": " + item["msg"]
        for item in error.errors(include_url=False, include_input=False)
    )


class Edge:
    """The outermost layer of the API: it answers for handlers that fail, and closes cleanly.

    A response that is sent while the client still has body to send must not be followed by
    a close at once: data that arrives at a closed socket makes the kernel send a reset, which
    can take the response from the client's hands. The response therefore goes out whole, the
    rest of the body is thrown away for up to ``linger`` seconds, then the connection closes.
    """

    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self.limits.linger)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            return  # the client went away in the middle of its body: nobody to answer
        except Exception:  # whatever a handler raised, the server and its probes go on
            log.exception("http_handler_failed", method=scope["method"], path=scope["path"])
            if not exchange.started:
                answer = JSONResponse({"detail": "internal error, see the log"}, 500)
                await answer(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its response; knows how much of the request is still to come."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, linger: float) -> None:
        self._receive = receive
        self._send = send
        self._linger = linger
        self.started = False
        self._unread = any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
            for name, value in scope["headers"]
        )

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            if self._unread:
                headers = [*message.get("headers", []), (b"connection", b"close")]
                message = {**message, "headers": headers}
        elif self._unread and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._discard()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _discard(self) -> None:
        try:
            async with asyncio.timeout(self._linger):
                while self._unread:
                    await self.receive()
        except TimeoutError:
            return
