"""Faults of a token endpoint, applied to real sockets and real bytes.

`instead` answers or disconnects before the vendor checks the request; `bent` damages the vendor's answer.
`switches.TOKEN_FAULTS` describes each fault.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gateway.sandbox.listener import reset
from gateway.sandbox.refusal import Refusal, oauth_error

if TYPE_CHECKING:
    from gateway.sandbox.switches import Switches

OVERSIZED = 64 * 1024 + 1
_PAGE = "<!doctype html><title>Sign in</title><h1>Scheduled maintenance</h1>"
_TOKENS: dict[str, Any] = {
    "empty_token": "",
    "number_token": 42,
    "list_token": ["a", "b"],
    "crlf_token": "abc\r\nX-Injected: yes",
    "non_ascii_token": "tökén",
}


async def instead(request: web.Request, switches: Switches) -> web.StreamResponse | None:
    """Answer in place of the vendor if the fault demands it; otherwise return None."""
    fault = switches.token_fault
    if fault in {"reset", "refuse"}:
        reset(request.transport)
        return web.Response(status=500)
    if fault == "hang":
        await asyncio.Event().wait()
    if fault == "redirect":
        return web.Response(status=302, headers={"Location": "/elsewhere"})
    if fault.startswith("invalid_client_"):
        raise oauth_error(int(fault[-3:]), "invalid_client", "switched on in the sandbox")
    if fault.isdigit():
        retry = {"Retry-After": switches.retry_after} if fault in {"429", "503"} and switches.retry_after else {}
        raise Refusal(int(fault), {"error": "temporarily_unavailable"}, retry)
    return None


async def bent(
    request: web.Request, fault: str, answer: dict[str, Any], names: tuple[str, str], headers: dict[str, str]
) -> web.StreamResponse:
    """Return the vendor's answer, damaged as the fault says. `names`: the fields of the token and of its type."""
    token, token_type = names
    if fault == "no_token":
        answer.pop(token)
    elif fault == "mac":
        answer[token_type] = "MAC"
    elif fault in _TOKENS:
        answer[token] = _TOKENS[fault]
    text = json.dumps(answer, separators=(",", ":"))
    if fault == "cut":
        return await _cut(request, text.encode())
    text, content_type = _body(fault, text)
    return web.Response(text=text, content_type=content_type, headers=headers)


def _body(fault: str, text: str) -> tuple[str, str]:
    if fault == "oversized":
        spare = OVERSIZED - len(text) - len(',"padding":""')
        text = text[:-1] + ',"padding":"' + "x" * spare + '"}'
    other = {
        "html": (_PAGE, "text/html"),
        "empty": ("", "application/json"),
        "truncated": (text[: len(text) * 2 // 3], "application/json"),
        "not_json": ("access_token=abc&expires_in=3600", "application/json"),
        "json_list": (f"[{text}]", "application/json"),
        "error_in_200": ('{"error":"temporarily_unavailable"}', "application/json"),
    }
    return other.get(fault, (text, "application/json"))


async def _cut(request: web.Request, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    await asyncio.sleep(0.02)  # a reset discards what the kernel has not sent; let the half arrive first
    reset(request.transport)
    return response
