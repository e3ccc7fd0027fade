"""All credentials of a configuration: one cache per recipe, kept across reloads.

Decides which cache serves which name, and what a changed configuration does to it. Credentials with equal recipes
share one cache, whatever their names.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.addresses import Networks
from gateway.errors import TokenError
from gateway.tokens.cache import TokenCache
from gateway.tokens.key import cache_key, identity
from gateway.tokens.report import Report
from gateway.tokens.sender import Sender
from gateway.tokens.source import Recipe, TokenSource, call, identity_endpoint
from gateway.tokens.static import StaticTokens
from gateway.tokens.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.model import Clock, Config, Credential, CredentialStatus, SharedTokens, Token, Tokens
    from gateway.observe import Metrics
    from gateway.resolver import Resolver
    from gateway.tokens.report import Cause
    from gateway.tokens.sharing import Sharing
    from gateway.tokens.store import Store

REVOKE_WITHIN = 2.0
"""Seconds for all revocations together when the gateway stops."""

RecipeKey = tuple[str, ...]
"""The store keys of a recipe's grants."""


class TokenSet:
    """The tokens of every credential."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock,
        metrics: Metrics,
        store: Store | None = None,
        resolver: Resolver | None = None,
        shared: SharedTokens | None = None,
    ) -> None:
        """Build all caches; nothing is fetched before `start`.

        Args:
            config: the first configuration.
            clock: for all instants and timers.
            metrics: all metrics of the process.
            store: keeps tokens across reloads; in memory by default.
            resolver: looks up the names of token endpoints; one of its own by default.
            shared: the store that this process shares with other instances, if there is one.
        """
        self.warmed = asyncio.Event()
        """Set when each credential with `keep_warm: always` was tried once."""
        self.changed: Callable[[], object] = bool
        """Called after a token was fetched, adopted or dropped, and after a reload; `held` then tells what is in use.
        It must return at once and never raise. It is not called when a token expires: `Token.expires_at` tells."""
        self._clock = clock
        self._metrics = metrics
        self._store = store or MemoryStore(clock)
        self._sender = Sender(clock, resolver=resolver)
        self._sharing = _sharing(shared, clock)
        self._caches: dict[RecipeKey, TokenCache] = {}
        self._tokens: dict[str, TokenCache | StaticTokens] = {}
        self._credentials: Mapping[str, Credential] = {}
        self._started = False
        self._closing: set[asyncio.Task[Any]] = set()
        self._apply(config)

    async def start(self) -> None:
        """Start fetching every credential with `keep_warm: always`, and return at once."""
        self._sender.open()
        self._started = True
        for cache in self._caches.values():
            cache.begin("startup")
        if self._sharing is not None:
            self._sharing.start(self._shared_caches)
        self._check_warmed()

    def tokens(self, name: str) -> Tokens:
        """Return the tokens of the credential `name`; call it again after a reload.

        An object returned before a reload stays usable: it forwards to its successor.

        Raises:
            KeyError: there is no such credential.
        """
        return self._tokens[name]

    def held(self, name: str) -> Token | None:
        """Return the valid token of the credential `name`, without counting this as use; None if there is none."""
        tokens = self._tokens.get(name)
        return None if tokens is None else tokens.peek()

    def status(self) -> list[CredentialStatus]:
        """Return the state of each credential, in the configuration's order."""
        return [
            tokens.status() if isinstance(tokens, StaticTokens) else tokens.status(name)
            for name, tokens in self._tokens.items()
        ]

    async def fetch_now(self, name: str) -> None:
        """Fetch a new token of the credential `name` on an operator's request; a static key is not fetched.

        Raises:
            KeyError: there is no such credential.
            TokenError: the fetch failed, or is not allowed yet.
        """
        tokens = self._tokens[name]
        if isinstance(tokens, TokenCache):
            await tokens.fetch_now()

    async def check(self, name: str) -> int:
        """Send the token in use to the vendor's identity endpoint; return the answer's status.

        Raises:
            KeyError: there is no such credential.
            TokenError: there is no token, no answer, or no identity endpoint.
        """
        tokens, credential = self._tokens[name], self._credentials[name]
        probe, token = identity_endpoint(credential), await tokens.get()
        return await call(probe, token, sender=self._sender, clock=self._clock, within=credential.timeout)

    async def reload(self, config: Config) -> None:
        """Apply a new configuration without a gap.

        An unchanged recipe keeps its cache, token and timers. If only secrets changed, the new one is tried at once,
        and the old token is used until that succeeds. Any other recipe starts without a token.
        """
        self._apply(config)
        if self._sharing is not None and self._started:
            self._sharing.listen(self._caches.values())
        self._check_warmed()
        self._tell_changed()

    async def stop(self, *, hand_over: bool = False) -> None:
        """Cancel all fetches, and revoke tokens where that is configured, within `REVOKE_WITHIN`.

        With a shared store, only the last instance revokes, and none does at a `hand_over` to a successor.
        """
        self._started = False
        caches = list(self._caches.values())
        last = [(cache.recipe.credential, cache.peek(), cache.key) for cache in caches]
        for cache in caches:
            self._close(cache, None)
        revocations = []
        if self._sharing is None or await self._leave(self._sharing, hand_over=hand_over):
            revocations = [self._revoke(credential, token, key) for credential, token, key in last if token is not None]
        await asyncio.gather(*revocations, *self._closing, return_exceptions=True)
        await self._sender.close()

    def _shared_caches(self) -> Iterable[TokenCache]:
        return self._caches.values()

    async def _leave(self, sharing: Sharing, *, hand_over: bool) -> bool:
        sharing.stop()
        await asyncio.gather(*self._closing, return_exceptions=True)  # leases are ended before the last one leaves
        return await sharing.is_last(hand_over=hand_over)

    # -------------------------------------------------------------------------------------------------------- reloading

    def _apply(self, config: Config) -> None:
        self._sender.allow(Networks(config.allow_addresses))
        before, old = self._tokens, self._caches
        self._tokens, self._caches, self._credentials = {}, {}, config.credentials
        fresh: list[tuple[TokenCache, Cause]] = []
        for keys, credential in _recipes(config.credentials.values()):
            cache = old.get(keys)
            if cache is None or cache.recipe.credential.name != credential.name:
                predecessor = cache or _predecessor(config, keys, before)
                cache = self._new(
                    Recipe(credential, self._sources(credential), keys), config.token_timeout, predecessor
                )
                fresh.append((cache, self._inherit(cache, predecessor)))
            else:
                cache.update_settings(credential, config.token_timeout)
            self._caches[keys] = cache
        for name, credential in config.credentials.items():
            if credential.static is not None:
                self._tokens[name] = StaticTokens(name, credential.static)
            else:
                self._tokens[name] = self._caches[_recipe_key(credential)]
        self._close_unused(old.values(), before)
        if self._started:
            for cache, cause in fresh:
                cache.begin(cause)

    def _sources(self, credential: Credential) -> list[TokenSource]:
        grants = credential.grants
        return [TokenSource(credential.name, grant, sender=self._sender, clock=self._clock) for grant in grants]

    def _new(self, recipe: Recipe, token_timeout: float, predecessor: TokenCache | None) -> TokenCache:
        make: Callable[..., TokenCache] = TokenCache if self._sharing is None else self._sharing.cache
        cache = make(
            recipe,
            clock=self._clock,
            metrics=self._metrics.credential(recipe.credential.name),
            store=self._store,
            token_timeout=token_timeout,
            tried=self._check_warmed,
            changed=self._tell_changed,
        )
        if predecessor is not None:
            cache.continue_from(predecessor)
        return cache

    def _inherit(self, cache: TokenCache, predecessor: TokenCache | None) -> Cause:
        """Give a new cache the token that it may use; return the cause of its first fetch."""
        for which, key in enumerate(cache.recipe.keys):
            token = self._store.get(key)
            if token is not None:
                cache.adopt(token, which=which)
                return "startup"
        if predecessor is None:
            return "startup"
        token = predecessor.peek()
        if token is not None and _have_one_identity(predecessor, cache):
            cache.adopt(token, rotated=True, key=predecessor.key)
        return "rotated"

    def _close_unused(self, caches: Iterable[TokenCache], before: Mapping[str, TokenCache | StaticTokens]) -> None:
        """Close the caches that no name uses any more; their waiting callers continue with the cache of the same name.

        Only if the identity is the same: an exchange that began before the reload goes to the previous vendor, which
        must not get a token of another vendor, account or scope.
        """
        kept = {id(cache) for cache in self._caches.values()}
        for cache in caches:
            if id(cache) not in kept:
                names = [name for name, tokens in before.items() if tokens is cache]
                heirs = [self._caches.get(_recipe_key_of(self._tokens.get(name))) for name in names]
                same = [heir for heir in heirs if heir is not None and _have_one_identity(heir, cache)]
                self._close(cache, self._caches.get(tuple(cache.recipe.keys)) or next(iter(same), None))

    def _close(self, cache: TokenCache, successor: TokenCache | None) -> None:
        for fetch in cache.close(successor):
            self._closing.add(fetch)
            fetch.add_done_callback(self._closing.discard)

    def _tell_changed(self) -> None:
        self.changed()

    def _check_warmed(self) -> None:
        if self._started and all(
            cache.tried for cache in self._caches.values() if cache.recipe.credential.keep_warm == "always"
        ):
            self.warmed.set()

    async def _revoke(self, credential: Credential, token: Token, key: str) -> None:
        """Revoke a token (RFC 7009, or the vendor's own form). A failure is only logged: the token expires anyway."""
        if credential.revoke is None:
            return
        self._store.remove(key, token)
        if self._sharing is not None:
            await self._sharing.withdraw(key, token)
        report = Report(credential.name, self._metrics.credential(credential.name), self._clock)
        try:
            status = await call(credential.revoke, token, sender=self._sender, clock=self._clock, within=REVOKE_WITHIN)
        except TokenError as error:
            report.revoked(token, error.reason or error.code)
        else:
            report.revoked(token, f"HTTP {status}")


def _sharing(shared: SharedTokens | None, clock: Clock) -> Sharing | None:
    if shared is None:
        return None
    from gateway.tokens.sharing import Sharing  # noqa: PLC0415 - only with a store

    return Sharing(shared, clock)


def _recipe_key(credential: Credential) -> RecipeKey:
    return tuple(cache_key(grant) for grant in credential.grants)


def _recipe_key_of(tokens: TokenCache | StaticTokens | None) -> RecipeKey:
    return tuple(tokens.recipe.keys) if isinstance(tokens, TokenCache) else ()


def _have_one_identity(cache: TokenCache, other: TokenCache) -> bool:
    """Whether both have the same endpoint, account and scope; their secrets may differ."""
    return identity(cache.recipe.credential) == identity(other.recipe.credential)


def _recipes(credentials: Iterable[Credential]) -> list[tuple[RecipeKey, Credential]]:
    """Return each distinct recipe once, with settings that suit every credential that shares it."""
    shared: dict[RecipeKey, Credential] = {}
    for credential in credentials:
        keys = _recipe_key(credential)
        if keys:
            shared[keys] = _merge(shared[keys], credential) if keys in shared else credential
    return list(shared.items())


def _merge(one: Credential, other: Credential) -> Credential:
    return replace(
        one,
        keep_warm=min(one.keep_warm, other.keep_warm, key=("always", "used", "never").index),
        min_interval=max(one.min_interval, other.min_interval),
        timeout=max(one.timeout, other.timeout),
        single_active_token=one.single_active_token or other.single_active_token,
        store_outage=max(one.store_outage, other.store_outage, key=("open", "closed").index),
        revoke=one.revoke or other.revoke,
    )


def _predecessor(config: Config, keys: RecipeKey, before: Mapping[str, TokenCache | StaticTokens]) -> TokenCache | None:
    """Return the cache that served the names of this recipe before the reload."""
    names = [name for name, credential in config.credentials.items() if _recipe_key(credential) == keys]
    caches = [before.get(name) for name in names]
    return next((cache for cache in caches if isinstance(cache, TokenCache)), None)
