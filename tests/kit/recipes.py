"""Credentials for tests: the simplest recipe that works; tests change what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.model import (
    Address,
    Config,
    Credential,
    Expires,
    Grant,
    GrantRequest,
    GrantResponse,
    Secret,
)

if TYPE_CHECKING:
    from gateway.model import Pairs

SECRET = "CANARY-secret-7f3a9c"


def form(secret: str = SECRET, client_id: str = "client-1", **extra: str) -> Pairs:
    pairs = (("grant_type", "client_credentials"), ("client_id", client_id), ("client_secret", Secret(secret)))
    return pairs + tuple(extra.items())


def grant(url: str, *, secret: str = SECRET, request: dict[str, Any] | None = None, **response: Any) -> Grant:
    return Grant(
        GrantRequest(url=url, **({"form": form(secret)} | (request or {}))),
        GrantResponse(**({"expires": Expires("in", "expires_in")} | response)),
    )


def credential(url: str, name: str = "acme", *, next_secret: str | None = None, **fields: Any) -> Credential:
    grants: tuple[Grant, ...] = (grant(url, secret=fields.pop("secret", SECRET), request=fields.pop("request", None)),)
    if next_secret is not None:
        grants += (grant(url, secret=next_secret),)
    return Credential(**({"name": name, "grants": grants} | fields))


def config(*credentials: Credential, token_timeout: float = 5.0) -> Config:
    return Config(
        listen=(Address("127.0.0.1", 0),),
        admin=None,
        access="open",
        clients=(),
        credentials={one.name: one for one in credentials},
        routes=(),
        token_timeout=token_timeout,
    )
