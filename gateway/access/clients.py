"""Authenticates an app by its key, JWT or certificate, and returns its allowance on a route.

A key is found by the first bytes of its SHA-256; then the whole hash is compared in constant time. Every caller that
is not authenticated gets the same answer. The log has the reason, but never the credential that was presented.
"""

from __future__ import annotations

import math
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from gateway.access.allowance import Allowance
from gateway.access.keys import PASS_PREFIX, PREFIX, is_pass, well_formed
from gateway.access.leaks import candidates
from gateway.access.pass_secrets import issuer_holder
from gateway.access.prepare import allowances_of
from gateway.access.refetch import SigningKeysNeeded
from gateway.errors import AppTokenRefused, ClientForbidden, ClientUnknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gateway.access.budgets import Budget
    from gateway.access.counters import CounterStore
    from gateway.access.jwt import JwtVerifier, Verified
    from gateway.access.pass_loader import PassLoader
    from gateway.model import Clock, Config, Route
    from gateway.observe import Metrics

OPEN: Final = "-"
"""The client's name in logs and metrics if access is open."""
_INDEX_BYTES: Final = 8
"""Bytes of a hash by which a key is found."""


class _Identity:
    """A client, with one of its keys."""

    __slots__ = ("allowances", "by_pass", "digest", "ends", "name")

    def __init__(
        self,
        name: str,
        allowances: Mapping[str, Allowance],
        digest: bytes = b"",
        ends: float = 0.0,
        *,
        by_pass: bool = False,
    ) -> None:
        self.name = name
        self.by_pass = by_pass
        """Known by a pass, which opens one route."""
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
                client=self.name,
            )
        return allowance


class Holder:
    """A client that may get a pass, and what the pass is bound to."""

    __slots__ = ("allowance", "ends", "key")

    def __init__(self, allowance: Allowance, key: bytes, ends: float) -> None:
        self.allowance = allowance
        self.key = key
        """The SHA-256 of the app's key, or what stands for its issuer; empty if access is open."""
        self.ends = ends
        """Wall-clock instant at which the key or JWT ends; infinite: never."""


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

    __slots__ = ("_by_digest", "_by_name", "_by_names", "_loader", "_open", "_verifier", "_wall", "local_only")

    def __init__(
        self,
        config: Config,
        *,
        store: CounterStore,
        metrics: Metrics,
        clock: Clock,
        loader: PassLoader,
        verifier: JwtVerifier | None = None,
    ) -> None:
        self._wall = clock.wall
        self._loader = loader
        self._verifier = verifier
        self._open: dict[str, Allowance] | None = None
        self.local_only = config.local_only
        """Access is open only because no client is configured: only for programs on this machine."""
        if config.access == "open":
            self._open = {
                route.name: Allowance(OPEN, route.name, metrics=metrics.client(OPEN, route.name))
                for route in config.routes
            }
        self._by_name = {
            client.name: _Identity(client.name, allowances_of(client, config, store, metrics, clock))
            for client in config.clients
        }
        self._by_digest = _by_digest(config, self._by_name)
        self._by_names = {name: self._by_name[client.name] for client in config.clients for name in client.certificates}

    def identify(
        self,
        key: bytes | None,
        token: bytes | None,
        route: Route,
        certificate: frozenset[str] = frozenset(),
        last: LastKey | None = None,
    ) -> Allowance:
        """Return the allowance of the app on `route`. The hot path.

        Args:
            key: the value of `X-Gatepass-Key`; None if the field is absent.
            token: what the app sends where the vendor's token goes, in `Authorization: Bearer` or in another injected
                header; None if absent. Ignored if there is a key.
            route: the route of the request.
            certificate: the names in the app's certificate.
            last: the last key of the app's connection.

        Raises ClientUnknown, ClientForbidden, IdentityUnavailable; SigningKeysNeeded for a JWT whose key must be
        fetched first.
        """
        if self._open is not None:
            return self._open[route.name]
        presented = key if key is not None else token
        if presented is None or certificate:
            return self._with_certificate(presented, certificate, route)
        known = last.client_of(self, presented) if last is not None else None
        if known is None:
            if not presented:
                raise _unknown("several keys, or none that can be read")
            digest = sha256(presented).digest()
            known = self._by_digest.get(digest[:_INDEX_BYTES])
            if known is None or not compare_digest(known.digest, digest):
                return self._with_token(presented, digest, known, route, last)
            if last is not None:
                last.keep(self, presented, known)
        if known.ends and self._wall() >= known.ends:
            return self._with_token(presented, known.digest, known, route)
        allowance = known.allowances.get(route.name)
        if allowance is not None:
            return allowance
        return self._with_token(presented, known.digest, None, route) if known.by_pass else known.on(route.name)

    def _with_token(
        self, presented: bytes, digest: bytes, expired: _Identity | None, route: Route, last: LastKey | None = None
    ) -> Allowance:
        if expired is not None or presented.count(b".") != 2:  # noqa: PLR2004 - RFC 7515 §3.1
            raise _unknown_key(presented, expired)
        if presented.startswith(PASS_PREFIX):
            return self._with_pass(presented, digest, route, last)
        return self._with_jwt(presented, digest, route)[0]

    def _with_jwt(self, presented: bytes, digest: bytes, route: Route) -> tuple[Allowance, Verified]:
        if self._verifier is None:
            raise _unknown_key(presented, None)
        try:
            verified = self._verifier.verify(presented, digest)
        except ClientUnknown as error:
            raise _unknown(error.reason) from None
        known = self._by_name[verified.client]
        allowance = known.on(route.name)
        if verified.routes is not None and route.name not in verified.routes:
            raise ClientForbidden(
                f"The token of the client {known.name} is not for the route {route.name}",
                reason=f"the routes claim of issuers.{verified.keys.issuer.name} does not name {route.name}",
                client=known.name,
            )
        return allowance, verified

    def _with_pass(self, presented: bytes, digest: bytes, route: Route, last: LastKey | None) -> Allowance:
        loader = self._loader
        if not route.app_tokens:
            raise _unknown("a pass on a route that takes none")
        if loader.passes is None:
            raise SigningKeysNeeded(loader)
        try:
            proved = loader.passes.verify(presented, digest, route)
        except ClientUnknown as error:
            raise _unknown(error.reason) from None
        if proved is None:
            raise _unknown_key(presented, None)
        allowance = self._by_name[proved.client].on(route.name)
        if last is not None:
            last.keep(
                self, presented, _Identity(proved.client, {route.name: allowance}, digest, proved.ends, by_pass=True)
            )
        return allowance

    def _with_certificate(self, presented: bytes | None, certificate: frozenset[str], route: Route) -> Allowance:
        """Authenticate by certificate, alone or with a key or JWT; both must belong to the same client."""
        shown = {known.name: known for name in certificate if (known := self._by_names.get(name)) is not None}
        if len(shown) > 1:
            raise _unknown(f"a certificate that matches {', '.join(sorted(shown))}")
        by_certificate = next(iter(shown.values()), None)
        if presented is None:
            if by_certificate is None:
                raise _unknown("a certificate that matches no client" if certificate else "no credential was sent")
            return by_certificate.on(route.name)
        allowance = self.identify(presented, None, route)
        if by_certificate is not None and by_certificate.name != allowance.name:
            raise _unknown(f"the key of {allowance.name} with the certificate of {by_certificate.name}")
        return allowance

    def reject_our_keys(self, fields: Iterable[str]) -> None:
        """Raise ClientForbidden if an Authorization field for the vendor has a key or JWT of the gateway."""
        for field in fields:
            found = candidates(field.encode("utf-8", "surrogateescape"))
            if found is None or any(self._is_ours(each) for each in found):
                raise ClientForbidden(
                    "Authorization contains a key of the gateway, which no vendor may get; send it in X-Gatepass-Key"
                    if found is not None
                    else "Authorization has too many parts to be checked for a key of the gateway",
                    reason="a key or JWT of the gateway in an Authorization that is passed to the vendor"
                    if found is not None
                    else "an Authorization with too many parts to be checked",
                )

    def _is_ours(self, secret: bytes) -> bool:
        if sha256(secret).digest()[:_INDEX_BYTES] in self._by_digest:
            return True
        if secret.count(b".") != 2:  # noqa: PLR2004 - RFC 7515 §3.1
            return False
        return is_pass(secret) or (self._verifier is not None and self._verifier.is_for_us(secret))

    # -------------------------------------------------------------------------------------------------------- passes

    def holder(self, presented: tuple[bytes, ...], route: Route, certificate: frozenset[str]) -> Holder:
        """Return who asks for a pass. Any of the presented secrets may be the key or JWT.

        Raises ClientUnknown, ClientForbidden, IdentityUnavailable, SigningKeysNeeded; AppTokenRefused if two of the
        secrets belong to different keys.
        """
        if self._open is not None:
            return Holder(self._open[route.name], b"", math.inf)
        known: Holder | None = None
        unknown: ClientUnknown | None = None
        for secret in presented:
            try:
                each = self._holder_of(secret, route)
            except ClientUnknown as error:
                unknown = unknown or error
                continue
            if known is not None and known.key != each.key:
                raise AppTokenRefused("The request holds two different gateway keys", error="invalid_request")
            known = each
        if known is None:
            raise unknown or _unknown("no credential was sent")
        shown = {self._by_names[name].name for name in certificate if name in self._by_names}
        if shown - {known.allowance.name}:
            raise _unknown(f"the key of {known.allowance.name} with a certificate of {', '.join(sorted(shown))}")
        return known

    def _holder_of(self, secret: bytes, route: Route) -> Holder:
        digest = sha256(secret).digest()
        known = self._by_digest.get(digest[:_INDEX_BYTES])
        if known is not None and compare_digest(known.digest, digest):
            if known.ends and self._wall() >= known.ends:
                raise _unknown_key(secret, known)
            return Holder(known.on(route.name), digest, known.ends or math.inf)
        if secret.count(b".") != 2 or secret.startswith(PASS_PREFIX):  # noqa: PLR2004 - RFC 7515 §3.1
            raise _unknown_key(secret, None)
        allowance, verified = self._with_jwt(secret, digest, route)
        return Holder(allowance, issuer_holder(verified.keys.issuer.name), verified.ends)

    async def issue(self, holder: Holder, route: Route) -> tuple[str, int]:
        """Return a pass and its life in whole seconds. Raises ClientUnknown or AppTokenRefused if there can be none."""
        loader = self._loader
        await loader.refetch()
        assert loader.passes is not None  # noqa: S101 - loaded above
        if self._open is not None:
            return loader.passes.issue_unverified(OPEN, route)
        return loader.passes.issue(holder.allowance.name, route, holder.key, holder.ends)

    def count_on(self, route: str) -> int:
        """Return how many clients may use a route; 1 if access is open."""
        return 1 if self._open is not None else sum(route in known.allowances for known in self._by_name.values())

    def budgets(self) -> Iterator[Budget]:
        """Iterate over the budgets of all clients."""
        for known in self._by_name.values():
            for allowance in known.allowances.values():
                yield from allowance.budgets

    def use_part(self, rank: int, members: int) -> list[str]:
        """Divide all limits by the number of instances; return those that leave nothing for this one."""
        allowances = [each for known in self._by_name.values() for each in known.allowances.values()]
        return [each.name for each in allowances if not each.use_part(rank, members)]

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


def _unknown(reason: str) -> ClientUnknown:
    """Return the error with the same text for every caller and path; `reason` is only for the log."""
    return ClientUnknown(
        "No client matches the credentials of this request. Send a gateway key in X-Gatepass-Key, or where the vendor's"
        " token goes",
        reason=reason,
    )


def _unknown_key(presented: bytes, expired: _Identity | None) -> ClientUnknown:
    if expired is not None and expired.ends:
        reason = f"an expired key of {expired.name}"
    elif well_formed(presented):
        reason = "a well-formed key that no client has: removed, or of another gateway"
    elif presented.startswith(PREFIX.encode()):
        reason = "a key with a wrong checksum: mistyped or truncated"
    else:
        reason = "not a key of this gateway"
    return _unknown(reason)
