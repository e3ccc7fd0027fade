"""The keys of a route: a path prefix, its upstream, and what is done to requests and answers."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gateway.config.keys.egress import EgressSection
from gateway.config.keys.files import ReadableFile
from gateway.config.keys.grant import ClientCertificateSection
from gateway.config.keys.http import (
    FIELD_VALUE,
    MESSAGE_HEADERS,
    NEVER_INJECTED,
    TOKEN,
    HeaderName,
    HeaderNames,
    Patterns,
    Prefix,
    Templates,
    Url,
)
from gateway.config.keys.money import Currency, Price
from gateway.config.keys.network import HostNames
from gateway.config.keys.numbers import Count, Flag, PositiveDuration, Size, Status
from gateway.config.keys.section import Section, refuse
from gateway.config.keys.text import DottedPath, Name, PlainText, Scalars, Words
from gateway.model import MIB
from gateway.model.http import UNSERVED_METHODS


class InjectionSection(Section):
    """One header in which the gateway sends a token."""

    header: HeaderName = Field("Authorization", description="Name of the header.")
    credential: Name = Field(description="The credential whose token is sent in it.")
    format: PlainText | None = Field(
        None,
        description="Value of the header; `{token}` is replaced by the token. Default: `Bearer {token}` in "
        "Authorization, `{token}` in other headers.",
    )

    @model_validator(mode="after")
    def can_be_sent(self) -> Self:
        """Refuse headers that belong to one connection or to the message itself."""
        if self.header.lower() in NEVER_INJECTED:
            refuse(f"the header {self.header} cannot be injected: it belongs to the connection or to the message")
        if self.format is not None and self.format.count("{token}") != 1:
            refuse("format must hold {token} once")
        if self.format is not None and not FIELD_VALUE.fullmatch(self.format):
            refuse("format must be visible ASCII, with spaces inside")
        return self


class TimeoutSection(Section):
    """Time-outs of requests to the vendor."""

    connect: PositiveDuration = Field(5.0, description="Name resolution, TCP and TLS together.")
    first_byte: PositiveDuration = Field(60.0, description="From the request's last byte to the answer's head.")
    idle: PositiveDuration = Field(
        60.0, description="Longest silence inside a body, in either direction; also for event streams and WebSockets."
    )
    total: PositiveDuration | None = Field(None, description="The whole exchange; default: no limit.")


class PoolSection(Section):
    """Connections to the vendor."""

    size: Count = Field(100, description="Largest number of connections of this route.")
    max_age: PositiveDuration = Field(
        300.0, description="A connection that is older, less a random tenth, is not used for another request."
    )
    wait: PositiveDuration = Field(5.0, description="Longest wait for a free connection; then 503 `upstream_busy`.")
    queue: Count = Field(1000, description="Largest number of waiting requests; one more gets 503 at once.")


class ReplaySection(Section):
    """Which requests may be sent once more after the vendor refused the token."""

    methods: Literal["all", "idempotent", "none"] = Field(
        "all",
        description="Methods that may be sent again. `all` is safe if the vendor checks the token first.",
    )
    up_to: Size = Field(
        16 * MIB, description="Largest request body that is buffered for this; a larger one is not sent again."
    )


class RefusalSignSection(Section):
    """An answer of the vendor that means: this token is no longer valid."""

    status: Status = Field(401, description="Status of the answer.")
    path: DottedPath | None = Field(None, description="Dotted path in its JSON body; needs `values`.")
    values: Scalars = Field(
        (),
        description='Values at `path` that mean a refusal, text, number or boolean: `498` is also `"498"`. A list at '
        "`path` must contain one of them.",
    )

    @model_validator(mode="after")
    def path_and_values(self) -> Self:
        """Refuse one without the other."""
        if (self.path is None) != (not self.values):
            refuse("`path` and `values` go together")
        return self


class PriceSection(Section):
    """What the vendor charges: for `gatepass usage`, and for budgets in money."""

    per_call: Price = Field(description="Amount for each call that is answered with 101, 2xx or 3xx.")
    currency: Currency = Field(description="Currency of the amount (ISO 4217), as `EUR`.")


class RouteSection(Section):
    """A path prefix of the data port, and what is done to its requests."""

    nullable: ClassVar[frozenset[str]] = frozenset({"max_body"})

    prefix: Prefix | None = Field(
        None, description="Path prefix; default `/<name of the route>`. The longest matching prefix wins."
    )
    hosts: HostNames = Field(
        (),
        description="Host names that select this route for any path, as `orders.gatepass.internal`; the prefix is then "
        "optional. The names must resolve to the data port.",
    )
    upstream: Url = Field(description="URL of the vendor's API; its path is put before the path of each request.")
    credential: Name | None = Field(
        None, description="The credential whose token is injected; its profile sets defaults for the route."
    )
    header: HeaderName | None = Field(None, description="With `credential`: the header; default Authorization.")
    format: PlainText | None = Field(
        None, description="With `credential`: the value of the header, as `inject.format`."
    )
    inject: tuple[InjectionSection, ...] | None = Field(
        None, strict=False, description="Instead of `credential`: several headers, each from a credential."
    )
    authorization: Literal["inject", "pass"] = Field(
        "inject",
        description="`pass`: the app's own Authorization is sent to the vendor and is not read as a gateway key.",
    )
    allow: Patterns = Field(
        (), description="Allowed paths below the prefix; default: all. `*` matches within a segment, `**` anything."
    )
    deny: Patterns = Field(
        (), description="Denied paths; wins over `allow`, and is added to the profile's. `null` removes the profile's."
    )
    methods: Words | None = Field(None, description="Allowed methods; default: all.")
    timeouts: TimeoutSection = Field(default_factory=TimeoutSection.empty, description="Time-outs.")
    max_body: Size | None = Field(32 * MIB, description="Largest request body; `null`: no limit.")
    pool: PoolSection = Field(default_factory=PoolSection.empty, description="Connections to the vendor.")
    replay: ReplaySection = Field(
        default_factory=ReplaySection.empty, description="Sending again after a refused token."
    )
    refusal_signs: tuple[RefusalSignSection, ...] | None = Field(
        None, strict=False, description="Answers that mean that the token is no longer valid; default: status 401."
    )
    strip_headers: HeaderNames = Field((), description="Request headers that are not sent to the vendor.")
    pass_headers: HeaderNames = Field(
        (), description="Request headers that are sent although they are stripped by default: cookie, referer, origin …"
    )
    origin: PlainText | None = Field(None, description="A fixed value of Origin for this vendor.")
    forwarded: Literal["off", "x-forwarded", "rfc7239"] = Field(
        "off", description="Which header tells the vendor the app's address."
    )
    websocket: Flag = Field(default=True, description="Whether WebSockets are allowed.")
    echo_guard: Flag = Field(
        default=False,
        description="Mask the token in the vendor's header fields, in the reason and in the first 64 KiB of a body.",
    )
    app_tokens: Flag = Field(
        default=True,
        description="Whether apps' token requests, at the vendor's token path, get a pass of the gateway.",
    )
    price: PriceSection | None = Field(None, description="What the vendor charges for a billed call.")
    paths: Templates = Field(
        (), description="Path templates, as `/api/v1/info/{id}`: the matching one is logged instead of the path."
    )
    ca_file: ReadableFile | None = Field(None, description="PEM file of the authorities to trust for this vendor.")
    egress: EgressSection | None = Field(
        None, description="The HTTP proxy through which this vendor is reached, instead of the general `egress`."
    )
    client_certificate: ClientCertificateSection | None = Field(None, description="Mutual TLS with the vendor's API.")

    @model_validator(mode="after")
    def one_way_to_inject(self) -> Self:
        """Require exactly one of `credential` and `inject`; a route without a token is refused."""
        if (self.credential is None) == (self.inject is None):
            refuse("needs exactly one of `credential` and `inject`")
        if self.inject is not None and not self.inject:
            refuse("`inject` is empty: every route needs a token")
        if self.inject is not None and (self.header or self.format):
            refuse("`header` and `format` go with `credential`; inside `inject` each entry has its own")
        if self.credential is not None:
            InjectionSection(credential=self.credential, header=self.header or "Authorization", format=self.format)
        return self

    @model_validator(mode="after")
    def certificate_needs_tls(self) -> Self:
        """Refuse a client certificate without TLS."""
        if self.client_certificate is not None and not self.upstream.startswith("https:"):
            refuse("`client_certificate` needs an https:// upstream")
        return self

    @model_validator(mode="after")
    def headers_agree(self) -> Self:
        """Refuse a header that two keys would set."""
        names = [injection.header.lower() for injection in self.inject or ()] or [
            (self.header or "authorization").lower()
        ]
        if len(set(names)) != len(names):
            refuse("`inject` writes one header twice")
        if self.authorization == "pass" and "authorization" in names:
            refuse("`authorization: pass` and a token in Authorization exclude each other; name another `header`")
        passed = {name.lower() for name in self.pass_headers}
        if taken := passed & (MESSAGE_HEADERS | {"authorization", "x-gatepass-key"}):
            refuse(f"`pass_headers` cannot name {min(taken)}" + AUTHORIZATION_HINT * ("authorization" in taken))
        if passed & {name.lower() for name in self.strip_headers}:
            refuse("`strip_headers` and `pass_headers` name the same header")
        if self.origin is not None and (not FIELD_VALUE.fullmatch(self.origin) or "origin" in passed):
            refuse("`origin` must be one visible ASCII value, and not be in `pass_headers` too")
        return self

    @model_validator(mode="after")
    def methods_are_forwardable(self) -> Self:
        """Refuse CONNECT, which would open a tunnel, and TRACE, which would return the token."""
        for method in self.methods or ():
            if not TOKEN.fullmatch(method) or method != method.upper():
                refuse("`methods` takes HTTP methods in capitals: [GET, POST]")
            if method in UNSERVED_METHODS:
                refuse(f"`methods` cannot name {method}")
        return self


AUTHORIZATION_HINT = "; use `authorization: pass`"
