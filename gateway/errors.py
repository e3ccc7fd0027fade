"""The error tree: every failure that an app or an operator can see, each with its status.

Messages never contain a secret, a token, a body or a query value. The `code` is the same in the problem document, the
log field and the metric label (`docs/errors.md`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from gateway.descriptors import NO_DESCRIPTOR, lacks_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

OAuthError = Literal["invalid_request", "unsupported_grant_type", "unauthorized_client"]
"""Error codes of a token endpoint (RFC 6749 §5.2) that an app may get from us, besides `invalid_client`."""
Hop = Literal["gateway", "token_endpoint", "upstream"]


class GatepassError(Exception):
    """Base class of all errors that Gatepass raises."""


def os_reason(error: BaseException) -> str:
    """Return what an error of a connection means, in the operating system's words: `connection reset by peer`."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return NO_DESCRIPTOR if lacks_descriptor(error) else os.strerror(number).lower()
    words = {TimeoutError: "time-out", ConnectionResetError: "connection reset by peer", BrokenPipeError: "broken pipe"}
    return next((text for kind, text in words.items() if isinstance(error, kind)), "the connection failed")


# ------------------------------------------------------------------------------------------------------ configuration


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration: its place, and what to do."""

    file: str
    line: int
    where: str
    """Dotted path of the key, such as `routes.acme.timeout`; empty for the whole file."""
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.where}: {self.message}" if self.where else f"{place}: {self.message}"


class ConfigError(GatepassError):
    """The configuration cannot be used; lists every problem, not only the first."""

    def __init__(self, problems: list[Problem], files: Iterable[Path] = ()) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
        self.files = tuple(files)
        """Files that the configuration names, readable or not: a change of one may remove a problem."""


class ListenError(GatepassError):
    """A port cannot be opened; `key` is the configuration key of its address."""

    def __init__(self, key: str, address: str, reason: str) -> None:
        super().__init__(f"{key}: cannot listen on {address}: {reason}")
        self.key = key
        self.address = address
        self.reason = reason


class StateError(GatepassError):
    """The state file cannot be used."""


class StoreAway(GatepassError):
    """The shared store did not answer, or answered with an error; never mistaken for one of its answers."""


class Undecryptable(GatepassError):
    """A record of the shared store was sealed with another key, or for another place."""


# ----------------------------------------------------------------------------------------------------------- exchanges


class ExchangeError(GatepassError):
    """An exchange ends with the gateway's own answer (RFC 9457) instead of the vendor's.

    `detail` is sent to the app; `reason` is only logged. Neither may contain a secret.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "The gateway failed"
    hop: ClassVar[Hop] = "gateway"
    proxy_error: str = "proxy_internal_error"
    """RFC 9209 §2.3 error type."""
    close: ClassVar[bool] = False
    """Whether the app's connection is closed after the answer."""

    def __init__(self, detail: str = "", *, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.reason = reason
        self.retry_after = retry_after
        """Seconds; sent as `Retry-After`, rounded up."""


class InternalError(ExchangeError):
    """A defect of the gateway. The log has the traceback; the app gets only the code."""


class RouteNotFound(ExchangeError):
    """No route has this prefix."""

    status = 404
    code = "route_not_found"
    title = "No route serves this path"
    proxy_error = "destination_not_found"


class MethodNotAllowed(ExchangeError):
    """The route does not allow this method. `allow` becomes the `Allow` field (RFC 9110 §10.2.1)."""

    status = 405
    code = "method_not_allowed"
    title = "The method is not allowed here"
    proxy_error = "http_request_denied"

    def __init__(self, detail: str = "", *, allow: tuple[str, ...] = (), reason: str = "") -> None:
        super().__init__(detail, reason=reason)
        self.allow = allow


class PathRefused(ExchangeError):
    """The path is ambiguous, or the route denies it."""

    status = 400
    code = "path_refused"
    title = "The path is refused"
    proxy_error = "http_request_denied"


class BadRequest(ExchangeError):
    """The request is not valid HTTP/1.1 (RFC 9112); nothing more is read from this connection."""

    status = 400
    code = "bad_request"
    title = "The request is not valid HTTP/1.1"
    proxy_error = "http_request_error"
    close = True


class HeadersTooLarge(ExchangeError):
    """The head is larger than the limits."""

    status = 431
    code = "headers_too_large"
    title = "The request head is too large"
    proxy_error = "http_request_error"
    close = True


class BodyTooLarge(ExchangeError):
    """The body is larger than the route's limit."""

    status = 413
    code = "body_too_large"
    title = "The request body is too large"
    proxy_error = "http_request_error"
    close = True

    def __init__(self, limit: int) -> None:
        super().__init__(f"The route takes bodies of at most {limit} bytes")


class RequestTimeout(ExchangeError):
    """The app was too slow with its head or body."""

    status = 408
    code = "request_timeout"
    title = "The request did not arrive in time"
    proxy_error = "http_request_error"
    close = True


class ClientUnknown(ExchangeError):
    """The caller is not authenticated; answered with `WWW-Authenticate` (RFC 9110 §15.5.2)."""

    status = 401
    code = "client_unknown"
    title = "The gateway does not know this client"
    proxy_error = "http_request_denied"


class ClientForbidden(ExchangeError):
    """The client is not authorized for this request."""

    status = 403
    code = "client_forbidden"
    title = "The client may not do this"
    proxy_error = "http_request_denied"

    def __init__(self, detail: str = "", *, reason: str = "", client: str = "") -> None:
        super().__init__(detail, reason=reason)
        self.client = client
        """Its name, where it has no allowance on the route."""


class RateLimited(ExchangeError):
    """The client exceeded a limit. `fields` are sent with the answer and describe the limit."""

    status = 429
    code = "rate_limited"
    title = "The client is over its limit"
    proxy_error = "http_request_denied"

    def __init__(
        self, detail: str = "", *, reason: str = "", retry_after: float, fields: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(detail, reason=reason, retry_after=retry_after)
        self.fields = fields


class AppTokenRefused(ExchangeError):
    """An app's token request that cannot be answered with a pass; `error` is the code of RFC 6749 §5.2."""

    status = 400
    code = "app_token_refused"
    title = "The token request is refused"
    proxy_error = "http_request_denied"

    def __init__(self, detail: str = "", *, error: OAuthError, reason: str = "") -> None:
        super().__init__(detail, reason=reason or detail)
        self.error = error


class IdentityUnavailable(ExchangeError):
    """The keys to verify a JWT are missing or too old; no JWT is accepted unverified."""

    status = 503
    code = "identity_unavailable"
    title = "The client's token cannot be verified at the moment"
    proxy_error = "proxy_internal_error"


class Draining(ExchangeError):
    """The gateway is stopping and accepts no new requests."""

    status = 503
    code = "draining"
    title = "The gateway is stopping"
    proxy_error = "connection_limit_reached"
    close = True


class LoopDetected(ExchangeError):
    """The request has passed this route before: its upstream leads back to the gateway (RFC 5842 §7.2)."""

    status = 508
    code = "loop_detected"
    title = "The request came back to the gateway"
    proxy_error = "proxy_loop_detected"


class TooManyConnections(ExchangeError):
    """The data port's connection limit is reached."""

    status = 503
    code = "too_many_connections"
    title = "The gateway has too many connections"
    proxy_error = "connection_limit_reached"
    close = True


class Overloaded(ExchangeError):
    """The limit of requests in flight is reached, or no file descriptor is left."""

    status = 503
    code = "overloaded"
    title = "The gateway has too many requests in flight"
    proxy_error = "connection_limit_reached"


# -------------------------------------------------------------------------------------------------------------- tokens


class TokenError(ExchangeError):
    """There is no token, so no request is sent."""

    status = 503
    code = "token_unavailable"
    hop = "token_endpoint"


class TokenUnavailable(TokenError):
    """The token endpoint is down, slow, or asks us to wait. Transient."""

    code = "token_unavailable"
    title = "No token can be had at the moment"
    proxy_error = "destination_unavailable"


class CredentialRefused(TokenError):
    """The vendor rejects our credential. Permanent until the configuration or the secret changes."""

    status = 502
    code = "credential_refused"
    title = "The vendor refuses the gateway's credential"
    proxy_error = "proxy_configuration_error"


class TokenMalformed(TokenError):
    """The token endpoint's success answer has no usable token."""

    status = 502
    code = "token_malformed"
    title = "The token endpoint's answer is unusable"
    proxy_error = "http_response_incomplete"


# ------------------------------------------------------------------------------------------------------------ upstream


class UpstreamError(ExchangeError):
    """The vendor's API failed before its answer."""

    status = 502
    code = "upstream_reset"
    hop = "upstream"


class UpstreamUnreachable(UpstreamError):
    """Name resolution or connect failed."""

    code = "upstream_unreachable"
    title = "The vendor cannot be reached"
    proxy_error = "destination_unavailable"


class UpstreamTLS(UpstreamError):
    """The vendor's certificate is not trusted, or the TLS handshake failed."""

    code = "upstream_tls"
    title = "The vendor's TLS failed"
    proxy_error = "tls_certificate_error"


class UpstreamReset(UpstreamError):
    """The vendor closed the connection before a response head."""

    code = "upstream_reset"
    title = "The vendor closed the connection without an answer"
    proxy_error = "connection_terminated"


class UpstreamMalformed(UpstreamError):
    """The vendor's answer is not valid HTTP/1.1."""

    code = "upstream_malformed"
    title = "The vendor's answer is not valid HTTP"
    proxy_error = "http_response_incomplete"


class UpstreamTimeout(UpstreamError):
    """Connect, first byte, idle or total time-out."""

    status = 504
    code = "upstream_timeout"
    title = "The vendor did not answer in time"
    proxy_error = "connection_read_timeout"


class UpstreamBusy(UpstreamError):
    """All connections of the route are in use, and none became free in time."""

    status = 503
    code = "upstream_busy"
    title = "All connections to the vendor are in use"
    proxy_error = "connection_limit_reached"


class Aborted(UpstreamError):
    """A failure after the head was sent: only logged; the app's connection is aborted."""

    code = "aborted"
    title = "The exchange ended early, after the head"
    proxy_error = "http_response_incomplete"


class ClientGone(ExchangeError):
    """The app disconnected first: only logged (status 499, as in nginx)."""

    status = 499
    code = "client_gone"
    title = "The client went away"
