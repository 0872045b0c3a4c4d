"""The HTTP API: probes, metrics, status and control, with a complete OpenAPI document.

Every handler is a coroutine and calls nothing that blocks, so one slow client never delays
another one's probe.
"""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from starlette.requests import Request
from starlette.responses import Response

from penstock import lifecycle
from penstock.http import body
from penstock.http.auth import Bearer
from penstock.http.body import BodyLimits
from penstock.http.models import (
    Accepted,
    Probe,
    Problem,
    ReasonRequest,
    RestartRequest,
    Status,
)
from penstock.http.port import Service, Verdict
from penstock.lifecycle import Kind, Outcome

_FAILED: dict[int | str, dict[str, Any]] = {
    500: {"model": Problem, "description": "Unexpected error; the log has the traceback"},
}
_PROBED: dict[int | str, dict[str, Any]] = {
    200: {"model": Probe, "description": "Yes"},
    503: {"model": Probe, "description": "No; the reasons say why"},
    **_FAILED,
}
_CONTROLLED: dict[int | str, dict[str, Any]] = {
    202: {"model": Accepted, "description": "Taken into account, or already under way"},
    401: {
        "model": Problem,
        "description": "No usable Authorization header",
        "headers": {"WWW-Authenticate": {"schema": {"type": "string", "const": "Bearer"}}},
    },
    403: {"model": Problem, "description": "Wrong token"},
    408: {"model": Problem, "description": "The body did not arrive in time"},
    409: {"model": Problem, "description": "Not possible in the present state"},
    413: {"model": Problem, "description": "The body is too large"},
    422: {"model": Problem, "description": "The body is not the expected JSON"},
    **_FAILED,
}
_TEXT = {"schema": {"type": "string"}}


def build_api(
    service: Service, token: str, *, version: str, limits: BodyLimits | None = None
) -> FastAPI:
    """The application that serves ``service``; POST requests need ``token``."""
    api = FastAPI(
        title="Penstock",
        summary="Kafka consumers that can be restarted on purpose",
        version=version,
        docs_url=None,  # both pages load scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,  # a redirect would be built from the client's Host header
    )
    limits = limits or BodyLimits()
    api.add_middleware(body.Edge, limits=limits)
    _add_reading(api, service)
    _add_control(api, service, Bearer(token), limits)
    return api


def _add_reading(api: FastAPI, service: Service) -> None:
    @api.get("/livez", responses=_PROBED, tags=["probes"])
    async def live() -> Response:
        """Liveness: false when a restart would help."""
        return _probe(service.live())

    @api.get("/readyz", responses=_PROBED, tags=["probes"])
    async def ready() -> Response:
        """Readiness: every worker has joined and polled, and work is taken in."""
        return _probe(service.ready())

    @api.get("/startupz", responses=_PROBED, tags=["probes"])
    async def started() -> Response:
        """Start-up: every worker has joined its group for the first time."""
        return _probe(service.started())

    @api.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {
                "description": "Metrics, in the format that the Accept header prefers",
                "content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT},
            },
            **_FAILED,
        },
        tags=["observation"],
    )
    async def metrics(request: Request) -> Response:
        """Prometheus or OpenMetrics text."""
        content, kind = service.metrics(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": kind})

    @api.get("/status", responses={200: {"model": Status}, **_FAILED}, tags=["observation"])
    async def status() -> Response:
        """State, workers, assignments, lag, work in flight, exits, build."""
        return _json(service.status().model_dump_json())


def _add_control(api: FastAPI, service: Service, bearer: Bearer, limits: BodyLimits) -> None:
    def control(kind: Kind, model: type[ReasonRequest], summary: str) -> None:
        path = f"/{kind}"

        async def handler(request: Request) -> Response:
            asked = await body.read(request, model, limits)
            return _ask(service, _request(kind, asked, f"POST {path}"))

        api.add_api_route(
            path,
            handler,
            methods=["POST"],
            name=kind,
            summary=summary,
            status_code=202,
            responses=_CONTROLLED,
            dependencies=[Depends(bearer)],
            # The body is read by hand, after the token is checked and within limits, so
            # FastAPI does not know of it.
            openapi_extra={
                "requestBody": {
                    "required": False,
                    "content": {"application/json": {"schema": model.model_json_schema()}},
                }
            },
            tags=["control"],
        )

    control(Kind.RESTART, RestartRequest, "Drain, then exit 4, as USR2 does")
    control(Kind.STOP, ReasonRequest, "Drain, leave the group, then exit 0")
    control(Kind.QUIET, ReasonRequest, "Take nothing new in; keep the assignment")
    control(Kind.RESUME, ReasonRequest, "Take work in again")
    control(Kind.RELOAD, ReasonRequest, "Replace the workers in place, one after another")


def _request(kind: Kind, asked: ReasonRequest, detail: str) -> lifecycle.Request:
    if not isinstance(asked, RestartRequest):
        return lifecycle.Request(kind, source="http", detail=detail, reason=asked.reason)
    if asked.source == "prestop":
        detail = "preStop"  # the exit record names the hook, not the path it happens to use
    return lifecycle.Request(
        kind, source=asked.source, detail=detail, reason=asked.reason, hold=asked.hold
    )


def _ask(service: Service, request: lifecycle.Request) -> Response:
    outcome = service.ask(request)
    status = service.status()
    if outcome is Outcome.REFUSED:
        raise HTTPException(409, f"{request.kind} refused: the service is {_doing(status)}")
    answer = Accepted(outcome=outcome, status=status, journal=service.journal())
    return _json(answer.model_dump_json(), 202)


def _doing(status: Status) -> str:
    if status.intent is None:
        return str(status.state)
    by = f", asked by {status.intent.requested_by}" if status.intent.requested_by else ""
    return f"{status.state} ({status.intent.kind}{by})"


def _probe(verdict: Verdict) -> Response:
    probe = Probe(status="ok" if verdict.ok else "failing", reasons=list(verdict.reasons))
    return _json(probe.model_dump_json(), 200 if verdict.ok else 503)


def _json(content: str, status_code: int = 200) -> Response:
    return Response(content, status_code, media_type="application/json")
