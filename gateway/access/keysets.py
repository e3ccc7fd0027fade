"""An issuer's public keys (JWKS, RFC 7517): read from a file, or fetched and refreshed in the background.

While the endpoint is down, the old keys stay in use up to the issuer's `max_age`; after that no JWT is accepted. A
document without a usable key changes nothing. Only public keys of asymmetric algorithms are used, each only for the
algorithms in the configuration, so that no token chooses how it is verified (RFC 8725 §3.1).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import orjson
from yarl import URL

from gateway.descriptors import NO_DESCRIPTOR, lacks_descriptor
from gateway.egress import PROXY_LOGIN, EgressError, aiohttp_options, proxy_failure
from gateway.model.http import ANSWER_FIELDS, ANSWER_HEAD_BYTES
from gateway.observe import get_logger
from gateway.resolver import GuardedResolver, Resolver
from gateway.tls import client_context, proxy_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from gateway.addresses import Networks
    from gateway.model import Clock, Issuer
    from gateway.observe import Metrics

    Fetch = Callable[[Issuer], Awaitable[bytes]]

_log = get_logger("gatepass.access")
REFETCH_INTERVAL = 30.0
"""Least seconds between two fetches for tokens with an unknown key."""
FETCH_TIMEOUT = 5.0
MOST_WAITING = 64
"""Most requests that wait for the keys of one issuer; while its endpoint hangs, further ones get 503 at once."""
FIRST_RETRY, LAST_RETRY = 1.0, 60.0
MOST_BYTES = 256 * 1024
LEAST_RSA_BITS = 2048
ALGORITHMS_OF = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
}
"""The algorithms of each kind of key (RFC 7518 §3.1, RFC 8037)."""

KeyIndex = dict[tuple[str | None, str], list[jwt.PyJWK]]
"""Keys by `kid` and algorithm; under `kid` None, all keys of the algorithm."""


def read_keys(document: bytes, algorithms: Iterable[str]) -> KeyIndex:
    """Return the usable keys of a JWKS document. Raises ValueError if it is not one, or has no usable key."""
    parsed: Any = orjson.loads(document)
    rows = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(rows, list):
        raise ValueError("not a JWKS document")  # noqa: TRY004 - a fault of the document, not of the caller
    index: KeyIndex = {}
    for row in rows:
        if not isinstance(row, dict) or not _for_verifying(row):
            continue
        kid = row.get("kid")
        for algorithm in _algorithms(row, algorithms):
            key = _key(row, algorithm)
            if key is not None:
                index.setdefault((None, algorithm), []).append(key)
                if isinstance(kid, str):
                    index.setdefault((kid, algorithm), []).append(key)
    if not index:
        raise ValueError("no usable key")
    return index


def _for_verifying(row: Mapping[str, Any]) -> bool:
    operations = row.get("key_ops")
    public = "d" not in row and "k" not in row
    return public and row.get("use", "sig") == "sig" and (not isinstance(operations, list) or "verify" in operations)


def _algorithms(row: Mapping[str, Any], pinned: Iterable[str]) -> list[str]:
    kind = "RSA" if row.get("kty") == "RSA" else str(row.get("crv"))
    own = row.get("alg")
    return [each for each in pinned if each in ALGORITHMS_OF.get(kind, ()) and (own is None or own == each)]


def _key(row: Mapping[str, Any], algorithm: str) -> jwt.PyJWK | None:
    try:
        key = jwt.PyJWK(dict(row), algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if row.get("kty") == "RSA" and key.key.key_size < LEAST_RSA_BITS:
        return None
    return key


class KeySet:
    """The keys of one issuer. `generation` counts the changes: a token verified with older keys is verified again."""

    def __init__(self, issuer: Issuer, *, clock: Clock, metrics: Metrics, fetch: Fetch) -> None:
        self.issuer = issuer
        self.generation = 0
        self._clock = clock
        self._metrics = metrics
        self._fetch = fetch
        self._keys: KeyIndex = {}
        self._document = b""
        self._seen_at: float | None = None
        self._asked_at: float | None = None
        self._waiting = 0
        self._fetching: asyncio.Task[bool] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<KeySet {self.issuer.name}, {len(self._keys)} keys, generation {self.generation}>"

    def start(self) -> None:
        """Read the file, or start fetching and refreshing."""
        if self.issuer.jwks_file is not None:
            try:
                self._use(self.issuer.jwks_file.read_bytes())
            except (OSError, ValueError) as error:
                self._failed(error)
        else:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    async def stop(self) -> None:
        """Cancel all fetches."""
        tasks = [task for task in (self._refreshing, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def usable(self) -> bool:
        """Whether there are keys that are not older than `max_age`; keys of a file have no age."""
        if self._seen_at is None or self.issuer.jwks_file is not None:
            return self._seen_at is not None
        return self._clock.monotonic() - self._seen_at <= self.issuer.max_age

    def find(self, kid: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """Return the keys that a token's header allows. Without `kid`, exactly one key must match."""
        index = self._keys.get((kid, algorithm), [])
        return index if kid is not None or len(index) == 1 else []

    @property
    def may_refetch(self) -> bool:
        """Whether a token with an unknown key may cause a fetch now, or one is running."""
        if self.issuer.jwks_file is not None:
            return False
        if self._is_fetching:
            return self._waiting < MOST_WAITING
        return self._asked_at is None or self._clock.monotonic() - self._asked_at >= REFETCH_INTERVAL

    @property
    def is_crowded(self) -> bool:
        """Whether as many requests wait for a running fetch as may wait."""
        return self._is_fetching and self._waiting >= MOST_WAITING

    @property
    def _is_fetching(self) -> bool:
        return self._fetching is not None and not self._fetching.done()

    async def refetch(self) -> None:
        """Fetch the keys now for a token with an unknown key; all callers share one fetch."""
        if not self._is_fetching:
            self._asked_at = self._clock.monotonic()
        self._waiting += 1
        try:
            await asyncio.wait((self._fetch_shared(),))  # a failure, or the end of the issuer, must not fail the caller
        finally:
            self._waiting -= 1

    def _fetch_shared(self) -> asyncio.Task[bool]:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.get_running_loop().create_task(self._fetch_once())
        return self._fetching

    async def _refresh(self) -> None:
        retry = FIRST_RETRY
        while True:
            good = await asyncio.shield(self._fetch_shared())
            retry = FIRST_RETRY if good else min(LAST_RETRY, retry * 2)
            await self._clock.sleep(self.issuer.refresh if good else min(retry, self.issuer.refresh))

    async def _fetch_once(self) -> bool:
        try:
            self._use(await self._fetch(self.issuer))
        except Exception as error:  # noqa: BLE001 - the outermost frame of the task: the fetch is tried again later
            self._metrics.keys_fetched(self.issuer.name, "failed")
            self._failed(error)
            return False
        self._metrics.keys_fetched(self.issuer.name, "ok")
        return True

    def _use(self, document: bytes) -> None:
        if document != self._document:
            self._keys = read_keys(document, self.issuer.algorithms)
            self._document = document
            self.generation += 1
            _log.info("issuer_keys_changed", issuer=self.issuer.name, keys=len(self._keys), generation=self.generation)
        self._seen_at = self._clock.monotonic()

    def _failed(self, error: Exception) -> None:
        # An exception's text may contain an address or a part of the document, so only its type is logged.
        ours = type(error) is ValueError or isinstance(error, EgressError)
        reason = str(error) if ours else type(error).__name__
        if lacks_descriptor(error):
            reason = NO_DESCRIPTOR
        _log.warning("issuer_keys_not_fetched", issuer=self.issuer.name, reason=reason, usable=self.usable)


class JwksFetcher:
    """Fetches JWKS documents: no redirect, no cookie, no proxy from the environment, a bounded answer."""

    def __init__(self, allowed: Networks, resolver: Resolver | None = None) -> None:
        self._allowed = allowed
        self._resolver = resolver or Resolver()

    async def __call__(self, issuer: Issuer) -> bytes:
        """Return the document. Raises aiohttp.ClientError, OSError (EgressError for a proxy) or ValueError."""
        # In a thread, because it takes some 40 ms.
        tls = await asyncio.to_thread(client_context, issuer.ca_file)
        proxy_tls = await asyncio.to_thread(proxy_context, issuer.egress) if issuer.egress is not None else None
        url = URL(str(issuer.jwks_url), encoded=True)
        try:
            return await self._get(url, aiohttp_options(issuer.egress, url, tls, proxy_tls, self._allowed))
        except aiohttp.ClientError as error:
            raise proxy_failure(error, issuer.egress) or error from None

    async def _get(self, url: URL, way: Mapping[str, Any]) -> bytes:
        connector = aiohttp.TCPConnector(
            resolver=GuardedResolver(self._allowed, self._resolver), force_close=True, use_dns_cache=False
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=FETCH_TIMEOUT),
                trust_env=False,
                max_line_size=ANSWER_HEAD_BYTES,
                max_field_size=ANSWER_HEAD_BYTES,
                max_headers=ANSWER_FIELDS,
            ) as session,
            session.get(url, allow_redirects=False, headers={"Accept": "application/json"}, **way) as answer,
        ):
            if answer.status == PROXY_LOGIN and "proxy" in way:
                raise EgressError(status=PROXY_LOGIN)
            if answer.status != 200:  # noqa: PLR2004 - RFC 9110 §15.3.1
                raise ValueError(f"the answer has status {answer.status}")
            document = bytearray()
            async for piece in answer.content.iter_any():
                document += piece
                if len(document) > MOST_BYTES:
                    raise ValueError("the answer is too large")
        return bytes(document)
