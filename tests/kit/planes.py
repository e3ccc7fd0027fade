"""Planes for tests: configurations of a gateway that is asked, and a plane that asks it over its socket."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from gateway.access import hash_key
from tests.kit.gateway import CANARY
from tests.kit.wire import OPENED, Peer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.endpoint import TokenEndpoint
    from tests.kit.wire import Message

WEB = f"gp_{CANARY}-web"
KEY = f"X-Gatepass-Key: {WEB}"
NOWHERE = 9
"""Port of the vendor in tests where only the plane would call it."""


def client(name: str = "web", key: str = WEB, **more: Any) -> dict[str, Any]:
    return {"name": name, "key_sha256": hash_key(key), **more}


def asked_gateway(
    folder: Path, *clients: dict[str, Any], ask: dict[str, Any] | None = None, **route: Any
) -> dict[str, Any]:
    """Return a configuration with one route `v`, a static token (the canary) and a plane `edge` that tells paths."""
    plane = {"routes": ["v"], "request": "path", "uid": os.getuid(), **(ask or {})}
    return {
        "credentials": {"key": {"static": {"token": "${CANARY}"}}},
        "routes": {"v": {"credential": "key", "upstream": f"http://127.0.0.1:{NOWHERE}", **route}},
        "clients": list(clients) or [client()],
        "planes": {"listen": f"unix:{folder}/planes.sock", "ask": {"edge": plane}},
    }


def fetching(config: dict[str, Any], endpoint: TokenEndpoint, **more: Any) -> dict[str, Any]:
    """Return the configuration with a token that is fetched, instead of the static one."""
    request = {"url": endpoint.url, "form": {"grant_type": "client_credentials"}}
    grant = {"request": request, "response": {"token": "access_token", "expires": {"in": "expires_in"}}}
    return {**config, "credentials": {"key": {"grant": grant, **more}}}


async def plane_at(folder: Path) -> Peer:
    """Connect as a plane."""
    peer = Peer(*await asyncio.open_unix_connection(folder / "planes.sock"))
    OPENED.append(peer)
    return peer


def question(target: str = "/ask/v/v/x", *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/1.1", "Host: gatepass", *fields, "", "")).encode("latin-1")


async def ask(folder: Path, target: str = "/ask/v/v/x", *fields: str, method: str = "GET") -> Message:
    """Ask once, on a connection of its own."""
    plane = await plane_at(folder)
    await plane.send(question(target, *fields, method=method))
    answer = await plane.message(is_head=method == "HEAD")
    plane.close()
    return answer
