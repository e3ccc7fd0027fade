"""A vendor's error answer: raised anywhere in a vendor, and sent by its middleware.

Has status, body and headers; each vendor has its own kind of body.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping


class Refusal(Exception):
    """An error answer. `body` is sent as JSON, even a bare string, which one vendor sends."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status}")
        self.status = status
        self.body = body
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """Return the error as an HTTP answer."""
        return web.Response(
            status=self.status,
            text=json.dumps(self.body, separators=(",", ":")),
            content_type="application/json",
            headers=self.headers,
        )


def phrase(status: int) -> str:
    """Return the reason phrase of a status, even of numbers that no RFC names."""
    return HTTPStatus(status).phrase if status in {known.value for known in HTTPStatus} else "Unknown"


def oauth_error(status: int, error: str, description: str = "", headers: Mapping[str, str] | None = None) -> Refusal:
    """Return an error answer of a token endpoint (RFC 6749 §5.2)."""
    body = {"error": error, "error_description": description} if description else {"error": error}
    return Refusal(status, body, {"Cache-Control": "no-store", **(headers or {})})
