"""A vendor's "no": raised anywhere in a vendor, answered once by its middleware.

Knows status, body and fields of an error answer; the shape of the body is each vendor's own.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping


class Refusal(Exception):
    """An error answer: `body` becomes JSON whatever it is (one vendor answers a bare string)."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status}")
        self.status = status
        self.body = body
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """Return it as an HTTP answer."""
        return web.Response(
            status=self.status,
            text=json.dumps(self.body, separators=(",", ":")),
            content_type="application/json",
            headers=self.headers,
        )


def phrase(status: int) -> str:
    """Return a status' reason; some vendors use numbers that no RFC names."""
    return HTTPStatus(status).phrase if status in {known.value for known in HTTPStatus} else "Unknown"


def oauth_error(status: int, error: str, description: str = "", headers: Mapping[str, str] | None = None) -> Refusal:
    """Return an error answer of a token endpoint (RFC 6749 §5.2)."""
    body = {"error": error, "error_description": description} if description else {"error": error}
    return Refusal(status, body, {"Cache-Control": "no-store", **(headers or {})})
