"""Names and numbers of HTTP that several parts of the gateway need, each written once."""

from __future__ import annotations

from typing import Final

HOP_BY_HOP: Final[frozenset[str]] = frozenset({
    "connection", "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te",
    "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
"""Fields of one connection, in lower case: never passed on (RFC 9110 §7.6.1, §11.7; RFC 7540 §3.2.1)."""

COMMON_METHODS: Final[frozenset[str]] = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that logs, metrics and traces name; any other is shown as `other`."""

IDEMPOTENT_METHODS: Final[frozenset[str]] = frozenset(
    {"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PROPFIND", "SEARCH", "REPORT"}
)
"""Methods that the gateway sends again when a connection fails before an answer (RFC 9110 §9.2.2)."""

UNSERVED_METHODS: Final[frozenset[str]] = frozenset({"CONNECT", "TRACE", "PRI"})
"""Methods that no route accepts (RFC 9110 §9.3.6, §9.3.8; PRI is the HTTP/2 preface)."""

METHODS: Final[frozenset[str]] = (
    COMMON_METHODS
    | IDEMPOTENT_METHODS
    | UNSERVED_METHODS
    | frozenset({
        "ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE",
        "NOTIFY", "PROPPATCH", "PURGE", "QUERY", "REBIND", "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE",
    })
)  # fmt: skip
"""Methods of the IANA registry and some older ones; a request with any other method is rejected."""

FORM: Final = "application/x-www-form-urlencoded"
"""Media type of a form (WHATWG URL §5)."""

CONTINUE: Final = 100
SWITCHING: Final = 101
FINAL: Final = 200
"""From this status on, a response is the last one to its request (RFC 9110 §15.2); 101 is, too."""
ERROR: Final = 400
"""From this status on, a response is an error (RFC 9110 §15)."""
SERVER_ERROR: Final = 500
"""From this status on, a response is a failure of the server (RFC 9110 §15.6), or of a proxy in front of it."""

ANSWER_HEAD_BYTES: Final = 64 * 1024
"""Most bytes of an answer's head, for vendors' APIs, token endpoints and JWKS alike; of one field of it, too."""
ANSWER_FIELDS: Final = 200
"""Most fields of an answer's head."""
