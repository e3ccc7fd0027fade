"""The ops port: health, readiness, metrics and status over `aiohttp.web`, on an address of its own.

Knows metrics and statuses by the callables that it is given, nothing of the data plane. Serves no secret, takes no
body and changes nothing. Everything it says is `no-store`, every refusal is JSON.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from gateway import __version__
from gateway.admin import pages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.model import Address, CredentialStatus
    from gateway.observe import Metrics

SHUTDOWN_TIMEOUT = 1.0
"""Seconds that a request under way may take when the port closes."""


class AdminServer:
    """The admin port. `state` is `starting`, `ready` or `draining`; `data_address` is where the data port listens.

    `address` is where it listens, known after `start()`: with port 0 a free one was taken.
    """

    def __init__(
        self,
        address: Address,
        *,
        metrics: Metrics,
        status: Callable[[], Sequence[CredentialStatus]],
        state: Callable[[], str],
        data_address: Callable[[], tuple[str, int] | None] = lambda: None,
    ) -> None:
        self._wanted = address
        self._metrics = metrics
        self._status = status
        self._state = state
        self._data_address = data_address
        self._started = time.monotonic()
        self._runner: web.AppRunner | None = None
        self.address: tuple[str, int] = (address.host, address.port)

    async def start(self) -> None:
        """Open the port. Raises OSError when the address cannot be had."""
        runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._wanted.host, self._wanted.port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.address = runner.addresses[0][:2]

    async def stop(self) -> None:
        """Close the port; harmless when it is not open."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[_refusals_as_json])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/status.json", self._status_json)
        app.on_response_prepare.append(_common_fields)
        return app

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _json({"state": pages.shown_state(self._state(), self._status()), "data": self._data_address()})

    async def _readyz(self, _request: web.Request) -> web.Response:
        credentials = self._status()
        state = pages.shown_state(self._state(), credentials)
        body = {"state": state, "data": self._data_address(), "credentials": [*map(pages.credential, credentials)]}
        return _json(body, HTTPStatus.OK if state == "ready" else HTTPStatus.SERVICE_UNAVAILABLE)

    async def _metrics_page(self, request: web.Request) -> web.Response:
        body, content_type = self._metrics.exposition(request.headers.get("Accept"))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _status_json(self, _request: web.Request) -> web.Response:
        return _json(
            {
                "version": __version__,
                "state": pages.shown_state(self._state(), self._status()),
                "uptime": round(time.monotonic() - self._started, 3),
                "credentials": [pages.credential(status) for status in self._status()],
            }
        )


def _json(body: dict[str, Any], status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(
        body=orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE), status=status, content_type="application/json"
    )


@web.middleware
async def _refusals_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """404 and 405 in JSON, with the `Allow` field that the latter owes (RFC 9110 §15.5.6)."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        answer = _json({"status": refusal.status, "title": refusal.reason}, refusal.status)
        if "Allow" in refusal.headers:
            answer.headers["Allow"] = refusal.headers["Allow"]
        return answer


async def _common_fields(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.pop("Server", None)
