"""Opens the admin port of a running gateway, with an admin key that the tests know."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.access import hash_key
from gateway.admin import AdminServer
from gateway.model import Address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.kit.gateway import Running

ADMIN_KEY = "gp_CANARY-admin-key-for-tests-only"


@asynccontextmanager
async def admin_port(it: Running, *, key: str | None = ADMIN_KEY) -> AsyncIterator[str]:
    """Open an admin port for `it` on a free port; yield its URL. Without `key`, it changes nothing."""
    gateway = it.gateway
    server = AdminServer(
        Address("127.0.0.1", 0),
        metrics=gateway.metrics,
        status=gateway.tokens.status,
        state=lambda: gateway.state,
        data_address=lambda: gateway.data_address,
        credentials=gateway.tokens,
        usage=gateway._access.usage.days,
        store=gateway.store.status if gateway.store is not None else None,
        planes=lambda: gateway._planes.status() if gateway._planes is not None else (),
    )
    server.use(replace(gateway.config, admin_keys_sha256=(hash_key(key),) if key else ()))
    await server.start()
    try:
        yield "http://{}:{}".format(*server.address)
    finally:
        await server.stop()
