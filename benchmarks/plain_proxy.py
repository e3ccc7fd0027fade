"""The yardstick: the proxy that one writes with aiohttp in an afternoon.

`web.Application` in front, `ClientSession` behind. Ordinary and not slowed down: uvloop, streaming, raw bodies, no
cookie jar, no access log. It checks no key, counts nothing, and its token is a constant, so the comparison leans in its
favour.

    python -m benchmarks.plain_proxy PORT UPSTREAM
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

HOP_BY_HOP = frozenset(
    {
        "connection",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
PREFIX = "/bench"
UPSTREAM = web.AppKey("upstream", str)
SESSION = web.AppKey("session", aiohttp.ClientSession)


def end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Return the headers without those of one hop."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP)


async def forward(request: web.Request) -> web.StreamResponse:
    """Send the request on with a token, and stream the answer back."""
    headers = end_to_end(request.headers)
    headers["Authorization"] = "Bearer a-constant-token"
    url = request.app[UPSTREAM] + request.raw_path.removeprefix(PREFIX)
    body = request.content if request.can_read_body else None
    session = request.app[SESSION]
    async with session.request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer:
        response = web.StreamResponse(status=answer.status, headers=end_to_end(answer.headers))
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def session_of(app: web.Application) -> AsyncIterator[None]:
    """Keep one ClientSession for the life of the application."""
    async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as session:
        app[SESSION] = session
        yield


def main() -> None:
    """Serve until a signal."""
    app = web.Application(client_max_size=1 << 40)
    app[UPSTREAM] = sys.argv[2]
    app.cleanup_ctx.append(session_of)
    app.router.add_route("*", PREFIX + "/{path:.*}", forward)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
