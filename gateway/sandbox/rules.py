"""The state of an emulated vendor (clock, switches, counters, ledger), and abstract methods for what differs.

The four modules that are named after vendors implement the methods after the vendors' documents. A comment says where
the sandbox is stricter than a document. `vendor.py` serves a vendor on sockets.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from gateway.model import Secret
from gateway.sandbox.ledger import Counters, Issued, Ledger, Time
from gateway.sandbox.switches import Switches

if TYPE_CHECKING:
    from aiohttp import web

    from gateway.sandbox.refusal import Refusal

Why = Literal["missing", "unknown", "expired", "revoked"]


@dataclass(slots=True)
class Granted:
    """A token request that the vendor has accepted, before it issues the token. `life` is in seconds."""

    life: float
    scopes: frozenset[str] = frozenset()
    service: str = ""
    replaces: Issued | None = None


class VendorRules(ABC):
    """State and rules of one vendor."""

    name: ClassVar[str]
    life: ClassVar[float]
    """The vendor's own token lifetime, in seconds."""
    token_path: ClassVar[str]
    token_on_api: ClassVar[bool] = False
    """Whether the API's host also serves the token endpoint, as the vendor's does."""
    fields: ClassVar[tuple[str, str, str]] = ("access_token", "token_type", "expires_in")
    open_paths: ClassVar[frozenset[str]] = frozenset()
    """Paths of the API that require no token."""

    def __init__(self, clock: Time) -> None:
        self.clock = clock
        self.switches = Switches()
        self.counters = Counters()
        self.ledger = Ledger(clock)
        self.signing_key = Secret(secrets.token_hex(32))
        self.credentials: dict[str, Secret] = self.make_credentials()
        """The secrets that a client must have, by the names in the vendor's document. Replace a value to rotate it."""

    def now(self) -> float:
        """Return the wall-clock time of the vendor."""
        return self.clock.wall() + self.switches.clock_offset

    @abstractmethod
    def make_credentials(self) -> dict[str, Secret]:
        """Return new random credentials."""

    @abstractmethod
    async def grant(self, request: web.Request) -> Granted:
        """Check a token request; return what to issue. Raises Refusal."""

    @abstractmethod
    def make_token(self, granted: Granted, life: float) -> Issued:
        """Return a new token with its claims; `life` is in seconds."""

    @abstractmethod
    def answer(self, issued: Issued) -> dict[str, Any]:
        """Return the token endpoint's answer without its expiry field."""

    @abstractmethod
    def unauthorized(self, why: Why) -> Refusal:
        """Return the API's 401."""

    @abstractmethod
    def error_body(self, status: int, message: str) -> Any:
        """Return the body of any other error of the API."""

    @abstractmethod
    def api_routes(self) -> list[web.RouteDef]:
        """Return the vendor's own endpoints."""
