"""Who may call: an app is known by its key, its JWT or its certificate, and gets its allowance on a route.

Knows the configuration's clients, no HTTP: the handler takes key and bearer out of the head. A key is looked up by the
first bytes of its SHA-256, and the whole hash is compared in constant time. What an app is told when it is not known
is always the same; why stands in the log, and never what was presented.
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
    from gateway.access.jwt import JwtJudge
    from gateway.model import Client, Clock, Config, Route
    from gateway.observe import Metrics

OPEN: Final = "-"
"""The client's name in logs and metrics where access is open."""
_FILED_UNDER: Final = 8
"""Bytes of a hash that a key is looked up by."""


class _Known:
    """A client and how it may be known by one key."""

    __slots__ = ("allowances", "digest", "ends", "name")

    def __init__(self, name: str, allowances: Mapping[str, Allowance], digest: bytes = b"", ends: float = 0.0) -> None:
        self.name = name
        self.allowances = allowances
        self.digest = digest
        self.ends = ends
        """Wall-clock instant from which the key is unknown; 0: never."""


class LastKey:
    """The key that a connection brought last, and whose it is: the next time it need not be hashed."""

    __slots__ = ("_clients", "_key", "_known")

    def __init__(self) -> None:
        self._clients: Clients | None = None
        self._key = b""
        self._known: _Known | None = None

    def whose(self, clients: Clients, key: bytes) -> _Known | None:
        """Return whose key it is, None if it is another one than last time; in constant time, as it is a secret."""
        return self._known if self._clients is clients and compare_digest(self._key, key) else None

    def keep(self, clients: Clients, key: bytes, known: _Known) -> None:
        """Remember a key for as long as the clients are these."""
        self._clients, self._key, self._known = clients, key, known


class Clients:
    """The clients of one configuration. Immutable; a reload makes a new one over the same counts.

    Raises ValueError when two clients share a key: the second would act under the first one's name.
    """

    __slots__ = ("_by_digest", "_by_name", "_by_names", "_judge", "_open", "_wall")

    def __init__(
        self, config: Config, *, store: CounterStore, metrics: Metrics, clock: Clock, judge: JwtJudge | None = None
    ) -> None:
        self._wall = clock.wall
        self._judge = judge
        self._open: dict[str, Allowance] | None = None
        if config.access == "open":
            self._open = {
                route.name: Allowance(OPEN, route.name, metrics=metrics.client(OPEN, route.name))
                for route in config.routes
            }
        self._by_name = {
            client.name: _Known(client.name, _allowances(client, config, store, metrics, clock))
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
        """Return what the app may do on `route`. The hot path.

        Args:
            key: the value of `X-Gatepass-Key`; None where the field is absent.
            bearer: the credentials of `Authorization: Bearer`, likewise. With a key present they are not judged, and
                on a route that passes Authorization they are the end user's.
            route: where it wants to go.
            certificate: the names in its certificate.
            last: what its connection remembers.

        Raises ClientUnknown, ClientForbidden, IdentityUnavailable, and SigningKeysNeeded for a token whose key must be
        fetched first.
        """
        if self._open is not None:
            return self._open[route.name]
        presented = key if key is not None else bearer if route.authorization == "inject" else None
        if presented is None or certificate:
            return self._with_certificate(presented, certificate, route)
        known = last.whose(self, presented) if last is not None else None
        if known is None:
            digest = sha256(presented).digest()
            known = self._by_digest.get(digest[:_FILED_UNDER])
            if known is None or not compare_digest(known.digest, digest):
                return self._with_token(presented, digest, known, route)
            if last is not None:
                last.keep(self, presented, known)
        if known.ends and self._wall() >= known.ends:
            return self._with_token(presented, known.digest, known, route)
        try:
            return known.allowances[route.name]
        except KeyError:
            raise _not_on(known, route) from None

    def _with_token(self, presented: bytes, digest: bytes, expired: _Known | None, route: Route) -> Allowance:
        if self._judge is None or expired is not None or presented.count(b".") != 2:  # noqa: PLR2004 - RFC 7515 §3.1
            raise _unknown_key(presented, expired, route)
        try:
            verified = self._judge.judge(presented, digest)
        except ClientUnknown as error:
            raise _unknown(route, error.reason) from None
        known = self._by_name[verified.client]
        allowance = known.allowances.get(route.name)
        if allowance is None:
            raise _not_on(known, route)
        if verified.routes is not None and route.name not in verified.routes:
            raise ClientForbidden(
                f"The token of the client {known.name} is not for the route {route.name}",
                reason=f"the routes claim of issuers.{verified.keys.issuer.name} does not name {route.name}",
            )
        return allowance

    def _with_certificate(self, presented: bytes | None, certificate: frozenset[str], route: Route) -> Allowance:
        """A certificate alone, or together with what else was presented: both must say the same."""
        shown = {known.name: known for name in certificate if (known := self._by_names.get(name)) is not None}
        if len(shown) > 1:
            raise _unknown(route, f"a certificate that fits {', '.join(sorted(shown))} alike")
        by_certificate = next(iter(shown.values()), None)
        if presented is None:
            if by_certificate is None:
                raise _unknown(route, "a certificate that fits no client" if certificate else "nothing was sent")
            allowance = by_certificate.allowances.get(route.name)
            if allowance is None:
                raise _not_on(by_certificate, route)
            return allowance
        allowance = self.identify(presented, None, route)
        if by_certificate is not None and by_certificate.name != allowance.name:
            raise _unknown(route, f"the key of {allowance.name} with the certificate of {by_certificate.name}")
        return allowance

    def keep_back(self, fields: Iterable[str]) -> None:
        """Raise ClientForbidden if one of the Authorization `fields` that are passed on holds a key or token for us."""
        for field in fields:
            value = field.rpartition(" ")[2].encode("utf-8", "surrogateescape")
            digest = sha256(value).digest()
            ours = self._by_digest.get(digest[:_FILED_UNDER]) is not None
            if ours or (self._judge is not None and self._judge.meant_for_us(value)):
                raise ClientForbidden(
                    "Authorization holds a key of the gateway, which no vendor gets; send it in X-Gatepass-Key",
                    reason="a key or token of the gateway in an Authorization that is passed on",
                )

    def sharing(self, route: str) -> int:
        """Return how many clients may use a route; all are one where access is open."""
        return 1 if self._open is not None else sum(route in known.allowances for known in self._by_name.values())

    def turn(self) -> None:
        """A day may have begun: show the budgets of the period that runs now."""
        for known in self._by_name.values():
            for allowance in known.allowances.values():
                for budget in allowance.budgets:
                    budget.turn()

    def explain(self, client: str, route: str) -> Allowance | None:
        """Return what a client may do on a route, None if nothing. Raises KeyError when there is no such client."""
        return self._by_name[client].allowances.get(route)


def _by_digest(config: Config, by_name: Mapping[str, _Known]) -> dict[bytes, _Known]:
    found: dict[bytes, _Known] = {}
    for client in config.clients:
        ends = dict(client.key_ends)
        for text in client.keys_sha256:
            digest = bytes.fromhex(text)
            mine = _Known(client.name, by_name[client.name].allowances, digest, ends.get(text, 0.0))
            holder = found.setdefault(digest[:_FILED_UNDER], mine)
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
                usage=store.usage(client.name, route.name),
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
    """Return the limits on one route: of all entries that count for it, the later one wins, field by field."""
    rate = burst = in_flight = None
    for limit in client.limits:
        if limit.routes is None or route in limit.routes:
            rate = rate if limit.rate is None else limit.rate
            burst = burst if limit.burst is None else limit.burst
            in_flight = in_flight if limit.in_flight is None else limit.in_flight
    return ClientLimit(None, rate, burst, in_flight)


def _not_on(known: _Known, route: Route) -> ClientForbidden:
    return ClientForbidden(
        f"The client {known.name} may not use the route {route.name}",
        reason=f"clients.{known.name}.routes does not name {route.name}",
    )


def _unknown(route: Route, reason: str) -> ClientUnknown:
    """Say the same to everybody, and to the operator what kind of mistake it looks like."""
    where = "X-Gatepass-Key"
    if route.authorization == "inject":
        where += " or as Authorization: Bearer"
    return ClientUnknown(f"No client is known by what was sent. Send a gateway key in {where}", reason=reason)


def _unknown_key(presented: bytes, expired: _Known | None, route: Route) -> ClientUnknown:
    if expired is not None and expired.ends:
        reason = f"an expired key of {expired.name}"
    elif well_formed(presented):
        reason = "a well-formed key that no client has: removed, or of another gateway"
    elif presented.startswith(PREFIX.encode()):
        reason = "a key with a wrong checksum: mistyped or cut"
    else:
        reason = "not one of our keys"
    return _unknown(route, reason)
