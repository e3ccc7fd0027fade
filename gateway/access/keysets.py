"""An issuer's public keys (JWKS, RFC 7517): read from a file, or fetched and refreshed in the background.

Old keys go on while the endpoint is down, up to the issuer's `max_age`; then nobody can be judged any more. A document
that holds no usable key changes nothing. Only public keys of asymmetric algorithms are taken, each for the algorithms
that the configuration pins, so that no token can choose how it is verified (RFC 8725 §3.1).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import orjson

from gateway.observe import get_logger
from gateway.resolver import GuardedResolver, Resolver
from gateway.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from gateway.addresses import Networks
    from gateway.model import Clock, Issuer
    from gateway.observe import Metrics

    Fetch = Callable[[Issuer], Awaitable[bytes]]

_log = get_logger("gatepass.access")
LOOK_INTERVAL = 30.0
"""Least seconds between two looks that unknown keys ask for."""
FETCH_TIMEOUT = 5.0
FIRST_RETRY, LAST_RETRY = 1.0, 60.0
MOST_BYTES = 256 * 1024
LEAST_RSA_BITS = 2048
FITS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
}
"""Which algorithms a kind of key verifies (RFC 7518 §3.1, RFC 8037)."""

Found = dict[tuple[str | None, str], list[jwt.PyJWK]]
"""Keys by `kid` and algorithm; under None all keys of the algorithm."""


def read_keys(document: bytes, algorithms: Iterable[str]) -> Found:
    """Return the usable keys of a JWKS document. Raises ValueError when it is none or holds no usable key."""
    parsed: Any = orjson.loads(document)
    rows = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(rows, list):
        raise ValueError("not a JWKS document")  # noqa: TRY004 - a finding about a document, no bug
    found: Found = {}
    for row in rows:
        if not isinstance(row, dict) or not _for_verifying(row):
            continue
        kid = row.get("kid")
        for algorithm in _algorithms(row, algorithms):
            key = _key(row, algorithm)
            if key is not None:
                found.setdefault((None, algorithm), []).append(key)
                if isinstance(kid, str):
                    found.setdefault((kid, algorithm), []).append(key)
    if not found:
        raise ValueError("no usable key")
    return found


def _for_verifying(row: Mapping[str, Any]) -> bool:
    operations = row.get("key_ops")
    public = "d" not in row and "k" not in row
    return public and row.get("use", "sig") == "sig" and (not isinstance(operations, list) or "verify" in operations)


def _algorithms(row: Mapping[str, Any], pinned: Iterable[str]) -> list[str]:
    kind = "RSA" if row.get("kty") == "RSA" else str(row.get("crv"))
    own = row.get("alg")
    return [each for each in pinned if each in FITS.get(kind, ()) and (own is None or own == each)]


def _key(row: Mapping[str, Any], algorithm: str) -> jwt.PyJWK | None:
    try:
        key = jwt.PyJWK(dict(row), algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if row.get("kty") == "RSA" and key.key.key_size < LEAST_RSA_BITS:
        return None
    return key


class KeySet:
    """The keys of one issuer. `generation` counts the changes: what was verified by an older one is judged again."""

    def __init__(self, issuer: Issuer, *, clock: Clock, metrics: Metrics, fetch: Fetch) -> None:
        self.issuer = issuer
        self.generation = 0
        self._clock = clock
        self._metrics = metrics
        self._fetch = fetch
        self._found: Found = {}
        self._document = b""
        self._seen_at: float | None = None
        self._asked_at: float | None = None
        self._looking: asyncio.Task[bool] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<KeySet {self.issuer.name}, {len(self._found)} keys, generation {self.generation}>"

    def start(self) -> None:
        """Read the file, or begin to fetch and refresh."""
        if self.issuer.jwks_file is not None:
            try:
                self._take(self.issuer.jwks_file.read_bytes())
            except (OSError, ValueError) as error:
                self._failed(error)
        else:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    async def stop(self) -> None:
        """End what runs."""
        tasks = [task for task in (self._refreshing, self._looking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def usable(self) -> bool:
        """Whether there are keys that are fresh enough to be believed; those of a file always are."""
        if self._seen_at is None or self.issuer.jwks_file is not None:
            return self._seen_at is not None
        return self._clock.monotonic() - self._seen_at <= self.issuer.max_age

    def find(self, kid: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """Return the keys for a token's header. Without `kid` there must be exactly one that fits."""
        found = self._found.get((kid, algorithm), [])
        return found if kid is not None or len(found) == 1 else []

    @property
    def worth_a_look(self) -> bool:
        """Whether fetching the keys for a token's sake is allowed now, or is being done."""
        if self.issuer.jwks_file is not None:
            return False
        if self._looking is not None and not self._looking.done():
            return True
        return self._asked_at is None or self._clock.monotonic() - self._asked_at >= LOOK_INTERVAL

    async def look(self) -> None:
        """Fetch the keys now, for a token that wants one that is not there; everybody shares one look."""
        if self._looking is None or self._looking.done():
            self._asked_at = self._clock.monotonic()
        await asyncio.wait((self._look(),))  # neither its failure nor the end of the issuer is the app's to feel

    def _look(self) -> asyncio.Task[bool]:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._fetch_once())
        return self._looking

    async def _refresh(self) -> None:
        retry = FIRST_RETRY
        while True:
            good = await asyncio.shield(self._look())
            retry = FIRST_RETRY if good else min(LAST_RETRY, retry * 2)
            await self._clock.sleep(self.issuer.refresh if good else min(retry, self.issuer.refresh))

    async def _fetch_once(self) -> bool:
        try:
            self._take(await self._fetch(self.issuer))
        except Exception as error:  # noqa: BLE001 - the task's border: whatever it was, the keys are asked for again
            self._metrics.keys_fetched(self.issuer.name, "failed")
            self._failed(error)
            return False
        self._metrics.keys_fetched(self.issuer.name, "ok")
        return True

    def _take(self, document: bytes) -> None:
        if document != self._document:
            self._found = read_keys(document, self.issuer.algorithms)
            self._document = document
            self.generation += 1
            _log.info("issuer_keys_changed", issuer=self.issuer.name, keys=len(self._found), generation=self.generation)
        self._seen_at = self._clock.monotonic()

    def _failed(self, error: Exception) -> None:
        # An exception's own text may hold an address or a part of the document: the kind must do.
        reason = str(error) if type(error) is ValueError else type(error).__name__
        _log.warning("issuer_keys_not_fetched", issuer=self.issuer.name, reason=reason, usable=self.usable)


class JwksFetcher:
    """Fetches JWKS documents: no redirect, no cookie, no proxy of the environment, a bounded answer."""

    def __init__(self, allowed: Networks, resolver: Resolver | None = None) -> None:
        self._allowed = allowed
        self._resolver = resolver or Resolver()

    async def __call__(self, issuer: Issuer) -> bytes:
        """Return the document. Raises aiohttp.ClientError, OSError or ValueError."""
        # In a thread: reading the authorities takes some 40 ms. aiohttp's own may be empty (`commands/serve.py`).
        tls = await asyncio.to_thread(client_context, issuer.ca_file)
        connector = aiohttp.TCPConnector(
            resolver=GuardedResolver(self._allowed, self._resolver), force_close=True, use_dns_cache=False
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=FETCH_TIMEOUT),
                trust_env=False,
            ) as session,
            session.get(
                str(issuer.jwks_url), allow_redirects=False, headers={"Accept": "application/json"}, ssl=tls
            ) as answer,
        ):
            if answer.status != 200:  # noqa: PLR2004 - RFC 9110 §15.3.1
                raise ValueError(f"the answer has status {answer.status}")
            document = bytearray()
            async for piece in answer.content.iter_any():
                document += piece
                if len(document) > MOST_BYTES:
                    raise ValueError("the answer is too large")
        return bytes(document)
