"""The bearer token that every POST needs. Decided on the headers alone, before any body."""

from __future__ import annotations

import hmac

from fastapi import HTTPException
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import Request


class Bearer(SecurityBase):
    """Lets a request through that carries the token (RFC 6750), compared in constant time.

    A loopback peer gets no pass: a mesh proxy forwards everybody's requests from loopback.
    """

    def __init__(self, token: str) -> None:
        self.scheme_name = "controlToken"
        self.model = HTTPBearer(
            description="PENSTOCK_CONTROL_TOKEN, its file, or the token made at start"
        )
        self._token = token.encode()

    async def __call__(self, request: Request) -> None:
        """Refuse with 401 (no usable credentials) or 403 (a wrong token)."""
        given = request.headers.getlist("authorization")
        scheme, _, credentials = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        credentials = credentials.strip()
        if scheme.lower() != "bearer" or not credentials:
            raise HTTPException(
                401,
                "this needs the header `Authorization: Bearer <token>`, once",
                headers={"WWW-Authenticate": "Bearer"},
            )
        # Starlette decodes headers as latin-1: this gives back the bytes of the wire, which
        # compare_digest needs (it refuses str outside ASCII).
        if not hmac.compare_digest(credentials.encode("latin-1"), self._token):
            raise HTTPException(403, "wrong control token")
