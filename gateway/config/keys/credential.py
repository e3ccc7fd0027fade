"""The documented keys of a credential: how a token is asked for, read, kept and given back.

Each field's description is its line in `docs/configuration.md` and in the JSON Schema. Strict: no unknown key, no
guessing between types. Cross-checks that need more than one credential live in `checks.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.config.keys import kinds as f  # noqa: TC001 - pydantic reads the annotations at run time
from gateway.config.keys.values import opened, refuse
from gateway.tls import check_pair


class Keys(BaseModel):
    """A mapping of documented keys. `null` stands for "not set", except at the keys in `nullable`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, defer_build=True)
    nullable: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def empty(cls) -> Self:
        """Every key at its default."""
        return cls.model_validate({})

    @model_validator(mode="before")
    @classmethod
    def null_is_not_set(cls, data: Any) -> Any:
        """Drop known keys that are null, so that a later file or the user can take a value back."""
        if not isinstance(data, dict):
            return data
        known = {field.alias or name: field.annotation for name, field in cls.model_fields.items()}
        return {
            key: opened(value) if get_origin(known.get(key)) is Literal else value
            for key, value in data.items()
            if value is not None or key in cls.nullable or key not in known
        }


class BasicKeys(Keys):
    """HTTP Basic client authentication."""

    username: f.TextValue = Field(description="User name, as a rule the client id.")
    password: f.SecretValue = Field(description="Password, as a rule the client secret.")
    encode: Literal["form", "raw"] = Field(
        "form",
        description="`form` percent-encodes both before base64 (RFC 6749 §2.3.1); `raw` does not (RFC 7617), for "
        "vendors whose document says so.",
    )

    @model_validator(mode="after")
    def raw_has_no_colon(self) -> Self:
        """RFC 7617 §2: a user name with a colon cannot be told from its password."""
        name = opened(self.username)
        if self.encode == "raw" and isinstance(name, str) and ":" in name:
            refuse("username holds a colon, which `encode: raw` cannot carry; use `encode: form`")
        return self


class AssertionKeys(Keys):
    """`private_key_jwt` client authentication (RFC 7523): a fresh JWT, signed for every attempt."""

    key: f.SecretValue = Field(description="Private key, PEM; as a rule `${file:/run/secrets/key.pem}`.")
    algorithm: Literal["RS256", "PS256", "ES256", "EdDSA"] = Field(description="Signature algorithm.")
    issuer: f.PlainText = Field(description="The `iss` claim: the client id.")
    audience: f.PlainText = Field(description="The `aud` claim: the token endpoint or the issuer, as the vendor says.")
    subject: f.PlainText | None = Field(None, description="The `sub` claim; the issuer unless set.")
    key_id: f.PlainText | None = Field(None, description="The `kid` header.")
    lifetime: f.SomeDuration = Field(60.0, description="From `iat` to `exp`.")

    @model_validator(mode="after")
    def key_can_sign(self) -> Self:
        """Try the key now rather than at the first fetch."""
        import jwt  # noqa: PLC0415 - a fifth of a second of start-up that few configurations need

        try:
            key = jwt.get_algorithm_by_name(self.algorithm).prepare_key(self.key.reveal())
        except (ValueError, TypeError, jwt.InvalidKeyError):
            key = None
        if not hasattr(key, "sign"):
            refuse(f"key is no private key (PEM, without passphrase) for {self.algorithm}")
        return self


class ClientCertificateKeys(Keys):
    """A client certificate for mutual TLS (RFC 8705)."""

    certificate: f.ReadableFile = Field(description="Certificate chain, PEM file.")
    key: f.ReadableFile = Field(description="Its private key, PEM file without passphrase.")

    @model_validator(mode="after")
    def belongs_together(self) -> Self:
        """Try the pair now rather than at the first connection."""
        try:
            check_pair(self.certificate, self.key)
        except (OSError, ValueError):
            refuse("certificate and key are no pair of PEM files")
        return self


class RequestKeys(Keys):
    """A request to a token endpoint. At most one of `form` and `json`; neither sends an empty body."""

    method: Literal["POST", "GET", "PUT"] = Field("POST", description="HTTP method.")
    url: f.Url = Field(description="Where the request goes; `http://` only to hosts that are not public.")
    query: f.Fields = Field((), description="Query parameters, form-encoded; a list repeats the name.")
    headers: f.Headers = Field((), description="Header fields.")
    basic: BasicKeys | None = Field(None, description="HTTP Basic client authentication.")
    form: f.Fields | None = Field(None, description="Body as `application/x-www-form-urlencoded`, in this order.")
    json_: f.JsonValue = Field(None, alias="json", description="Body as JSON; what stands here is what is sent.")
    assertion: AssertionKeys | None = Field(None, description="`private_key_jwt` client authentication (RFC 7523).")
    client_certificate: ClientCertificateKeys | None = Field(None, description="Mutual TLS (RFC 8705).")
    ca_file: f.ReadableFile | None = Field(
        None, description="PEM file of the authorities to trust here instead of the system's."
    )

    @model_validator(mode="after")
    def one_body_one_authorization(self) -> Self:
        """Contradictions that no vendor can mean."""
        if self.form is not None and self.json_ is not None:
            refuse("has both `form` and `json`; write null at the one that you do not want")
        if self.method == "GET" and (self.form is not None or self.json_ is not None):
            refuse("a GET has no body: use `query`, or `method: POST`")
        if self.assertion is not None and self.form is None:
            refuse("`assertion` travels in a form (RFC 7523 §2.2): add `form: {grant_type: client_credentials}`")
        if self.basic is not None and any(name.lower() == "authorization" for name, _ in self.headers):
            refuse("has both `basic` and a header Authorization")
        if not self.url.startswith("https:") and self.client_certificate is not None:
            refuse("`client_certificate` needs an https:// URL")
        return self


class ExpiresKeys(Keys):
    """Where a token's life is written: exactly one of `in`, `in_ms`, `at`, `jwt`, `after`."""

    in_: f.DottedPath | None = Field(None, alias="in", description="Dotted path of a life in seconds.")
    in_ms: f.DottedPath | None = Field(None, description="Dotted path of a life in milliseconds.")
    at: f.DottedPath | None = Field(None, description="Dotted path of an instant: epoch seconds or ms, or ISO 8601.")
    jwt: f.Flag = Field(default=False, description="`true`: the token is a JWT, its `exp` says it.")
    after: f.SomeDuration | None = Field(None, description="A fixed life.")
    fallback: f.SomeDuration = Field(
        300.0, description="Life when the answer names none that is usable and the token is no JWT with `exp`."
    )

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        """No guessing: two places for one fact are a mistake."""
        given = [self.in_, self.in_ms, self.at, self.jwt or None, self.after]
        if sum(value is not None for value in given) != 1:
            refuse("wants exactly one of in, in_ms, at, jwt, after; write null at the others")
        return self


class ResponseKeys(Keys):
    """How to read the answer of a token endpoint."""

    nullable: ClassVar[frozenset[str]] = frozenset({"token_type"})

    success: f.Statuses = Field((200,), description="Statuses that carry a token.")
    token: f.DottedPath = Field("access_token", description="Dotted path of the token in the JSON answer.")
    expires: ExpiresKeys = Field(
        default_factory=lambda: ExpiresKeys.model_validate({"in": "expires_in"}),
        description="Where the token's life is written; `{in: expires_in}` unless set.",
    )
    token_type: f.DottedPath | None = Field(
        "token_type",
        description="Dotted path of the token type; anything but `bearer` there is unusable. `null`: not looked at.",
    )
    refused_statuses: f.Statuses = Field(
        (401,), description="Statuses that by themselves say that our credential is wrong: permanent, not retried."
    )
    refused_errors: f.Words = Field(
        ("invalid_client", "unauthorized_client"),
        description="Values of `error` in the JSON answer that say so with any status (RFC 6749 §5.2).",
    )


class GrantKeys(Keys):
    """A token recipe as data."""

    request: RequestKeys = Field(description="How to ask.")
    response: ResponseKeys = Field(default_factory=ResponseKeys.empty, description="How to read.")


class StaticKeys(Keys):
    """A key that never expires."""

    token: f.SecretValue = Field(description="The key.")


class CredentialKeys(Keys):
    """A token recipe and its secrets: a `profile` and its parameters, a `grant`, or a `static` key."""

    profile: f.Name | None = Field(None, description="A recipe shipped with Gatepass; its parameters stand beside it.")
    next: f.Overlay | None = Field(
        None,
        description="During a rotation: the keys that will change, with their new values, as `{client_secret: …}`; "
        "tried when the vendor refuses today's. Empty values count as no rotation.",
    )
    static: StaticKeys | None = Field(None, description="A key that never expires, instead of a grant.")
    grant: GrantKeys | None = Field(None, description="The recipe; with a profile, what differs from it.")
    keep_warm: Literal["always", "used", "never"] = Field(
        "always",
        description="`always` fetches at start and renews ahead; `used` renews ahead once asked for; `never` fetches "
        "on demand.",
    )
    min_interval: f.Duration = Field(0.0, description="Least time between two token requests, whatever their cause.")
    timeout: f.SomeDuration = Field(10.0, description="Longest time for one token request.")
    single_active_token: f.Flag = Field(
        default=False, description="The vendor kills the old token when it issues a new one."
    )
    revoke_on_shutdown: f.Flag = Field(default=False, description="Give the token back when the gateway stops.")
    revoke: RequestKeys | None = Field(
        None, description="How to give a token back (RFC 7009, or the vendor's way); `{token}` stands for it."
    )
    probe: RequestKeys | None = Field(
        None, description="A harmless call that shows whether a token works, for `check --probe`; `{token}` likewise."
    )

    @model_validator(mode="after")
    def one_recipe(self) -> Self:
        """A credential is either fetched or static."""
        if self.static is not None and self.grant is not None:
            refuse("has both `static` and a grant (its own or a profile's); keep one")
        if self.static is None and self.grant is None:
            refuse("needs one of `profile`, `grant` and `static`")
        if self.revoke_on_shutdown and self.revoke is None:
            refuse("`revoke_on_shutdown` needs `revoke`: how to give the token back")
        return self
