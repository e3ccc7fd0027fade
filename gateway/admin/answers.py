"""Answers of the admin port: JSON bodies, and the header fields that every answer has."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

COMMON_FIELDS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def as_json(body: dict[str, Any], status: int = HTTPStatus.OK) -> web.Response:
    """Return an answer with a JSON body."""
    return web.Response(
        body=orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE), status=status, content_type="application/json"
    )
