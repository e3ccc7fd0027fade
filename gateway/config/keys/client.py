"""The keys of a client: how an app is authenticated, what it may call, and how much."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gateway.config.keys.http import Rules
from gateway.config.keys.identity import CertificateNames, Claims, Instant, Sha256, Sha256s
from gateway.config.keys.money import CountOrMoney
from gateway.config.keys.network import Networks
from gateway.config.keys.numbers import Count, Rate
from gateway.config.keys.section import Section, refuse
from gateway.config.keys.text import Name, Names
from gateway.model import Money


class ClientKeySection(Section):
    """One key that expires."""

    sha256: Sha256 = Field(description="SHA-256 of the key.")
    expires: Instant | None = Field(
        None,
        description="From this time on it is refused: `2027-01-31` (its first second, UTC), or a date with a time.",
    )


class ClientJwtSection(Section):
    """What a JWT must contain to authenticate this client."""

    issuer: Name = Field(description="One of `issuers`.")
    claims: Claims = Field(description="Claims and their values, as `{azp: onboarding-web}`; all must match.")


class ClientLimitSection(Section):
    """How many requests a client may send."""

    routes: Names | None = Field(None, description="Routes that the entry is for; default: all.")
    rate: Rate | None = Field(None, description="Requests per second on each route.")
    burst: Count | None = Field(None, description="Requests at once; default: as many as in one second.")
    in_flight: Count | None = Field(None, description="Requests in flight on each route.")

    @model_validator(mode="after")
    def limits_something(self) -> Self:
        """Refuse an entry without any limit."""
        if self.rate is None and self.burst is None and self.in_flight is None:
            refuse("limits nothing: set `rate` (with `burst`) or `in_flight`")
        return self


def _exceeds(one: int | Money | None, other: int | Money | None) -> bool:
    """Return whether one limit is above another of the same kind."""
    if isinstance(one, Money) and isinstance(other, Money):
        return one.currency == other.currency and one.amount > other.amount
    return isinstance(one, int) and isinstance(other, int) and one > other


class ClientBudgetSection(Section):
    """How many calls a client may make in a period."""

    route: Name = Field(description="The route whose calls cost money.")
    per: Literal["day", "month"] = Field(description="The period, in UTC.")
    soft: CountOrMoney | None = Field(
        None,
        description="Number of calls, or an amount as `400 EUR`, after which a warning is logged, once per period.",
    )
    hard: CountOrMoney | None = Field(
        None,
        description="Number of calls, or an amount as `500 EUR`, after which calls get 429 until the period ends.",
    )
    outage: Literal["closed", "open"] = Field(
        "closed",
        description="While the `store` is away: `closed` spends what each instance was granted of `hard` before, "
        "`open` allows `outage_allowance` more.",
    )
    outage_allowance: CountOrMoney | None = Field(
        None,
        description="Number of calls, or an amount, of all instances together beyond what they were granted; "
        "with `outage: open`.",
    )

    @model_validator(mode="after")
    def limits_something(self) -> Self:
        """Require a limit, and the warning below the refusal."""
        if self.soft is None and self.hard is None:
            refuse("needs `soft` or `hard`")
        if (self.outage == "open") != (self.outage_allowance is not None):
            refuse("`outage: open` and `outage_allowance` go together")
        if self.outage == "open" and self.hard is None:
            refuse("`outage` has no meaning without `hard`")
        if _exceeds(self.soft, self.hard):
            refuse("`soft` is above `hard`: it would never warn")
        return self


class ClientSection(Section):
    """An app that may call the gateway."""

    name: Name = Field(description="Shown in logs and metrics.")
    key_sha256: Sha256 | None = Field(None, description="SHA-256 of its key; `gatepass keys new NAME` prints both.")
    keys_sha256: Sha256s | None = Field(None, description="The same for several keys, while one replaces another.")
    keys: tuple[ClientKeySection, ...] = Field((), strict=False, description="The same for keys that expire.")
    jwt: tuple[ClientJwtSection, ...] = Field(
        (), strict=False, description="Authenticated by a JWT of one of `issuers`."
    )
    certificates: CertificateNames = Field(
        (),
        description="Authenticated by a client certificate (with `tls.client_ca`) that has one of these names: "
        "`subject:CN=web,O=Acme`, `dns:web.internal`, `uri:spiffe://acme/web`, `email:…`.",
    )
    addresses: Networks = Field((), description="Networks that it may call from, as `10.1.0.0/16`; default: any.")
    routes: Names | None = Field(None, description="Routes that it may use; default: all.")
    allow: Rules = Field(
        (),
        description="What it may call there, as `POST /orders/v1/*` or `GET,HEAD /ledger/**`; default: everything.",
    )
    deny: Rules = Field((), description="What it may not call; wins over `allow`.")
    limits: tuple[ClientLimitSection, ...] = Field(
        (), strict=False, description="Rate and requests in flight; of several entries for a route the last one wins."
    )
    budgets: tuple[ClientBudgetSection, ...] = Field((), strict=False, description="Calls per day or month.")

    @model_validator(mode="after")
    def somehow_known(self) -> Self:
        """Refuse a client without any way to authenticate."""
        if self.key_sha256 is not None and self.keys_sha256:
            refuse("takes key_sha256 or keys_sha256, not both")
        if not (self.key_sha256 or self.keys_sha256 or self.keys or self.jwt or self.certificates):
            refuse(
                "needs one of key_sha256, keys_sha256, keys, jwt, certificates (`gatepass keys new NAME` prints a hash)"
            )
        return self

    @model_validator(mode="after")
    def budgets_differ(self) -> Self:
        """Refuse two budgets for one route and period, because they would be counted as one."""
        seen = [(budget.route, budget.per) for budget in self.budgets]
        if len(set(seen)) != len(seen):
            refuse("`budgets` names one route twice for the same period")
        return self
