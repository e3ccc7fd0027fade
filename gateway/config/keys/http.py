"""URLs, header fields and paths: which of them may be written in a configuration. Pure text rules, no network.

RFC 3986 for URLs, RFC 9110 §5 for fields. A path pattern is below a route's prefix; a rule has methods, and its
pattern includes the prefix.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from gateway.config.keys.network import is_host, may_be_plain
from gateway.config.keys.section import kind, refuse
from gateway.config.keys.text import FIELDS, STRINGS, list_of, pairs, plain_text, text_like
from gateway.model import Pairs, Secret, Upstream
from gateway.model.http import HOP_BY_HOP
from gateway.patterns import pattern_mistake

if TYPE_CHECKING:
    from typing import Literal

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110 §5.6.2."""
FIELD_VALUE = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")
"""Visible ASCII with spaces and tabs inside (RFC 9110 §5.5)."""
FIELD_VALUE_RULE = "is no header value: only visible ASCII, with spaces inside"
PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")
PATTERN = re.compile(r"/[!-\"$->@-~]*")
"""A path of visible ASCII without `?` and `#`."""
RULE = re.compile(r"(?:(?:\*|[A-Z][A-Z-]*(?:,[A-Z][A-Z-]*)*) +)?(?P<pattern>/\S*)")
TEMPLATE = re.compile(r"(?:/(?:\{[A-Za-z][A-Za-z0-9_]*\}|[A-Za-z0-9._~:@!$&'()+,;=%-]+))+/?")
URL = re.compile(r"[!-~]+")
DOT_SEGMENT = re.compile(r"(?:^|/)(?:\.|%2[eE]){1,2}(?:/|$)")
PLAIN_REFUSED = "must be https:// (http:// is only for loopback, private addresses and local names)"

MESSAGE_HEADERS = HOP_BY_HOP | {"host", "content-length", "expect"}
"""Fields that frame or address a message; only the gateway itself writes them."""
NEVER_INJECTED = MESSAGE_HEADERS | {"via", "date", "x-gatepass-key", "x-request-id", "content-type", "content-encoding"}


def url_mistake(text: str, *, query: bool = False) -> str | None:
    """Return why a URL cannot be used, without repeating it; None if it can. `query`: it may have one."""
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
        (query or "?" not in text, "must not have a query (?); a token request has `query` for it"),
        (port != 0 and is_host(host), "names no host that can be reached"),
        (not DOT_SEGMENT.search(parts.path) and "{" not in text, "must have a path without dot segments and braces"),
        (parts.scheme == "https" or may_be_plain(host), PLAIN_REFUSED),
    )
    return next((mistake for holds, mistake in rules if not holds), None)


def url(value: object) -> str:
    """Return a URL that `url_mistake` accepts."""
    text = plain_text(value)
    return refuse(mistake) if (mistake := url_mistake(text)) else text


def query_url(value: object) -> str:
    """Return a URL that `url_mistake` accepts, perhaps with a query."""
    text = plain_text(value)
    return refuse(mistake) if (mistake := url_mistake(text, query=True)) else text


def parse_upstream(text: str) -> Upstream:
    """Split a URL that `url_mistake` accepts. The host becomes lower case (RFC 3986 §3.2.2)."""
    parts = urlsplit(text)
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    port = parts.port or (443 if scheme == "https" else 80)
    return Upstream(scheme=scheme, host=parts.hostname or "", port=port, base_path=parts.path.rstrip("/"))


def header_name(value: object) -> str:
    """Return a field name (RFC 9110 §5.1)."""
    text = plain_text(value)
    return text if TOKEN.fullmatch(text) else refuse("is no header name")


def headers(value: object) -> Pairs:
    """Return the header fields of a token request."""
    given = pairs(value)
    for name, text in given:
        if not TOKEN.fullmatch(name):
            refuse(f"{name!r} is no header name")
        if name.lower() in MESSAGE_HEADERS:
            refuse(f"{name} is written by the gateway itself")
        if not FIELD_VALUE.fullmatch(text.reveal() if isinstance(text, Secret) else text):
            refuse(f"{name}: {FIELD_VALUE_RULE}")
    return given


def rule(value: object) -> str:
    """Return a client's rule: methods and a path pattern."""
    text = plain_text(value)
    match = RULE.fullmatch(text)
    if match is None or not PATTERN.fullmatch(match["pattern"]):
        refuse("must be a rule as `POST /orders/v1/*`, `GET,HEAD /ledger/**` or `/ledger/**`")
    return refuse(mistake) if (mistake := pattern_mistake(match["pattern"])) else text


def path_pattern(value: object) -> str:
    """Return a pattern of paths that a request can have."""
    text = plain_text(value)
    if not PATTERN.fullmatch(text):
        refuse("must be a path pattern that begins with /, as /v1/** or /files/*")
    return refuse(mistake) if (mistake := pattern_mistake(text)) else text


path_template = text_like(TEMPLATE, "must be a path template, as /api/v1/info/{id}")
path_prefix = text_like(PREFIX, "must be a path as /name: no slash at the end, no dot segments, no escapes")

QueryUrl = Annotated[str, *kind("URL", query_url, type="string", format="uri", pattern="^https?://")]
Url = Annotated[str, *kind("URL", url, type="string", format="uri", pattern="^https?://")]
HeaderName = Annotated[str, *kind("header name", header_name, type="string", pattern=f"^{TOKEN.pattern}$")]
HeaderNames = Annotated[tuple[str, ...], *kind("list of header names", list_of(header_name), **STRINGS)]
Headers = Annotated[Pairs, *kind("headers", headers, **FIELDS)]
Prefix = Annotated[str, *kind("path prefix", path_prefix, type="string", pattern=f"^{PREFIX.pattern}$")]
Patterns = Annotated[tuple[str, ...], *kind("list of path patterns", list_of(path_pattern), **STRINGS)]
Rules = Annotated[tuple[str, ...], *kind("list of rules", list_of(rule), **STRINGS)]
Templates = Annotated[tuple[str, ...], *kind("list of path templates", list_of(path_template), **STRINGS)]
