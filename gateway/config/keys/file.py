"""The documented keys of the file as a whole and of routes. Others: `schema_credential.py`, `schema_clients.py`.

Each field's description is its line in `docs/configuration.md` and in the JSON Schema.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from gateway.config.keys import kinds as f
from gateway.config.keys import kinds_clients as fc
from gateway.config.keys import net
from gateway.config.keys.clients import ClientKeys, IssuerKeys  # noqa: TC001 - pydantic reads them at run time
from gateway.config.keys.credential import ClientCertificateKeys, CredentialKeys, Keys
from gateway.config.keys.values import refuse
from gateway.model import KIB, MIB, Address
from gateway.model.http import UNSERVED_METHODS
from gateway.tls import check_authorities


class InjectionKeys(Keys):
    """One header that the gateway writes."""

    header: f.HeaderName = Field("Authorization", description="Name of the header.")
    credential: f.Name = Field(description="Whose token it carries.")
    format: f.PlainText | None = Field(
        None,
        description="Value of the header; `{token}` stands for the token. Unless set, `Bearer {token}` in "
        "Authorization and the bare `{token}` elsewhere.",
    )

    @model_validator(mode="after")
    def can_be_sent(self) -> Self:
        """A header that belongs to one hop or to the message itself is not ours to set."""
        if self.header.lower() in net.NEVER_INJECTED:
            refuse(f"the header {self.header} cannot be injected: it belongs to the connection or to the message")
        if self.format is not None and self.format.count("{token}") != 1:
            refuse("format must hold {token} once")
        if self.format is not None and not net.FIELD_VALUE.fullmatch(self.format):
            refuse("format must be visible ASCII, with spaces inside")
        return self


class TimeoutKeys(Keys):
    """How long a vendor may take."""

    connect: f.SomeDuration = Field(5.0, description="Name resolution, TCP and TLS together.")
    first_byte: f.SomeDuration = Field(60.0, description="From the request's last byte to the answer's head.")
    idle: f.SomeDuration = Field(
        60.0, description="Longest silence inside a body, either way; also of an event stream or a WebSocket."
    )
    total: f.SomeDuration | None = Field(None, description="The whole exchange; unlimited unless set.")


class PoolKeys(Keys):
    """Connections to the vendor."""

    size: f.Count = Field(100, description="Most connections of this route at a time.")
    max_age: f.SomeDuration = Field(
        300.0, description="A connection that is older, less a random tenth, is not used for another request."
    )
    wait: f.SomeDuration = Field(5.0, description="Longest wait for a free one; then 503 `upstream_busy`.")
    queue: f.Count = Field(1000, description="Requests that wait at most; one more gets its 503 at once.")


class ReplayKeys(Keys):
    """Which requests may be sent once more after the vendor refused the token."""

    methods: Literal["all", "idempotent", "none"] = Field(
        "all", description="A refused token means that nothing was done, so `all` is safe where vendors check it first."
    )
    up_to: f.Size = Field(16 * MIB, description="Bytes of a request body kept for it; a longer one is not sent again.")


class RefusalSignKeys(Keys):
    """An answer that means "this token is no longer good"."""

    status: f.Status = Field(401, description="Its status.")
    path: f.DottedPath | None = Field(None, description="Dotted path in its JSON body; with `values`.")
    values: f.Words = Field((), description="Texts at `path` that mean it; a list there counts if it holds one.")

    @model_validator(mode="after")
    def path_and_values(self) -> Self:
        """One without the other says nothing."""
        if (self.path is None) != (not self.values):
            refuse("`path` and `values` go together")
        return self


class RouteKeys(Keys):
    """A prefix of the data port and everything that is done to what arrives under it."""

    nullable: ClassVar[frozenset[str]] = frozenset({"max_body"})

    prefix: f.Prefix | None = Field(None, description="Path prefix; `/<name of the route>` unless set. Longest wins.")
    upstream: f.Url = Field(description="The vendor's API; a path in it stands before every outbound path.")
    credential: f.Name | None = Field(None, description="Whose token is injected; its profile fills in the rest.")
    header: f.HeaderName | None = Field(None, description="With `credential`: the header; Authorization unless set.")
    format: f.PlainText | None = Field(None, description="With `credential`: its value, as `inject.format`.")
    inject: tuple[InjectionKeys, ...] | None = Field(
        None, strict=False, description="Instead of `credential`: several headers, each from a credential."
    )
    authorization: Literal["inject", "pass"] = Field(
        "inject", description="`pass`: the app's own Authorization goes to the vendor, and is no gateway key."
    )
    allow: f.Patterns = Field(
        (), description="Paths below the prefix that may be used; all unless set. `*` within a segment, `**` anything."
    )
    deny: f.Patterns = Field(
        (), description="Paths that may not; wins over `allow`, adds to the profile's. `null` takes the profile's back."
    )
    methods: f.Words | None = Field(None, description="Methods that may be used; all unless set.")
    timeouts: TimeoutKeys = Field(default_factory=TimeoutKeys.empty, description="How long the vendor may take.")
    max_body: f.Size | None = Field(32 * MIB, description="Largest request body; `null`: no limit.")
    pool: PoolKeys = Field(default_factory=PoolKeys.empty, description="Connections to the vendor.")
    replay: ReplayKeys = Field(default_factory=ReplayKeys.empty, description="Sending again after a refused token.")
    refusal_signs: tuple[RefusalSignKeys, ...] | None = Field(
        None, strict=False, description="What says that a token is no longer good; a plain 401 unless set."
    )
    strip_headers: f.HeaderNames = Field((), description="Request headers that do not reach the vendor.")
    pass_headers: f.HeaderNames = Field(
        (), description="Of the headers stripped by default, those that do: cookie, referer, origin …"
    )
    origin: f.PlainText | None = Field(None, description="A fixed Origin for this vendor.")
    forwarded: Literal["off", "x-forwarded", "rfc7239"] = Field("off", description="Tell the vendor who the app is.")
    websocket: f.Flag = Field(default=True, description="Whether a WebSocket may be opened.")
    echo_guard: f.Flag = Field(
        default=False,
        description="Mask the token in the vendor's fields and in the first 64 KiB of a text body.",
    )
    paths: fc.Templates = Field(
        (), description="Path templates, as `/api/v1/info/{id}`: the one that fits is logged in the path's place."
    )
    ca_file: f.ReadableFile | None = Field(None, description="PEM file of the authorities to trust for this vendor.")
    client_certificate: ClientCertificateKeys | None = Field(None, description="Mutual TLS with the vendor's API.")

    @model_validator(mode="after")
    def one_way_to_inject(self) -> Self:
        """Fail closed: a route without a token is no route of this gateway."""
        if (self.credential is None) == (self.inject is None):
            refuse("needs exactly one of `credential` and `inject`")
        if self.inject is not None and not self.inject:
            refuse("`inject` is empty: every route carries a token")
        if self.inject is not None and (self.header or self.format):
            refuse("`header` and `format` go with `credential`; inside `inject` each entry has its own")
        if self.credential is not None:
            InjectionKeys(credential=self.credential, header=self.header or "Authorization", format=self.format)
        return self

    @model_validator(mode="after")
    def certificate_needs_tls(self) -> Self:
        """A certificate is shown inside a TLS handshake or not at all."""
        if self.client_certificate is not None and not self.upstream.startswith("https:"):
            refuse("`client_certificate` needs an https:// upstream")
        return self

    @model_validator(mode="after")
    def headers_agree(self) -> Self:
        """Each header has one author."""
        names = [injection.header.lower() for injection in self.inject or ()] or [
            (self.header or "authorization").lower()
        ]
        if len(set(names)) != len(names):
            refuse("`inject` writes one header twice")
        if self.authorization == "pass" and "authorization" in names:
            refuse("`authorization: pass` and a token in Authorization exclude each other; name another `header`")
        passed = {name.lower() for name in self.pass_headers}
        if taken := passed & (net.MESSAGE_HEADERS | {"authorization", "x-gatepass-key"}):
            refuse(f"`pass_headers` cannot name {min(taken)}" + AUTHORIZATION_HINT * ("authorization" in taken))
        if passed & {name.lower() for name in self.strip_headers}:
            refuse("`strip_headers` and `pass_headers` name the same header")
        if self.origin is not None and (not net.FIELD_VALUE.fullmatch(self.origin) or "origin" in passed):
            refuse("`origin` must be one visible ASCII value, and not be in `pass_headers` too")
        return self

    @model_validator(mode="after")
    def methods_are_forwardable(self) -> Self:
        """CONNECT would make a tunnel of us, TRACE would echo the token."""
        for method in self.methods or ():
            if not net.TOKEN.fullmatch(method) or method != method.upper():
                refuse("`methods` takes HTTP methods in capitals: [GET, POST]")
            if method in UNSERVED_METHODS:
                refuse(f"`methods` cannot name {method}")
        return self


AUTHORIZATION_HINT = "; use `authorization: pass`"


class TlsKeys(ClientCertificateKeys):
    """TLS on the data port: 1.2 or newer."""

    client_ca: f.ReadableFile | None = Field(
        None, description="PEM file of authorities: an app must then show a certificate of theirs."
    )

    @model_validator(mode="after")
    def authorities_can_be_read(self) -> Self:
        """Try the file now rather than at the first connection."""
        try:
            if self.client_ca is not None:
                check_authorities(self.client_ca)
        except (OSError, ValueError):
            refuse("client_ca is no PEM file of certificates")
        return self


class LimitKeys(Keys):
    """Bounds of the data port."""

    connections: f.Count = Field(10_000, description="Most connections of apps at a time.")
    connections_per_address: f.Count = Field(
        5_000, description="Most of them from one address; a proxy in front of the gateway is one address."
    )
    exchanges: f.Count = Field(10_000, description="Most requests in flight at a time; then 503 `overloaded`.")
    head_bytes: f.Size = Field(64 * KIB, description="Request line and all header fields together.")
    field_bytes: f.Size = Field(8 * KIB, description="One header field.")
    fields: f.Count = Field(100, description="Number of header fields.")
    header_timeout: f.SomeDuration = Field(10.0, description="For an app to send a request's head.")
    keepalive_timeout: f.SomeDuration = Field(75.0, description="An idle connection of an app is kept as long.")
    body_timeout: f.SomeDuration = Field(60.0, description="Longest silence of an app inside its request body.")
    body_rate: f.Size = Field(
        100, description="Bytes per second that a request body must bring once `body_timeout` was waited; 0: any pace."
    )


class DrainKeys(Keys):
    """Going down."""

    grace: f.Duration = Field(0.0, description="Business as usual with `/readyz` failing, so that balancers move on.")
    timeout: f.Duration = Field(30.0, description="After that: for requests that are still running.")


class LogKeys(Keys):
    """What is written to standard output."""

    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: for people on a terminal, JSON lines elsewhere."
    )
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is written.")
    access: f.Flag = Field(default=True, description="One line per request.")
    buffer: f.Size = Field(8 * MIB, description="Lines that wait for a slow standard output; beyond it they are lost.")
    sample: f.Share = Field(
        1.0, description="Share of the requests answered with 2xx that get a line; all others always do."
    )
    loggers: f.Levels = Field(
        (), description="Levels of single loggers, and of those below: `{gatepass.tokens: debug}`."
    )


class TracingKeys(Keys):
    """Spans for a collector of traces; needs `pip install 'gatepass[tracing]'`."""

    otlp: f.Url = Field(description="The collector, OTLP over HTTP; without a path, `/v1/traces` is asked.")
    sample: f.Share = Field(
        1.0,
        description="Share of the requests without a `traceparent` that are recorded; with one, its caller decides.",
    )
    service: f.PlainText = Field("gatepass", description="`service.name` of the spans.")


class ResolverKeys(Keys):
    """Resolution of the names of vendors, token endpoints and issuers."""

    stale: f.Duration = Field(
        3600.0,
        description="How long a name's last known addresses are used while look-ups fail or hang; 0: not at all.",
    )


class FileKeys(Keys):
    """The configuration as a whole."""

    nullable: ClassVar[frozenset[str]] = frozenset({"admin"})

    listen: f.ListenAddress = Field(
        default_factory=lambda: Address("127.0.0.1", 8080),
        description="The data port, for apps. Beyond loopback it wants `clients`.",
    )
    admin: f.ListenAddress | None = Field(
        default_factory=lambda: Address("127.0.0.1", 9090),
        description="The admin port: health, metrics, status. `null`: none.",
    )
    tls: TlsKeys | None = Field(None, description="TLS on the data port, with files that are read again on change.")
    access: Literal["clients", "open"] = Field(
        "clients", description="Who may call: known `clients` (on loopback anyone while none is known), or anyone."
    )
    clients: tuple[ClientKeys, ...] = Field((), strict=False, description="The internal apps.")
    issuers: dict[f.Name, IssuerKeys] = Field(default_factory=dict, description="By name: who signs clients' JWTs.")
    trusted_proxies: fc.NetworkList = Field(
        (), description="Networks of proxies in front, as `10.0.0.0/8`: their `X-Forwarded-For` says who calls."
    )
    allow_addresses: fc.NetworkList = Field(
        (),
        description="Networks that a vendor's or an issuer's name may lead to though they are loopback, link-local "
        "or a cloud's metadata service.",
    )
    resolver: ResolverKeys = Field(
        default_factory=ResolverKeys.empty,
        description="Resolution of the names of vendors, token endpoints and issuers.",
    )
    admin_keys_sha256: f.Sha256s = Field(
        (), description="SHA-256 of the keys for changes over the admin port; none: nothing can be changed there."
    )
    admin_hosts: f.HostNames = Field(
        (),
        description="Names that clients of the admin port may use as `Host`, as `gatepass`. Addresses and `localhost` "
        "always may.",
    )
    state_file: f.PlainText | None = Field(
        None, description="File in which the counts of budgets outlive a restart; in memory only unless set."
    )
    credentials: dict[f.Name, CredentialKeys] = Field(default_factory=dict, description="By name.")
    routes: dict[f.Name, RouteKeys] = Field(default_factory=dict, description="By name.")
    replay_budget: f.Size = Field(
        64 * MIB, description="All bodies kept for replay together; beyond it an exchange is not replayable."
    )
    token_timeout: f.SomeDuration = Field(
        5.0, description="Longest wait of a request for a token, when there is none in memory."
    )
    limits: LimitKeys = Field(default_factory=LimitKeys.empty, description="Bounds of the data port.")
    drain: DrainKeys = Field(default_factory=DrainKeys.empty, description="Going down.")
    logs: LogKeys = Field(default_factory=LogKeys.empty, description="What is written to standard output.")
    tracing: TracingKeys | None = Field(None, description="Where spans go; no tracing unless set.")
