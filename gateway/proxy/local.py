"""Whether a request comes directly from a program on this machine, for a gateway without clients.

Such a gateway listens on loopback only, but that alone says nothing about the sender: a web page in a browser on this
machine, a name that an attacker resolves to loopback (DNS rebinding), and a local reverse proxy all arrive from
loopback, too.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from gateway.errors import ClientForbidden
from gateway.proxy.fields import CALLERS
from gateway.proxy.routing import host_of

if TYPE_CHECKING:
    from collections.abc import Container

    from gateway.proxy.request import RequestHead

_PROXIED: Final[frozenset[bytes]] = frozenset({
    *CALLERS,
    *(b"via", b"x-envoy-peer-metadata", b"x-original-forwarded-for", b"x-arr-log-id", b"x-amzn-trace-id", b"x-varnish"),
})  # fmt: skip
"""Fields that only proxies add; `X-Forwarded-*` as well."""
_FROM_PAGE: Final[frozenset[bytes]] = frozenset({b"origin", b"referer"})
_SAME: Final[frozenset[bytes]] = frozenset({b"none", b"same-origin", b"same-site"})
"""Values of `Sec-Fetch-Site` (W3C Fetch Metadata) of a person's own request, and of pages on this machine."""
_HINT: Final = "Configure `clients`, or write `access: open` if everyone who reaches this port may call."


def check_local(request: RequestHead, hosts: Container[str]) -> None:
    """Raise ClientForbidden unless a program on this machine sent this directly to loopback.

    `hosts` are the configured names of routes, which count as loopback.
    """
    for line in request.fields:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip()
        if name in _PROXIED or name.startswith(b"x-forwarded"):
            raise _error("came through a proxy", name)
        if name == b"sec-fetch-site" and value.lower() not in _SAME:
            raise _error("came from a web page of another site", name)
        if name in _FROM_PAGE and not is_local(_authority(value), hosts):
            raise _error("came from a web page of another site", name)
        if name == b"host" and not is_local(host_of([value.decode("latin-1")]), hosts):
            raise _error("was sent to a name that is not of this machine", name)
    if not request.target.startswith("/") and not is_local(_authority(request.target.encode()), hosts):
        raise _error("was sent to a name that is not of this machine", b"request target")


def is_local(host: str, hosts: Container[str]) -> bool:
    """Whether a host is loopback: an address, `localhost` or a name below it (RFC 6761 §6.3), or a configured name."""
    host = host.removesuffix(".")
    if host == "localhost" or host.endswith(".localhost") or host in hosts:
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _authority(url: bytes) -> str:
    """Return the host of an absolute URL, in lower case; empty if it has none, as `null` has."""
    _, found, rest = url.partition(b"://")
    authority = rest.partition(b"/")[0].partition(b"?")[0].partition(b"#")[0] if found else b""
    return host_of([authority.rpartition(b"@")[2].decode("latin-1")])


def _error(what: str, name: bytes) -> ClientForbidden:
    return ClientForbidden(
        f"Without clients, only programs on this machine may call, and directly; this request {what}. {_HINT}",
        reason=f"no clients are configured, and the request {what} ({name.decode('latin-1')})",
    )
