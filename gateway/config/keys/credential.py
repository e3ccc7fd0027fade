"""The keys of a credential: a token recipe (a profile's, or spelt out) with its secrets, or a static key."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gateway.config.keys.egress import EgressSection
from gateway.config.keys.grant import GrantSection, RequestSection
from gateway.config.keys.numbers import Duration, Flag, PositiveDuration
from gateway.config.keys.section import Section, refuse
from gateway.config.keys.text import Name, Overlay, SecretValue


class StaticSection(Section):
    """A key that never expires."""

    token: SecretValue = Field(description="The key.")


class CredentialSection(Section):
    """A token recipe and its secrets: a `profile` and its parameters, a `grant`, or a `static` key."""

    profile: Name | None = Field(None, description="A recipe shipped with Gatepass; its parameters are set beside it.")
    next: Overlay | None = Field(
        None,
        description="During a rotation: the keys that will change, with their new values, as `{client_secret: …}`; "
        "tried when the vendor refuses the current ones. Empty values mean no rotation.",
    )
    static: StaticSection | None = Field(None, description="A key that never expires, instead of a grant.")
    grant: GrantSection | None = Field(None, description="The recipe; with a profile, only what differs from it.")
    keep_warm: Literal["always", "used", "never"] = Field(
        "always",
        description="`always` fetches at the start and renews before expiry; `used` renews before expiry after the "
        "first use; `never` fetches on demand.",
    )
    min_interval: Duration = Field(0.0, description="Shortest time between two token requests, whatever their cause.")
    timeout: PositiveDuration = Field(10.0, description="Longest time for one token request.")
    single_active_token: Flag = Field(
        default=False, description="The vendor invalidates the old token when it issues a new one."
    )
    store_outage: Literal["open", "closed"] = Field(
        "open",
        description="While the shared store is away: `open` lets each instance fetch its own token, `closed` none.",
    )
    egress: EgressSection | None = Field(
        None, description="The HTTP proxy through which its endpoints are reached, instead of the general `egress`."
    )
    revoke_on_shutdown: Flag = Field(default=False, description="Revoke the token when the gateway stops.")
    revoke: RequestSection | None = Field(
        None,
        description="The request that revokes a token (RFC 7009, or the vendor's way); `{token}` is replaced by it.",
    )
    probe: RequestSection | None = Field(
        None,
        description="A harmless request that shows whether a token works, for `check --probe`; `{token}` likewise.",
    )

    @model_validator(mode="after")
    def one_recipe(self) -> Self:
        """A credential is either fetched or static, never both."""
        if self.static is not None and self.grant is not None:
            refuse("has both `static` and a grant (its own or a profile's); keep one")
        if self.static is None and self.grant is None:
            refuse("needs one of `profile`, `grant` and `static`")
        if self.revoke_on_shutdown and self.revoke is None:
            refuse("`revoke_on_shutdown` needs `revoke`: the request that revokes the token")
        return self
