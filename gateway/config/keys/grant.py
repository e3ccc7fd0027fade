"""The keys of a token recipe: how a token is requested and how the answer is read.

Checks that need more than one section are in `checks.py`.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gateway.config.keys.files import ReadableFile
from gateway.config.keys.http import Headers, Url
from gateway.config.keys.numbers import Flag, PositiveDuration, Statuses
from gateway.config.keys.section import Section, refuse, revealed
from gateway.config.keys.text import DottedPath, Fields, JsonValue, PlainText, Scalars, SecretValue, TextValue
from gateway.tls import check_pair


class BasicSection(Section):
    """HTTP Basic client authentication (RFC 7617)."""

    username: TextValue = Field(description="User name, usually the client id.")
    password: SecretValue = Field(description="Password, usually the client secret.")
    encode: Literal["form", "raw"] = Field(
        "form",
        description="`form` percent-encodes both before base64 (RFC 6749 §2.3.1); `raw` does not (RFC 7617), for "
        "vendors whose document says so.",
    )

    @model_validator(mode="after")
    def raw_has_no_colon(self) -> Self:
        """Refuse a colon in the user name, because it would end the user name (RFC 7617 §2)."""
        name = revealed(self.username)
        if self.encode == "raw" and isinstance(name, str) and ":" in name:
            refuse("username holds a colon, which `encode: raw` cannot send; use `encode: form`")
        return self


class AssertionSection(Section):
    """`private_key_jwt` client authentication (RFC 7523): a JWT signed anew for every attempt."""

    key: SecretValue = Field(description="Private key, PEM; usually `${file:/run/secrets/key.pem}`.")
    algorithm: Literal["RS256", "PS256", "ES256", "EdDSA"] = Field(description="Signature algorithm.")
    issuer: PlainText = Field(description="The `iss` claim: the client id.")
    audience: PlainText = Field(description="The `aud` claim: the token endpoint or the issuer, as the vendor says.")
    subject: PlainText | None = Field(None, description="The `sub` claim; the issuer unless set.")
    key_id: PlainText | None = Field(None, description="The `kid` header.")
    lifetime: PositiveDuration = Field(60.0, description="From `iat` to `exp`.")

    @model_validator(mode="after")
    def key_can_sign(self) -> Self:
        """Load the key now, so that a bad one is reported before the first fetch."""
        import jwt  # noqa: PLC0415 - a fifth of a second of start-up that few configurations need

        try:
            key = jwt.get_algorithm_by_name(self.algorithm).prepare_key(self.key.reveal())
        except (ValueError, TypeError, jwt.InvalidKeyError):
            key = None
        if not hasattr(key, "sign"):
            refuse(f"key is no private key (PEM, without passphrase) for {self.algorithm}")
        return self


class ClientCertificateSection(Section):
    """A client certificate for mutual TLS (RFC 8705)."""

    certificate: ReadableFile = Field(description="Certificate chain, PEM file.")
    key: ReadableFile = Field(description="Its private key, PEM file without passphrase.")

    @model_validator(mode="after")
    def belongs_together(self) -> Self:
        """Load the pair now, so that a bad one is reported before the first connection."""
        try:
            check_pair(self.certificate, self.key)
        except (OSError, ValueError):
            refuse("certificate and key are not a pair of PEM files")
        return self


class RequestSection(Section):
    """A request to a token endpoint. At most one of `form` and `json`; neither sends an empty body."""

    method: Literal["POST", "GET", "PUT"] = Field("POST", description="HTTP method.")
    url: Url = Field(description="URL of the request; `http://` only for hosts that are not public.")
    query: Fields = Field((), description="Query parameters, form-encoded; a list repeats the name.")
    headers: Headers = Field((), description="Header fields.")
    basic: BasicSection | None = Field(None, description="HTTP Basic client authentication.")
    form: Fields | None = Field(None, description="Body as `application/x-www-form-urlencoded`, in this order.")
    json_: JsonValue = Field(None, alias="json", description="Body as JSON, sent as written here.")
    assertion: AssertionSection | None = Field(None, description="`private_key_jwt` client authentication (RFC 7523).")
    client_certificate: ClientCertificateSection | None = Field(None, description="Mutual TLS (RFC 8705).")
    ca_file: ReadableFile | None = Field(
        None, description="PEM file of the authorities to trust here instead of the system's."
    )

    @model_validator(mode="after")
    def one_body_one_authorization(self) -> Self:
        """Refuse combinations that cannot be sent."""
        if self.form is not None and self.json_ is not None:
            refuse("has both `form` and `json`; set the one that you do not want to null")
        if self.method == "GET" and (self.form is not None or self.json_ is not None):
            refuse("a GET has no body: use `query`, or `method: POST`")
        if self.assertion is not None and self.form is None:
            refuse("`assertion` is sent in a form (RFC 7523 §2.2): add `form: {grant_type: client_credentials}`")
        if self.basic is not None and any(name.lower() == "authorization" for name, _ in self.headers):
            refuse("has both `basic` and a header Authorization")
        if not self.url.startswith("https:") and self.client_certificate is not None:
            refuse("`client_certificate` needs an https:// URL")
        return self


class ExpiresSection(Section):
    """Where the answer says how long the token is valid: exactly one of `in`, `in_ms`, `at`, `jwt`, `after`."""

    in_: DottedPath | None = Field(None, alias="in", description="Dotted path of the lifetime in seconds.")
    in_ms: DottedPath | None = Field(None, description="Dotted path of the lifetime in milliseconds.")
    at: DottedPath | None = Field(None, description="Dotted path of the expiry time: epoch seconds or ms, or ISO 8601.")
    jwt: Flag = Field(default=False, description="`true`: the token is a JWT, and its `exp` is used.")
    after: PositiveDuration | None = Field(None, description="A fixed lifetime.")
    fallback: PositiveDuration = Field(
        300.0, description="Lifetime when the answer has no usable one and the token is no JWT with `exp`."
    )

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        """Refuse no place and more than one place, because the gateway would have to guess."""
        given = [self.in_, self.in_ms, self.at, self.jwt or None, self.after]
        if sum(value is not None for value in given) != 1:
            refuse("needs exactly one of in, in_ms, at, jwt, after; set the others to null")
        return self


class ResponseSection(Section):
    """How to read the answer of a token endpoint."""

    nullable: ClassVar[frozenset[str]] = frozenset({"token_type"})

    success: Statuses = Field((200,), description="Statuses of an answer that contains a token.")
    token: DottedPath = Field("access_token", description="Dotted path of the token in the JSON answer.")
    expires: ExpiresSection = Field(
        default_factory=lambda: ExpiresSection.model_validate({"in": "expires_in"}),
        description="Where the lifetime is in the answer; default `{in: expires_in}`.",
    )
    token_type: DottedPath | None = Field(
        "token_type",
        description="Dotted path of the token type, which must be `bearer`. `null`: not checked.",
    )
    refused_statuses: Statuses = Field(
        (401,), description="Statuses that mean that our credential is wrong: a permanent failure, not retried."
    )
    refused_errors: Scalars = Field(
        ("invalid_client", "unauthorized_client"),
        description="Values of `error` in the JSON answer that mean the same with any status (RFC 6749 §5.2).",
    )


class GrantSection(Section):
    """A token recipe: the request, and how to read its answer."""

    request: RequestSection = Field(description="The token request.")
    response: ResponseSection = Field(default_factory=ResponseSection.empty, description="How to read the answer.")
