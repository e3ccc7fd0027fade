"""Kinds of trouble at a token endpoint that apps need not tell apart, but the pace of retries does.

All are `TokenUnavailable` to whoever waits. The distinction is who can end the trouble: an outage ends by itself and
soon, an endpoint that answers with a client error seldom does, and one that says 429 has asked us to slow down.
"""

from __future__ import annotations

from gateway.errors import TokenUnavailable


class TokenEndpointTimeout(TokenUnavailable):
    """No complete answer within the fetch's own time-out."""

    proxy_error = "connection_read_timeout"


class TokenEndpointRejected(TokenUnavailable):
    """A client error (4xx) or a redirect that does not speak of our credential: asking again soon seldom helps."""


class TokenEndpointThrottled(TokenUnavailable):
    """429: the endpoint asks for fewer requests. `retry_after` is its own wish, when it named one."""
