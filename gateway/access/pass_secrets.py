"""What passes are signed with: by route, the vendor credential's own secrets, or `app_token_key`. Pure."""

from __future__ import annotations

import dataclasses
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from gateway.model import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gateway.model import Config, Credential, Route

LIFE: Final = 3600
"""Seconds that a pass lives, unless the key or JWT that it was given for ends sooner."""
LEEWAY: Final = 30
"""Seconds that a pass is accepted after its end, because libraries round its life and answers travel."""
Former = dict[str, list[tuple[bytes, float]]]
"""Route → secrets that a reload has replaced, each with the wall-clock instant at which its last pass ends."""


def materials(config: Config) -> dict[str, tuple[bytes, ...]]:
    """Return, by route, what its passes are signed with first, and then what they may still be signed with."""
    if config.app_token_key is not None:
        own = sha256(config.app_token_key.reveal().encode("utf-8", "surrogateescape")).digest()
        return {route.name: (own,) for route in config.routes}
    return {route.name: _of_route(route, config.credentials) for route in config.routes}


def remember_replaced(before: Config, after: Config, former: Former, now: float) -> None:
    """Add to `former` what a reload has replaced, so that passes signed before go on until they end."""
    new = materials(after)
    for route, olds in materials(before).items():
        left = [(material, ends) for material, ends in former.get(route, ()) if ends > now]
        left += [(material, now + LIFE) for material in olds if material not in new.get(route, ())]
        former[route] = left


def _of_route(route: Route, credentials: Mapping[str, Credential]) -> tuple[bytes, ...]:
    for injection in route.injections:
        credential = credentials[injection.credential]
        found = [_digest(list(_secrets(grant))) for grant in credential.grants if any(_secrets(grant))]
        if found:
            return tuple(found)
    return ()


def _secrets(value: object) -> Iterator[bytes]:
    if isinstance(value, Secret):
        yield value.reveal().encode("utf-8", "surrogateescape")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for each in dataclasses.fields(value):
            yield from _secrets(getattr(value, each.name))
    elif isinstance(value, dict):
        for each in value.values():
            yield from _secrets(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _secrets(each)


def _digest(parts: Sequence[bytes]) -> bytes:
    return sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()


def issuer_holder(name: str) -> bytes:
    """Return what stands for the key of a client that is known by a JWT of the issuer `name`."""
    return b"issuer " + name.encode()
