"""A route with everything precomputed that an exchange needs: header bytes, rules, injectors, pool, metric children.

Built once per configuration and read-only afterwards. Sees tokens only through the protocol `model.Tokens`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from gateway.patterns import Templates, is_plain
from gateway.proxy.echo import echoes_of
from gateway.proxy.fields import Verdicts, verdicts_up, via_pseudonym
from gateway.proxy.routing import PathRules, RouteTable, host_of, with_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.access import Clients
    from gateway.addresses import Networks
    from gateway.model import AppTokenEndpoint, Injection, Limits, RefusalSign, Route, Token, Tokens
    from gateway.observe import Metrics, RouteMetrics
    from gateway.proxy.pool import Pool
    from gateway.proxy.request import RequestHead


class Injector:
    """One injected header of a route: renders a token to bytes once and caches them while that token is current."""

    __slots__ = ("_echoes", "_line", "_prefix", "_suffix", "_token", "tokens")

    def __init__(self, injection: Injection, tokens: Tokens) -> None:
        before, _, after = injection.format.partition("{token}")
        self._prefix = f"{injection.header}: {before}"
        self._suffix = after
        self._token: Token | None = None
        self._line = b""
        self._echoes: tuple[Token, tuple[bytes, ...]] | None = None
        self.tokens = tokens

    def line(self, token: Token) -> bytes:
        """Return `header: value` for `token`."""
        if token is not self._token:
            self._line = f"{self._prefix}{token.value.reveal()}{self._suffix}".encode("latin-1")
            self._token = token
        return self._line

    def echoes(self, token: Token) -> tuple[bytes, ...]:
        """Return every encoding of `token` that the echo guard masks, the longest first."""
        if self._echoes is None or self._echoes[0] is not token:
            self._echoes = token, echoes_of(token)
        return self._echoes[1]


class PreparedRoute:
    """A route bound to its tokens, pool and metrics. All attributes are read-only after construction."""

    __slots__ = (
        "_only",
        "base_path",
        "endpoints",
        "fixed",
        "injectors",
        "metrics",
        "passes_logins",
        "plain",
        "pool",
        "private",
        "route",
        "rules",
        "signs",
        "templates",
        "verdicts",
        "via",
        "via_and_id",
    )

    def __init__(
        self,
        route: Route,
        tokens: Callable[[str], Tokens],
        pool: Pool,
        metrics: RouteMetrics,
        endpoints: Mapping[str, AppTokenEndpoint],
    ) -> None:
        self.route = route
        self.endpoints = dict(endpoints)
        """The token endpoints of its credentials, by the path below the prefix where an app asks for a token."""
        self.plain = is_plain(route.prefix)
        """Its prefix has only one reading."""
        self.rules = PathRules(route.allow, route.deny)
        self.templates = Templates(route.paths) if route.paths else None
        self.verdicts: Verdicts = verdicts_up(route)
        self.injectors = tuple(Injector(injection, tokens(injection.credential)) for injection in route.injections)
        self._only = self.injectors[0] if len(self.injectors) == 1 else None
        """The only injector, as on nearly every route."""
        self.pool = pool
        self.metrics = metrics
        self.base_path = route.upstream.base_path
        own = f"\r\nOrigin: {route.origin}" if route.origin else ""
        own += "\r\nAccept-Encoding: identity" if route.echo_guard or route.reads_answers else ""
        self.fixed = f" HTTP/1.1\r\nHost: {route.upstream.authority}{own}".encode("latin-1")
        """The bytes between the target and the first of the app's own fields."""
        self.via = via_pseudonym(route)
        self.via_and_id = b"Via: 1.1 " + self.via + b"\r\nX-Request-Id: "
        self.private = bool(route.injections)
        """Answers are marked private, because a cache in front of the gateway sees no Authorization (RFC 9111 §3.5)."""
        self.passes_logins = explicit = route.authorization == "pass"
        """The app's own Authorization goes to the vendor."""
        self.signs: dict[int, tuple[RefusalSign, ...]] = {}
        for sign in route.refusal_signs:
            # Where the app's own Authorization is passed on, a plain 401 may be about the end user's token.
            if sign.explicit or not explicit:
                self.signs[sign.status] = (*self.signs.get(sign.status, ()), sign)

    def app_token(self, value: bytes) -> bytes:
        """Return what an app sends in an injected header: a key or pass, in the format of that header or bare."""
        text = value.decode("latin-1")
        for injection in self.route.injections:
            before, _, after = injection.format.partition("{token}")
            if (before or after) and text.startswith(before) and text.endswith(after):
                return text[len(before) : len(text) - len(after)].strip().encode("latin-1")
        return value

    def current_tokens(self) -> tuple[Token, ...] | None:
        """Return the tokens in memory, in the order of the injections; None unless all of them are valid."""
        only = self._only
        if only is not None:
            token = only.tokens.current()
            return (token,) if token is not None else None
        tokens = tuple([injector.tokens.current() for injector in self.injectors])
        return None if None in tokens else cast("tuple[Token, ...]", tokens)

    def lines(self, tokens: tuple[Token, ...]) -> list[bytes]:
        """Return the injected fields."""
        if self._only is not None:
            return [self._only.line(tokens[0])]
        return [injector.line(token) for injector, token in zip(self.injectors, tokens, strict=True)]

    def echoes(self, tokens: tuple[Token, ...]) -> tuple[bytes, ...]:
        """Return every encoding of `tokens` that the echo guard masks."""
        return tuple(
            [echo for injector, token in zip(self.injectors, tokens, strict=True) for echo in injector.echoes(token)]
        )

    async def get_tokens(self) -> tuple[Token, ...]:
        """Return the tokens, and wait for those that are being fetched. Raises TokenError."""
        return tuple([injector.tokens.current() or await injector.tokens.get() for injector in self.injectors])

    def accepted(self, tokens: tuple[Token, ...]) -> None:
        """Tell the caches that the vendor accepted these tokens."""
        self.metrics.refused_in_a_row = 0
        if self._only is not None:
            self._only.tokens.accepted(tokens[0])
            return
        for injector, token in zip(self.injectors, tokens, strict=True):
            injector.tokens.accepted(token)

    def __repr__(self) -> str:
        return f"<PreparedRoute {self.route.prefix} -> {self.route.upstream.authority} {self.pool!r}>"


class Snapshot:
    """One configuration as the data plane sees it: immutable, and read once at the start of an exchange."""

    __slots__ = ("clients", "hosts", "limits", "replay_budget", "routes", "table", "trusted")

    def __init__(
        self,
        routes: Iterable[PreparedRoute],
        clients: Clients,
        limits: Limits,
        replay_budget: int,
        trusted: Networks | None = None,
    ) -> None:
        self.routes = tuple(routes)
        self.hosts = {host: prepared for prepared in self.routes for host in prepared.route.hosts}
        self.table = RouteTable([(prepared.route.prefix, prepared) for prepared in self.routes])
        self.clients = clients
        self.limits = limits
        self.replay_budget = replay_budget
        self.trusted = trusted or None
        """Proxies whose `X-Forwarded-For` is trusted; None if there are none."""

    def match(self, path: str, request: RequestHead) -> tuple[PreparedRoute, str, str]:
        """Return the route of a request, the path as it is with the route's prefix, and what is below the prefix.

        A configured `Host` selects its route for any path. Raises RouteNotFound.
        """
        if self.hosts:
            prepared = self.hosts.get(host_of(request.values(b"host")))
            if prepared is not None:
                path = with_prefix(path, prepared.route.prefix)
                return prepared, path, path[len(prepared.route.prefix) :]
        prepared, rest = self.table.match(path)
        return prepared, path, rest


def prepare_routes(
    routes: Iterable[Route],
    tokens: Callable[[str], Tokens],
    pools: Callable[[Route], Pool],
    metrics: Metrics,
    endpoints: Callable[[Route], Mapping[str, AppTokenEndpoint]],
) -> list[PreparedRoute]:
    """Bind every route to its tokens, its pool and its metric children."""
    routes = tuple(routes)
    for route in routes:
        metrics.route(route.name).pool_size(route.pool.size)
        metrics.route(route.name).upstream = route.upstream.authority
    return [PreparedRoute(route, tokens, pools(route), metrics.route(route.name), endpoints(route)) for route in routes]
