"""The keys of an issuer: who signs the JWTs of clients, and where its public keys are."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from gateway.config.keys.files import JwksFile, ReadableFile
from gateway.config.keys.http import QueryUrl
from gateway.config.keys.identity import Algorithms
from gateway.config.keys.numbers import Duration, PositiveDuration
from gateway.config.keys.section import Section, refuse
from gateway.config.keys.text import PlainText, Words


class IssuerSection(Section):
    """An issuer of clients' JWTs."""

    issuer: PlainText = Field(description="The `iss` claim, exactly.")
    audience: Words = Field(description="Values of the `aud` claim that mean this gateway; a JWT must contain one.")
    jwks_url: QueryUrl | None = Field(None, description="URL of its public keys (JWKS, RFC 7517).")
    jwks_file: JwksFile | None = Field(None, description="Instead of `jwks_url`: a file with its public keys.")
    algorithms: Algorithms = Field(
        ("RS256", "ES256"), description="Accepted signature algorithms; only asymmetric ones."
    )
    leeway: Duration = Field(30.0, description="How far its clock and ours may differ.")
    refresh: PositiveDuration = Field(300.0, description="Time after which the keys are fetched again.")
    max_age: PositiveDuration = Field(
        86400.0, description="Keys that could not be fetched again for this long are not used any more; then 503."
    )
    routes_claim: PlainText | None = Field(
        None, description="A claim with the only routes that a token may use: a list, or names separated by spaces."
    )
    ca_file: ReadableFile | None = Field(None, description="PEM file of the authorities to trust for `jwks_url`.")

    @model_validator(mode="after")
    def keys_come_from_somewhere(self) -> Self:
        """Require one source of keys, and times that fit together."""
        if (self.jwks_url is None) == (self.jwks_file is None):
            refuse("needs exactly one of `jwks_url` and `jwks_file`")
        if not self.audience or not self.algorithms:
            refuse("`audience` and `algorithms` cannot be empty")
        if self.refresh > self.max_age:
            refuse("`refresh` is longer than `max_age`: keys would become too old in between")
        return self
