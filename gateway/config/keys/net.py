"""What may be written as a URL, an address, a path prefix or a header: pure text rules, no network.

RFC 3986 for URLs, RFC 9110 §5 for fields, RFC 6761 and RFC 8375's neighbours for names that never leave a machine
or a network. Nothing is resolved here.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.addresses import embedded, parse, refused
from gateway.model import Address, Upstream
from gateway.model.http import HOP_BY_HOP

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from gateway.addresses import IPAddress

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110 §5.6.2."""
FIELD_VALUE = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")
PATTERN = re.compile(r"/[!-\"$->@-~]*")
"""A path of visible ASCII without `?` and `#`."""
URL = re.compile(r"[!-~]+")
HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
PORT = re.compile(r"[0-9]{1,5}")

MESSAGE_HEADERS = HOP_BY_HOP | {"host", "content-length", "expect"}
"""What frames or addresses a message: always the gateway's own."""
NEVER_INJECTED = MESSAGE_HEADERS | {"via", "date", "x-gatepass-key", "x-request-id", "content-type", "content-encoding"}

PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".test")
MAX_PORT = 65535
DOT_SEGMENT = re.compile(r"(?:^|/)(?:\.|%2[eE]){1,2}(?:/|$)")
PLAIN_REFUSED = "must be https:// (http:// is only for loopback, private addresses and local names)"


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach a listener there."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def may_be_plain(host: str) -> bool:
    """Whether `http://` is allowed: the host cannot be on the public Internet.

    Allowed are loopback and private addresses, but no link-local ones and no metadata services; single-label names as
    compose gives them; and names under `.localhost`, `.local`, `.internal` or `.test`.
    """
    address = parse(host)
    if address is None:
        name = host.rstrip(".").lower()
        return "." not in name or name.endswith(PRIVATE_SUFFIXES)
    inner: Sequence[IPAddress] = embedded(address)
    return all(_is_near(each) for each in inner or [address])


def _is_near(address: IPAddress) -> bool:
    return address.is_loopback or (address.is_private and refused(address) is None)


def url_mistake(text: str) -> str | None:
    """Say in words, and without the URL, why it cannot be used; None when it can."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return "is no URL"
    host = parts.hostname or ""
    rules = (
        (URL.fullmatch(text) and "\\" not in text, "is no URL"),
        (parts.scheme in {"https", "http"} and host, "must be a URL as https://host/path"),
        ("@" not in parts.netloc, "must not hold a user name or password"),
        ("#" not in text, "must not have a fragment (#)"),
        ("?" not in text, "must not have a query (?); a token request has `query` for it"),
        (port != 0 and _is_host(host), "names no host that can be reached"),
        (not DOT_SEGMENT.search(parts.path) and "{" not in text, "must have a path without dot segments and braces"),
        (parts.scheme == "https" or may_be_plain(host), PLAIN_REFUSED),
    )
    return next((mistake for holds, mistake in rules if not holds), None)


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(HOST_NAME.fullmatch(host)) and not re.fullmatch(r"[0-9.]+", host)
    return True


def parse_upstream(text: str) -> Upstream:
    """Take a URL apart that `url_mistake` has passed. The host is lower case (RFC 3986 §3.2.2)."""
    parts = urlsplit(text)
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    port = parts.port or (443 if scheme == "https" else 80)
    return Upstream(scheme=scheme, host=parts.hostname or "", port=port, base_path=parts.path.rstrip("/"))


def parse_address(text: str) -> Address | None:
    """Read `host:port`; no host means every address (`0.0.0.0`). None when it is no address."""
    host, colon, port = text.rpartition(":")
    if not colon or not PORT.fullmatch(port) or int(port) > MAX_PORT:
        return None
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host or "0.0.0.0"  # noqa: S104 - the user asks for it by leaving it out
    if bracketed != (":" in host) or not _is_host(host):
        return None
    return Address(host, int(port))
