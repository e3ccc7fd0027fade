"""Failures of a token endpoint that differ in how soon a retry makes sense (`pace.py`).

Apps get `TokenUnavailable` for each. An outage usually ends soon, a client error seldom ends by itself, and a 429 asks
for fewer requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import CredentialRefused, TokenError, TokenMalformed, TokenUnavailable

if TYPE_CHECKING:
    from gateway.model import FailureKind


class TokenEndpointTimeout(TokenUnavailable):
    """No complete answer within the time-out of the fetch."""

    proxy_error = "connection_read_timeout"


class NoDescriptor(TokenUnavailable):
    """No file descriptor was left for the connection: the endpoint was not asked."""

    proxy_error = "connection_limit_reached"


class TokenEndpointRejected(TokenUnavailable):
    """A client error (4xx) or a redirect that is not about our credential; a quick retry seldom helps."""


class TokenEndpointThrottled(TokenUnavailable):
    """429: the endpoint asks for fewer requests. `retry_after` is from its `Retry-After`, if there was one."""


class NotDue(TokenUnavailable):
    """No token request was sent: another instance sends one, or none may be sent yet. `retry_after` is always set."""

    def __init__(self, reason: str, wait: float, *, failure: FailureKind | None = None, is_held: bool = False) -> None:
        """`failure`: how the last request failed; `is_held`: another instance fetches a token now."""
        super().__init__(reason=reason, retry_after=wait)
        self.failure = failure
        self.is_held = is_held

    def as_failure(self) -> TokenError:
        """Return what callers get while the last request has failed."""
        kinds = {"refused": CredentialRefused, "malformed": TokenMalformed}
        return kinds.get(self.failure or "", TokenUnavailable)(reason=self.reason)


class RefusedElsewhere(CredentialRefused):
    """No token request was sent, because the vendor refused this secret to another instance. `retry_after` is set."""

    is_held = False


def is_definite(error: BaseException) -> bool:
    """Whether the endpoint itself answered with this failure: another attempt now would get the same answer."""
    return isinstance(error, TokenError) and (
        not isinstance(error, TokenUnavailable) or isinstance(error, TokenEndpointRejected | TokenEndpointThrottled)
    )
