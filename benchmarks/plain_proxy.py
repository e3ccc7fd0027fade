"""A plain proxy for comparison: what an engineer writes with aiohttp in an afternoon.

`web.Application` in front, `ClientSession` behind, and a structlog line per request, configured as structlog's page on
performance recommends. It is not slowed down: uvloop, streaming, raw bodies, no cookie jar, no limit of connections. It
checks no key, counts nothing, and its token is a constant, so the comparison favours it.

    python -m benchmarks.plain_proxy PORT UPSTREAM FOLDER

With an `https` upstream it serves TLS too; certificates are in the folder.
"""

from __future__ import annotations

import ssl
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import orjson
import structlog
import uvloop
from aiohttp import web
from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiohttp.typedefs import Handler

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
TRUST = web.AppKey("trust", ssl.SSLContext)
log = structlog.get_logger()


def end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Return the headers without hop-by-hop headers."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP)


@web.middleware
async def logged(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log a request after its answer was sent."""
    began = time.perf_counter()
    response = await handler(request)
    log.info(
        "request",
        method=request.method,
        status=response.status,
        duration_ms=round((time.perf_counter() - began) * 1000, 3),
        request_id=request.headers.get("X-Request-Id"),
        bytes_out=response.body_length,
        remote=request.remote,
    )
    return response


async def forward(request: web.Request) -> web.StreamResponse:
    """Forward the request with a token, and stream the answer back."""
    headers = end_to_end(request.headers)
    headers["Authorization"] = "Bearer bench-0123456789abcdef0123456789abcdef"
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
    """Open one ClientSession for the life of the application."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=app[TRUST]),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        app[SESSION] = session
        yield


def main() -> None:
    """Serve until a signal."""
    port, upstream, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.BytesLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    app = web.Application(client_max_size=1 << 40, middlewares=[logged])
    app[UPSTREAM] = upstream
    app[TRUST] = ssl.create_default_context(cafile=folder / "ca.pem")
    app.cleanup_ctx.append(session_of)
    app.router.add_route("*", PREFIX + "/{path:.*}", forward)
    served = None
    if upstream.startswith("https:"):
        served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        served.load_cert_chain(folder / "server.pem", folder / "server.key")
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=loop, ssl_context=served)


if __name__ == "__main__":
    main()
