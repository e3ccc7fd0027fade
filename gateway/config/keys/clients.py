"""The documented keys of clients and of the issuers of their JWTs: who may call, what, and how much.

Each field's description is its line in `docs/configuration.md` and in the JSON Schema.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gateway.config.keys import kinds as f  # noqa: TC001 - pydantic reads the annotations at run time
from gateway.config.keys import kinds_clients as fc  # noqa: TC001 - likewise
from gateway.config.keys.credential import Keys
from gateway.config.keys.values import refuse


class ClientKeyKeys(Keys):
    """One key with an end."""

    sha256: f.Sha256 = Field(description="SHA-256 of the key.")
    expires: fc.Instant | None = Field(
        None, description="From this instant the key is unknown: `2027-01-31` (its first second, UTC) or with a time."
    )


class ClientJwtKeys(Keys):
    """What a JWT must say to be this client."""

    issuer: f.Name = Field(description="One of `issuers`.")
    claims: fc.Claims = Field(description="Claims and their values, as `{azp: onboarding-web}`; all must fit.")


class ClientLimitKeys(Keys):
    """How fast a client may be."""

    routes: f.Names | None = Field(None, description="Routes that it is about; all of them unless set.")
    rate: fc.Rate | None = Field(None, description="Requests per second on each route.")
    burst: f.Count | None = Field(None, description="Requests at once; as many as in one second unless set.")
    in_flight: f.Count | None = Field(None, description="Requests under way on each route.")

    @model_validator(mode="after")
    def limits_something(self) -> Self:
        """An entry says at least one thing."""
        if self.rate is None and self.burst is None and self.in_flight is None:
            refuse("limits nothing: set `rate` (with `burst`) or `in_flight`")
        return self


class ClientBudgetKeys(Keys):
    """How many calls may be made in a period."""

    route: f.Name = Field(description="The route whose calls cost money.")
    per: Literal["day", "month"] = Field(description="The period, in UTC.")
    soft: f.Count | None = Field(None, description="Calls after which a warning is logged, once in a period.")
    hard: f.Count | None = Field(None, description="Calls after which the next one gets 429 until the period ends.")

    @model_validator(mode="after")
    def limits_something(self) -> Self:
        """At least one limit, and the warning before the refusal."""
        if self.soft is None and self.hard is None:
            refuse("needs `soft` or `hard`")
        if self.soft is not None and self.hard is not None and self.soft > self.hard:
            refuse("`soft` is above `hard`: it would never warn")
        return self


class ClientKeys(Keys):
    """An internal app that may call the gateway."""

    name: f.Name = Field(description="Shown in logs and metrics.")
    key_sha256: f.Sha256 | None = Field(None, description="SHA-256 of its key; `gatepass keys new NAME` prints both.")
    keys_sha256: f.Sha256s | None = Field(None, description="The same for several keys, while one replaces another.")
    keys: tuple[ClientKeyKeys, ...] = Field((), strict=False, description="The same for keys that expire.")
    jwt: tuple[ClientJwtKeys, ...] = Field((), strict=False, description="Known by a JWT of one of `issuers`.")
    certificates: fc.CertificateNames = Field(
        (),
        description="Known by a client certificate (with `tls.client_ca`) that has one of these names: "
        "`subject:CN=web,O=Acme`, `dns:web.internal`, `uri:spiffe://acme/web`, `email:…`.",
    )
    addresses: fc.NetworkList = Field(
        (), description="Networks that it may call from, as `10.1.0.0/16`; any unless set."
    )
    routes: f.Names | None = Field(None, description="Routes that it may use; all of them unless set.")
    allow: fc.Rules = Field(
        (),
        description="What it may call there, as `POST /orders/v1/*` or `GET,HEAD /ledger/**`; everything unless set.",
    )
    deny: fc.Rules = Field((), description="What it may not call; wins over `allow`.")
    limits: tuple[ClientLimitKeys, ...] = Field(
        (), strict=False, description="Rate and requests in flight; of several entries for a route the last one wins."
    )
    budgets: tuple[ClientBudgetKeys, ...] = Field((), strict=False, description="Calls per day or month.")

    @model_validator(mode="after")
    def somehow_known(self) -> Self:
        """A client that nobody can be is a mistake."""
        if self.key_sha256 is not None and self.keys_sha256:
            refuse("takes key_sha256 or keys_sha256, not both")
        if not (self.key_sha256 or self.keys_sha256 or self.keys or self.jwt or self.certificates):
            refuse(
                "needs one of key_sha256, keys_sha256, keys, jwt, certificates (`gatepass keys new NAME` prints a hash)"
            )
        return self

    @model_validator(mode="after")
    def budgets_differ(self) -> Self:
        """Two budgets for one route and period would be counted as one."""
        seen = [(budget.route, budget.per) for budget in self.budgets]
        if len(set(seen)) != len(seen):
            refuse("`budgets` names one route twice for the same period")
        return self


class IssuerKeys(Keys):
    """Who signs the JWTs of clients."""

    issuer: f.PlainText = Field(description="The `iss` claim, exactly.")
    audience: f.Words = Field(description="Values of the `aud` claim that mean this gateway; one must be there.")
    jwks_url: f.Url | None = Field(None, description="Where its public keys are (JWKS, RFC 7517).")
    jwks_file: fc.JwksFile | None = Field(None, description="Instead of `jwks_url`: a file with them.")
    algorithms: fc.Algorithms = Field(
        ("RS256", "ES256"), description="Signature algorithms that are accepted; only asymmetric ones."
    )
    leeway: f.Duration = Field(30.0, description="How far its clock and ours may differ.")
    refresh: f.SomeDuration = Field(300.0, description="The keys are fetched again after this time.")
    max_age: f.SomeDuration = Field(
        86400.0, description="Keys that could not be fetched again for so long are believed no more; then 503."
    )
    routes_claim: f.PlainText | None = Field(
        None, description="A claim that narrows a token to the routes that it names: a list, or one text with spaces."
    )
    ca_file: f.ReadableFile | None = Field(None, description="PEM file of the authorities to trust for `jwks_url`.")

    @model_validator(mode="after")
    def keys_come_from_somewhere(self) -> Self:
        """One source of keys."""
        if (self.jwks_url is None) == (self.jwks_file is None):
            refuse("needs exactly one of `jwks_url` and `jwks_file`")
        if not self.audience or not self.algorithms:
            refuse("`audience` and `algorithms` cannot be empty")
        if self.refresh > self.max_age:
            refuse("`refresh` is longer than `max_age`: keys would grow too old in between")
        return self
