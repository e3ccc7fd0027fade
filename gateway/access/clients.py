"""Authenticates an app by its key, JWT or certificate, and returns its allowance on a route.

A key is found by the first bytes of its SHA-256; then the whole hash is compared in constant time. Every caller that
is not authenticated gets the same answer. The log has the reason, but never the credential that was presented.
"""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from gateway.access.allowance import Allowance
from gateway.access.budgets import Budget
from gateway.access.keys import PREFIX, well_formed
from gateway.access.rules import Rules
from gateway.addresses import Networks
from gateway.errors import ClientForbidden, ClientUnknown
from gateway.model import ClientLimit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.access.counters import CounterStore
    from gateway.access.jwt import JwtVerifier
    from gateway.model import Client, Clock, Config, Route
    from gateway.observe import Metrics

OPEN: Final = "-"
"""The client's name in logs and metrics if access is open."""
_INDEX_BYTES: Final = 8
"""Bytes of a hash by which a key is found."""


class _Identity:
    """A client, with one of its keys."""

    __slots__ = ("allowances", "digest", "ends", "name")

    def __init__(self, name: str, allowances: Mapping[str, Allowance], digest: bytes = b"", ends: float = 0.0) -> None:
        self.name = name
        self.allowances = allowances
        self.digest = digest
        self.ends = ends
        """Wall-clock instant from which the key is invalid; 0: never."""

    def on(self, route: str) -> Allowance:
        """Return its allowance on a route. Raises ClientForbidden if it may not use the route."""
        allowance = self.allowances.get(route)
        if allowance is None:
            raise ClientForbidden(
                f"The client {self.name} may not use the route {route}",
                reason=f"clients.{self.name}.routes does not name {route}",
            )
        return allowance


class LastKey:
    """The last key of a connection and its client, so that a repeated key is not hashed again."""

    __slots__ = ("_clients", "_key", "_known")

    def __init__(self) -> None:
        self._clients: Clients | None = None
        self._key = b""
        self._known: _Identity | None = None

    def client_of(self, clients: Clients, key: bytes) -> _Identity | None:
        """Return the client of `key` if it is the last key, else None. Compares in constant time."""
        return self._known if self._clients is clients and compare_digest(self._key, key) else None

    def keep(self, clients: Clients, key: bytes, known: _Identity) -> None:
        """Remember `key` and its client until a reload replaces the clients."""
        self._clients, self._key, self._known = clients, key, known


class Clients:
    """The clients of one configuration. Immutable; a reload makes a new object with the same counts.

    Raises ValueError if two clients share a key, because a caller with that key could be either.
    """

    __slots__ = ("_by_digest", "_by_name", "_by_names", "_open", "_verifier", "_wall")

    def __init__(
        self,
        config: Config,
        *,
        store: CounterStore,
        metrics: Metrics,
        clock: Clock,
        verifier: JwtVerifier | None = None,
    ) -> None:
        self._wall = clock.wall
        self._verifier = verifier
        self._open: dict[str, Allowance] | None = None
        if config.access == "open":
            self._open = {
                route.name: Allowance(OPEN, route.name, metrics=metrics.client(OPEN, route.name))
                for route in config.routes
            }
        self._by_name = {
            client.name: _Identity(client.name, _allowances(client, config, store, metrics, clock))
            for client in config.clients
        }
        self._by_digest = _by_digest(config, self._by_name)
        self._by_names = {name: self._by_name[client.name] for client in config.clients for name in client.certificates}

    def identify(
        self,
        key: bytes | None,
        bearer: bytes | None,
        route: Route,
        certificate: frozenset[str] = frozenset(),
        last: LastKey | None = None,
    ) -> Allowance:
        """Return the allowance of the app on `route`. The hot path.

        Args:
            key: the value of `X-Gatepass-Key`; None if the field is absent.
            bearer: the credentials of `Authorization: Bearer`; None if absent. Ignored if there is a key, and on routes
                that pass Authorization, where it belongs to the end user.
            route: the route of the request.
            certificate: the names in the app's certificate.
            last: the last key of the app's connection.

        Raises ClientUnknown, ClientForbidden, IdentityUnavailable; SigningKeysNeeded for a JWT whose key must be
        fetched first.
        """
        if self._open is not None:
            return self._open[route.name]
        presented = key if key is not None else bearer if route.authorization == "inject" else None
        if presented is None or certificate:
            return self._with_certificate(presented, certificate, route)
        known = last.client_of(self, presented) if last is not None else None
        if known is None:
            if not presented:
                raise _unknown(route, "several keys, or none that can be read")
            digest = sha256(presented).digest()
            known = self._by_digest.get(digest[:_INDEX_BYTES])
            if known is None or not compare_digest(known.digest, digest):
                return self._with_token(presented, digest, known, route)
            if last is not None:
                last.keep(self, presented, known)
        if known.ends and self._wall() >= known.ends:
            return self._with_token(presented, known.digest, known, route)
        allowance = known.allowances.get(route.name)
        return allowance if allowance is not None else known.on(route.name)

    def _with_token(self, presented: bytes, digest: bytes, expired: _Identity | None, route: Route) -> Allowance:
        if self._verifier is None or expired is not None or presented.count(b".") != 2:  # noqa: PLR2004 - RFC 7515 §3.1
            raise _unknown_key(presented, expired, route)
        try:
            verified = self._verifier.verify(presented, digest)
        except ClientUnknown as error:
            raise _unknown(route, error.reason) from None
        known = self._by_name[verified.client]
        allowance = known.on(route.name)
        if verified.routes is not None and route.name not in verified.routes:
            raise ClientForbidden(
                f"The token of the client {known.name} is not for the route {route.name}",
                reason=f"the routes claim of issuers.{verified.keys.issuer.name} does not name {route.name}",
            )
        return allowance

    def _with_certificate(self, presented: bytes | None, certificate: frozenset[str], route: Route) -> Allowance:
        """Authenticate by certificate, alone or with a key or JWT; both must belong to the same client."""
        shown = {known.name: known for name in certificate if (known := self._by_names.get(name)) is not None}
        if len(shown) > 1:
            raise _unknown(route, f"a certificate that matches {', '.join(sorted(shown))}")
        by_certificate = next(iter(shown.values()), None)
        if presented is None:
            if by_certificate is None:
                raise _unknown(
                    route, "a certificate that matches no client" if certificate else "no credential was sent"
                )
            return by_certificate.on(route.name)
        allowance = self.identify(presented, None, route)
        if by_certificate is not None and by_certificate.name != allowance.name:
            raise _unknown(route, f"the key of {allowance.name} with the certificate of {by_certificate.name}")
        return allowance

    def reject_our_keys(self, fields: Iterable[str]) -> None:
        """Raise ClientForbidden if an Authorization field for the vendor has a key or JWT of the gateway."""
        for field in fields:
            value = field.rpartition(" ")[2].encode("utf-8", "surrogateescape")
            digest = sha256(value).digest()
            ours = self._by_digest.get(digest[:_INDEX_BYTES]) is not None
            if ours or (self._verifier is not None and self._verifier.is_for_us(value)):
                raise ClientForbidden(
                    "Authorization contains a key of the gateway, which no vendor may get; send it in X-Gatepass-Key",
                    reason="a key or JWT of the gateway in an Authorization that is passed to the vendor",
                )

    def count_on(self, route: str) -> int:
        """Return how many clients may use a route; 1 if access is open."""
        return 1 if self._open is not None else sum(route in known.allowances for known in self._by_name.values())

    def roll_over(self) -> None:
        """Start new budget periods if they have begun."""
        for known in self._by_name.values():
            for allowance in known.allowances.values():
                for budget in allowance.budgets:
                    budget.roll_over()

    def allowance(self, client: str, route: str) -> Allowance:
        """Return the allowance of a client on a route.

        Raises ClientForbidden if it may not use the route, KeyError if there is no such client.
        """
        return self._open[route] if self._open is not None else self._by_name[client].on(route)


def _by_digest(config: Config, by_name: Mapping[str, _Identity]) -> dict[bytes, _Identity]:
    found: dict[bytes, _Identity] = {}
    for client in config.clients:
        ends = dict(client.key_ends)
        for text in client.keys_sha256:
            digest = bytes.fromhex(text)
            mine = _Identity(client.name, by_name[client.name].allowances, digest, ends.get(text, 0.0))
            holder = found.setdefault(digest[:_INDEX_BYTES], mine)
            if holder.name != client.name:
                raise ValueError(f"clients {holder.name} and {client.name} have the same key")
    return found


def _allowances(
    client: Client, config: Config, store: CounterStore, metrics: Metrics, clock: Clock
) -> dict[str, Allowance]:
    rules, networks = Rules(client.name, client.allow, client.deny), Networks(client.addresses)
    found = {}
    for route in config.routes:
        if client.routes is None or route.name in client.routes:
            counted = metrics.client(client.name, route.name)
            found[route.name] = Allowance(
                client.name,
                route.name,
                metrics=counted,
                rate_state=store.rate_state(client.name, route.name),
                limit=limit_of(client, route.name),
                rules=rules,
                networks=networks,
                budgets=[
                    Budget(client.name, budget, store=store, wall=clock.wall, metrics=counted)
                    for budget in client.budgets
                    if budget.route == route.name
                ],
            )
    return found


def limit_of(client: Client, route: str) -> ClientLimit:
    """Return the limits on one route; if several entries apply, the last one wins, field by field."""
    rate = burst = in_flight = None
    for limit in client.limits:
        if limit.routes is None or route in limit.routes:
            rate = rate if limit.rate is None else limit.rate
            burst = burst if limit.burst is None else limit.burst
            in_flight = in_flight if limit.in_flight is None else limit.in_flight
    return ClientLimit(None, rate, burst, in_flight)


def _unknown(route: Route, reason: str) -> ClientUnknown:
    """Return the error with the same text for every caller; `reason` is only for the log."""
    where = "X-Gatepass-Key"
    if route.authorization == "inject":
        where += " or as Authorization: Bearer"
    return ClientUnknown(
        f"No client matches the credentials of this request. Send a gateway key in {where}", reason=reason
    )


def _unknown_key(presented: bytes, expired: _Identity | None, route: Route) -> ClientUnknown:
    if expired is not None and expired.ends:
        reason = f"an expired key of {expired.name}"
    elif well_formed(presented):
        reason = "a well-formed key that no client has: removed, or of another gateway"
    elif presented.startswith(PREFIX.encode()):
        reason = "a key with a wrong checksum: mistyped or truncated"
    else:
        reason = "not a key of this gateway"
    return _unknown(route, reason)
