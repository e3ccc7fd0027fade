"""aiohttp's own refusals (a malformed request, an unknown method) without the `Server` field and without HTML.

The signal that takes `Server` off our answers does not run for a request that never became one. Knows aiohttp's
server classes, nothing of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest


class _Refusal(web.Response):
    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.pop("Server", None)


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)
        answer = _Refusal(
            text=f'{{"status":{status}}}\n',
            status=status,
            content_type="application/json",
            headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        )
        answer.force_close()
        return answer


class Runner(web.AppRunner):
    """An `AppRunner` whose connections are quiet."""

    @property
    def server(self) -> Any:
        """What makes a connection: aiohttp's, of the quiet kind."""
        made = super().server

        def connection() -> web.RequestHandler:
            handler = made()  # type: ignore[misc]  # None only before setup()
            handler.__class__ = _Connection  # the same layout, one method more
            return handler

        return connection
