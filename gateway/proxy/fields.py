"""What the heads of requests and responses share: the class `Head`, and tables of what is done with fields. Pure.

Hop-by-hop fields and the fields that `Connection` names are dropped first (RFC 9110 §7.6.1), *then* the route's header
is injected, so that no client can strip it. Framing fields are never copied: they are written anew (RFC 9112 §6).
Names are compared with `_` and other signs read as `-`, because servers behind CGI and WSGI do not tell them apart.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from gateway.errors import BadRequest
from gateway.model.http import HOP_BY_HOP

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.model import Route

VIA: Final = b"gatepass"
"""Our pseudonym in `Via` of answers (RFC 9110 §7.6.3) and in `Proxy-Status` (RFC 9209); `via_pseudonym` in requests."""
CONTROLS: Final = bytes(set(range(0x20)) - {0x09} | {0x7F})
"""Bytes that no field may contain: every control byte except tab (RFC 9110 §5.5, RFC 9112 §2.2)."""
CONTROL: Final = "The head holds a control byte, or a line that does not end with CR LF"
NO_COLON: Final = "A header field has no colon"
TWO_FRAMINGS: Final = "Content-Length and Transfer-Encoding together"
CHUNKED_LINE: Final = b"Transfer-Encoding: chunked"
UPGRADE_LINES: Final = b"Connection: Upgrade\r\nUpgrade: websocket"
_CONTROLS_BUT_CR_LF: Final = bytes(set(CONTROLS) - set(b"\r\n"))
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_NOT_ALPHANUMERIC: Final = re.compile(rb"[^0-9a-z]")
_LENGTH: Final = re.compile(rb"(?=[0-9])0*+[0-9]{0,18}\Z")

# What is done with a field, by its name. Fields other than PASS and DROP are interpreted by `read_request` or
# `read_response`.
PASS: Final = 0
DROP: Final = 1
HOST: Final = 2
CONNECTION: Final = 3
LENGTH: Final = 4
CODING: Final = 5
EXPECT: Final = 6
UPGRADE: Final = 7
KEY: Final = 8
AUTHORIZATION: Final = 9
REQUEST_ID: Final = 10
TRACEPARENT: Final = 11
DATE: Final = 12
CACHE_CONTROL: Final = 13
INJECTED: Final = 14
KEEP_ALIVE: Final = 15
VIA_FIELD: Final = 16
FRAMING: Final = frozenset({LENGTH, CODING})

_HOP_BY_HOP: Final = tuple([name.encode("ascii") for name in sorted(HOP_BY_HOP)])
_OF_APPS: Final = (b"cookie", b"origin", b"referer")
CALLERS: Final = (
    b"forwarded", b"x-forwarded", b"x-real-ip", b"true-client-ip", b"client-ip", b"x-client-ip", b"x-cluster-client-ip",
    b"x-originating-ip", b"x-remote-ip", b"x-remote-addr", b"x-proxyuser-ip", b"cf-connecting-ip",
    b"cf-connecting-ipv6", b"cf-pseudo-ipv4", b"fastly-client-ip", b"fly-client-ip", b"x-azure-clientip",
    b"x-azure-socketip", b"x-appengine-user-ip", b"x-envoy-external-address", b"client-cert", b"client-cert-chain",
)  # fmt: skip
"""Fields in which proxies tell who called (RFC 7239, RFC 9440): from an app they are claims."""
_OVERRIDES: Final = (
    b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-method", b"x-original-url",
    b"x-original-uri", b"x-original-path", b"x-original-host", b"x-rewrite-url", b"x-rewrite-uri", b"x-override-url",
    b"x-http-destinationurl", b"x-http-host-override", b"x-host", b"x-envoy-original-path", b"x-envoy-original-host",
    b"x-envoy-original-dst-host", b"alt-used",
)  # fmt: skip
"""Fields that some servers believe instead of the request line or `Host`: they would get around methods and rules."""
_NEVER_UP: Final = (*_OF_APPS, *CALLERS, *_OVERRIDES)
_FOR_PARTS: Final = (b"accept-encoding", b"range", b"if-range")
"""Fields that ask for an answer in which the echo guard cannot find a token: compressed, or cut in two."""
_FOR_CODINGS: Final = (b"accept-encoding",)
"""The field that asks for an answer in which a refusal sign cannot be read."""
_NEVER_DOWN: Final = (
    b"alt-svc", b"proxy-status", b"x-accel-redirect", b"x-sendfile", b"x-sendfile2", b"x-lighttpd-send-file",
    b"x-lighttpd-send-tempfile", b"x-lighttpd-sendfile", b"x-reproxy-url", b"x-reproxy-file",
)  # fmt: skip
"""Fields of a vendor about our host (RFC 7838), as if from us (RFC 9209), or that tell a proxy in front of us to send
a file or to ask another server."""
_MEANING_UP: Final = {
    b"host": HOST,
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"x-gatepass-key": KEY,
    b"x-request-id": REQUEST_ID,
    b"traceparent": TRACEPARENT,
    b"via": VIA_FIELD,
}
_MEANING_DOWN: Final = {
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"upgrade": UPGRADE,
    b"x-request-id": DROP,
    b"date": DATE,
    b"cache-control": CACHE_CONTROL,
    b"keep-alive": KEEP_ALIVE,
}
_MOST_NAMES: Final = 512
"""Names and lines that one table caches: they come from clients and vendors, so memory for them is bounded."""
_STEADY_NAMES: Final = frozenset({
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"accept-ranges", b"cache-control",
    b"connection", b"content-type", b"date", b"host", b"pragma", b"server", b"strict-transport-security",
    b"user-agent", b"vary", b"via", b"x-content-type-options", b"x-frame-options",
})  # fmt: skip
"""Fields whose whole lines are cached: they repeat often and contain nothing about a person."""
_STEADY_SIZE: Final = 200
"""Bytes of the longest line, and of the longest name, that is cached."""


class Head:
    """What requests and responses have in common, once their head is understood."""

    chunked: bool = False
    length: int | None = None
    """Content-Length, bytes; None without one."""
    keep_alive: bool = True
    connection: bytes = b""
    """The values of all `Connection` fields, joined by commas."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        """Fields that are passed on, byte for byte."""


class Verdicts(dict[bytes, int]):
    """Field name as written → what to do with it. A bounded cache that works out a missing name.

    `steady` caches whole lines of fields that repeat with the same value and contain no secret.
    """

    def __init__(
        self,
        meaning: dict[bytes, int],
        dropped: Iterable[bytes] = (),
        kept: frozenset[bytes] = frozenset(),
        prefixes: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__()
        self.steady: dict[bytes, int] = {}
        self._meaning = dict.fromkeys((*_HOP_BY_HOP, *dropped), DROP) | meaning
        self._known = {_canonical(name) for name in self._meaning}
        for name in kept:
            self._meaning.pop(name, None)
        self._prefixes = prefixes
        self._kept = kept

    def __missing__(self, raw: bytes) -> int:
        name = raw.lower()
        verdict = self._meaning.get(name)
        if verdict is None:
            alias = _canonical(name)
            unwanted = alias in self._known or alias.startswith(self._prefixes)
            verdict = DROP if unwanted and name not in self._kept else PASS
        if _TOKEN.match(raw) is None:
            raise BadRequest("A header field name holds a byte that is not allowed")
        if len(self) < _MOST_NAMES and len(raw) <= _STEADY_SIZE:
            self[raw] = verdict
        return verdict

    def remember(self, line: bytes, name: bytes, verdict: int) -> None:
        """Cache `line`, which is valid, so that it need not be parsed the next time."""
        if len(line) <= _STEADY_SIZE and name.lower() in _STEADY_NAMES:
            if len(self.steady) >= _MOST_NAMES:
                self.steady.clear()
            self.steady[line] = verdict


def _canonical(name: bytes) -> bytes:
    """Return a name, in lower case, as servers compare it that make a variable's name of it (RFC 3875 §4.1.18)."""
    return _NOT_ALPHANUMERIC.sub(b"-", name)


def via_pseudonym(route: Route) -> bytes:
    """Return the route's pseudonym in `Via` of requests: the same in all instances of one configuration.

    A request that arrives with it has passed the route before. Two gateways in a chain have other upstreams, so each
    has its own (docs/decisions/0014).
    """
    upstream = route.upstream
    parts = (route.name, route.prefix, upstream.scheme, upstream.authority, upstream.base_path)
    return b"%b-%b" % (VIA, sha256("\n".join(parts).encode("utf-8")).hexdigest()[:12].encode("ascii"))


def verdicts_up(route: Route) -> Verdicts:
    """Return the table for an app's fields on this route."""
    injected = [injection.header.lower().encode("latin-1") for injection in route.injections]
    stripped = [name.encode("latin-1") for name in route.strip_headers]
    ours = set(map(_canonical, injected))
    kept = {name for each in route.pass_headers if _canonical(name := each.encode("latin-1")) not in ours}
    meaning = _MEANING_UP | dict.fromkeys(injected, INJECTED)
    if route.origin is not None:
        kept.discard(b"origin")
    if route.echo_guard:
        stripped += _FOR_PARTS
        kept -= {*_FOR_PARTS}
    elif route.reads_answers:
        stripped += _FOR_CODINGS
        kept -= {*_FOR_CODINGS}
    if route.authorization == "inject":
        meaning |= {b"authorization": AUTHORIZATION}
    return Verdicts(meaning, (*_NEVER_UP, *stripped), frozenset(kept), (b"x-forwarded-",))


def verdicts_nowhere() -> Verdicts:
    """Return the table for a request that no route serves; its head must be valid all the same."""
    return Verdicts(_MEANING_UP | {b"authorization": AUTHORIZATION})


def verdicts_down() -> Verdicts:
    """Return a table for a vendor's fields."""
    return Verdicts(_MEANING_DOWN, _NEVER_DOWN)


def values(fields: Sequence[bytes], name: bytes) -> list[str]:
    """Return the values of the fields of this name, which is in lower case, among `name: value` lines."""
    parts = [line.partition(b":") for line in fields if line[: len(name)].lower() == name]
    return [value.strip(b" \t").decode("utf-8", "surrogateescape") for key, _, value in parts if len(key) == len(name)]


def find_end(part: bytearray, data: bytes) -> tuple[int, bytes]:
    """Return where the head ends that consists of `part` and then `data`, and the joined bytes.

    Negative while the head is incomplete; then `data` was appended to `part` (RFC 9112 §2.1).
    """
    if not part:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            part += data
        return end, data
    start = max(0, len(part) - 3)
    part += data
    end = part.find(b"\r\n\r\n", start)
    return end, bytes(part) if end >= 0 else data


def is_torn(part: bytes | bytearray, seen: int) -> bool:
    """Whether a control byte, or a CR or LF that is no line end, follows the first `seen` bytes of a head."""
    start = seen - 1 if part[seen - 1 : seen] == b"\r" else seen
    piece = part[start:].removesuffix(b"\r")
    ends = piece.count(b"\r\n")
    lone = piece.count(b"\r") != ends or piece.count(b"\n") != ends
    return lone or len(piece.translate(None, _CONTROLS_BUT_CR_LF)) != len(piece)


def nominated(connection: bytes) -> set[bytes]:
    """Return the options and field names that the value of `Connection`, in lower case, lists."""
    return {token.strip() for token in connection.split(b",")} - {b""}


def drop_nominated(lines: list[bytes], names: set[bytes]) -> None:
    """Remove the fields of these names from `lines`."""
    if names:
        lines[:] = [line for line in lines if line.partition(b":")[0].lower() not in names]


def read_framing(head: Head, verdict: int, value: bytes) -> None:
    """Read a framing field into `head` (RFC 9112 §6.1, §6.2). Raises BadRequest if it is malformed or repeated."""
    if verdict == LENGTH:
        if head.length is not None or _LENGTH.match(value) is None:
            raise BadRequest("Content-Length is not one number")
        head.length = int(value)
    elif head.chunked or value.lower() != b"chunked":
        raise BadRequest("Transfer-Encoding is not exactly chunked")
    else:
        head.chunked = True
