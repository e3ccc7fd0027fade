"""The error tree: every failure that an app, an operator or a test can meet, each mapped to a status once, here.

Messages are written for people and never hold a secret, a token, a body or a query value. The `code` is one word in
the problem body, the log field and the metric label (`docs/errors.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Hop = Literal["gateway", "token_endpoint", "upstream"]


class GatepassError(Exception):
    """Root of everything that Gatepass raises on purpose."""


# ------------------------------------------------------------------------------------------------------ configuration


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration: where it stands and what to do."""

    file: str
    line: int
    where: str
    """Dotted path of the key, as `routes.acme.timeout`; empty for the file as a whole."""
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.where}: {self.message}" if self.where else f"{place}: {self.message}"


class ConfigError(GatepassError):
    """The configuration cannot be used; lists every problem that was found, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class StateError(GatepassError):
    """The file that keeps counts across restarts cannot be used."""


# ----------------------------------------------------------------------------------------------------------- exchanges


class ExchangeError(GatepassError):
    """An exchange that ends with the gateway's own answer (RFC 9457) instead of the vendor's.

    `detail` is shown to the app; `reason` only to the operator, in the log. Neither may hold a secret.
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
    """A defect of ours. The event carries the traceback; the app gets only the code."""


class RouteNotFound(ExchangeError):
    """No route has this prefix."""

    status = 404
    code = "route_not_found"
    title = "No route serves this path"
    proxy_error = "destination_not_found"


class MethodNotAllowed(ExchangeError):
    """The route does not take this method. `allow` becomes the `Allow` field (RFC 9110 §10.2.1)."""

    status = 405
    code = "method_not_allowed"
    title = "The method is not allowed here"
    proxy_error = "http_request_denied"

    def __init__(self, detail: str = "", *, allow: tuple[str, ...] = (), reason: str = "") -> None:
        super().__init__(detail, reason=reason)
        self.allow = allow


class PathRefused(ExchangeError):
    """The path could mean two things, or the route denies it."""

    status = 400
    code = "path_refused"
    title = "The path is refused"
    proxy_error = "http_request_denied"


class BadRequest(ExchangeError):
    """Not HTTP/1.1 as RFC 9112 writes it; nothing more is read from this connection."""

    status = 400
    code = "bad_request"
    title = "The request is not valid HTTP/1.1"
    proxy_error = "http_request_error"
    close = True


class HeadersTooLarge(ExchangeError):
    """The head is over the limits."""

    status = 431
    code = "headers_too_large"
    title = "The request head is too large"
    proxy_error = "http_request_error"
    close = True


class BodyTooLarge(ExchangeError):
    """The body is over the route's limit."""

    status = 413
    code = "body_too_large"
    title = "The request body is too large"
    proxy_error = "http_request_error"
    close = True


class RequestTimeout(ExchangeError):
    """The app was too slow with its head or body."""

    status = 408
    code = "request_timeout"
    title = "The request did not arrive in time"
    proxy_error = "http_request_error"
    close = True


class ClientUnknown(ExchangeError):
    """No known client. Answered with `WWW-Authenticate` for the gateway's own realm (RFC 9110 §15.5.2)."""

    status = 401
    code = "client_unknown"
    title = "The gateway does not know this client"
    proxy_error = "http_request_denied"


class ClientForbidden(ExchangeError):
    """A known client where it may not be."""

    status = 403
    code = "client_forbidden"
    title = "The client may not do this"
    proxy_error = "http_request_denied"


class RateLimited(ExchangeError):
    """A known client over its limit. `fields` are sent with the answer: which limit it was, and how it stands."""

    status = 429
    code = "rate_limited"
    title = "The client is over its limit"
    proxy_error = "http_request_denied"

    def __init__(
        self, detail: str = "", *, reason: str = "", retry_after: float, fields: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(detail, reason=reason, retry_after=retry_after)
        self.fields = fields


class IdentityUnavailable(ExchangeError):
    """The keys that a JWT would be judged by are missing or too old: nobody is let in on trust."""

    status = 503
    code = "identity_unavailable"
    title = "The client's token cannot be judged at the moment"
    proxy_error = "proxy_internal_error"


class Draining(ExchangeError):
    """The gateway is going down and takes nothing new."""

    status = 503
    code = "draining"
    title = "The gateway is going down"
    proxy_error = "connection_limit_reached"
    close = True


class TooManyConnections(ExchangeError):
    """The data port's connection limit is reached."""

    status = 503
    code = "too_many_connections"
    title = "The gateway has too many connections"
    proxy_error = "connection_limit_reached"
    close = True


class Overloaded(ExchangeError):
    """As many requests are in flight as the gateway may hold."""

    status = 503
    code = "overloaded"
    title = "The gateway has too many requests in flight"
    proxy_error = "connection_limit_reached"


# -------------------------------------------------------------------------------------------------------------- tokens


class TokenError(ExchangeError):
    """There is no token, so there is no request."""

    status = 503
    code = "token_unavailable"
    hop = "token_endpoint"


class TokenUnavailable(TokenError):
    """The token endpoint is down, slow, or asks us to wait. Transient."""

    status = 503
    code = "token_unavailable"
    title = "No token can be had at the moment"
    proxy_error = "destination_unavailable"


class CredentialRefused(TokenError):
    """The vendor refuses our credential. Permanent until the configuration or the secret changes."""

    status = 502
    code = "credential_refused"
    title = "The vendor refuses the gateway's credential"
    proxy_error = "proxy_configuration_error"


class TokenMalformed(TokenError):
    """The token endpoint said yes, but not with a usable token."""

    status = 502
    code = "token_malformed"
    title = "The token endpoint's answer is unusable"
    proxy_error = "http_response_incomplete"


# ------------------------------------------------------------------------------------------------------------ upstream


class UpstreamError(ExchangeError):
    """The vendor's API failed before it answered."""

    status = 502
    code = "upstream_reset"
    hop = "upstream"


class UpstreamUnreachable(UpstreamError):
    """Name resolution or connect failed."""

    code = "upstream_unreachable"
    title = "The vendor cannot be reached"
    proxy_error = "destination_unavailable"


class UpstreamTLS(UpstreamError):
    """The vendor's TLS cannot be trusted or agreed on."""

    code = "upstream_tls"
    title = "The vendor's TLS failed"
    proxy_error = "tls_certificate_error"


class UpstreamReset(UpstreamError):
    """The vendor closed before a response head."""

    code = "upstream_reset"
    title = "The vendor closed the connection without an answer"
    proxy_error = "connection_terminated"


class UpstreamMalformed(UpstreamError):
    """What came back is not HTTP/1.1 that can be passed on."""

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
    """All connections of the route are in use, and none came free in time."""

    status = 503
    code = "upstream_busy"
    title = "All connections to the vendor are in use"
    proxy_error = "connection_limit_reached"


class Aborted(UpstreamError):
    """A failure after the head has gone out: never answered, only logged; the app's connection is aborted."""

    code = "aborted"
    title = "The exchange broke off after the head"
    proxy_error = "http_response_incomplete"


class ClientGone(ExchangeError):
    """The app went away first: never answered, only logged (status 499, as nginx counts it)."""

    status = 499
    code = "client_gone"
    title = "The client went away"
