"""Failures of a token endpoint that differ in how soon a retry makes sense (`pace.py`).

Apps get `TokenUnavailable` for each. An outage usually ends soon, a client error seldom ends by itself, and a 429 asks
for fewer requests.
"""

from __future__ import annotations

from gateway.errors import TokenError, TokenUnavailable


class TokenEndpointTimeout(TokenUnavailable):
    """No complete answer within the time-out of the fetch."""

    proxy_error = "connection_read_timeout"


class TokenEndpointRejected(TokenUnavailable):
    """A client error (4xx) or a redirect that is not about our credential; a quick retry seldom helps."""


class TokenEndpointThrottled(TokenUnavailable):
    """429: the endpoint asks for fewer requests. `retry_after` is from its `Retry-After`, if there was one."""


def is_definite(error: BaseException) -> bool:
    """Whether the endpoint itself answered with this failure: another attempt now would get the same answer."""
    return isinstance(error, TokenError) and (
        not isinstance(error, TokenUnavailable) or isinstance(error, TokenEndpointRejected | TokenEndpointThrottled)
    )
