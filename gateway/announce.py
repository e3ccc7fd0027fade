"""What the composition root logs about a configuration and its surroundings: one event each, no decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.addresses import is_loopback
from gateway.observe import get_logger

if TYPE_CHECKING:
    from gateway.model import Config

_log = get_logger("gatepass")


def report_proxies(config: Config) -> None:
    """Log each egress proxy, and what is left to it."""
    ways = {route.upstream.egress for route in config.routes}
    ways |= {grant.request.egress for each in config.credentials.values() for grant in each.grants}
    for url in sorted({way.url for way in ways if way is not None}):
        _log.info("egress_proxy", proxy=url, hint="it resolves the names of servers: allow_addresses cannot check them")


def report_name(name: str, stale: bool) -> None:
    """Log that a name is resolved again, or that its last known addresses are used."""
    if stale:
        _log.warning("name_not_resolved", name=name, hint="its last known addresses are used")
    else:
        _log.info("name_resolved_again", name=name)


def not_configured(config: Config) -> list[str]:
    """Return the keys that a careful operator would set, and that this configuration leaves out."""
    return [
        key
        for key, missing in {
            "clients": config.access == "open",
            "tls": config.tls is None and not all(is_loopback(address.host) for address in config.listen),
            "admin": config.admin is None,
            "admin_keys_sha256": config.admin is not None and not config.admin_keys_sha256,
            "state_file": config.state_file is None
            and config.store is None
            and any(client.budgets for client in config.clients),
        }.items()
        if missing
    ]
