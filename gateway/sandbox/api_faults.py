"""Faults of a vendor's API below HTTP, applied to real sockets.

Faults that are statuses are not here, because each vendor has its own error bodies.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway.sandbox.listener import reset

CUT_LENGTH = 64 * 1024


async def instead(request: web.Request, fault: str) -> web.StreamResponse | None:
    """Break the exchange as the fault says; return None if the fault is not about the connection."""
    if fault == "reset":
        reset(request.transport)
        return web.Response(status=500)
    if fault == "hang":
        await asyncio.Event().wait()
    if fault == "cut":
        response = web.StreamResponse(headers={"Content-Length": str(CUT_LENGTH)})
        await response.prepare(request)
        await response.write(b"x" * (CUT_LENGTH // 2))
        await asyncio.sleep(0.02)  # a reset discards what the kernel has not sent; let the half arrive first
        reset(request.transport)
        return response
    if fault == "not_http" and request.transport is not None:
        request.transport.write(b"220 mail.example ESMTP ready\r\n")
        request.transport.close()
        return web.Response(status=500)
    return None
