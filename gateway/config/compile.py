"""From valid sections to the nouns of `gateway.model`: the last stage.

Fills in the defaults that depend on other keys (a route's prefix and injected header, the denied token endpoints).
Reads certificate files for their fingerprints and raises OSError if one has disappeared since it was checked.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway import model
from gateway.config.keys.egress import DEFAULT_PORTS, DIRECT
from gateway.config.keys.files import MAX_BYTES
from gateway.config.keys.http import parse_upstream
from gateway.config.read.files import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.config.keys import grant as g
    from gateway.config.keys.client import ClientSection
    from gateway.config.keys.credential import CredentialSection
    from gateway.config.keys.egress import EgressSection
    from gateway.config.keys.file import FileSection
    from gateway.config.keys.issuer import IssuerSection
    from gateway.config.keys.planes import PlanesSection
    from gateway.config.keys.route import RouteSection
    from gateway.config.keys.tls import TlsSection

AUTHORIZATION = "authorization"


def client(keys: ClientSection, prices: Mapping[str, model.Money | None]) -> model.Client:
    """Return the client of a section; `prices` by route turn budgets in money into numbers of calls."""
    hashes = keys.keys_sha256 or ((keys.key_sha256,) if keys.key_sha256 else ())
    return model.Client(
        name=keys.name,
        keys_sha256=(*hashes, *(key.sha256 for key in keys.keys)),
        routes=_names(keys.routes),
        key_ends=tuple((key.sha256, key.expires) for key in keys.keys if key.expires is not None),
        jwt=tuple(model.ClientClaims(each.issuer, each.claims) for each in keys.jwt),
        certificates=keys.certificates,
        addresses=keys.addresses,
        allow=keys.allow,
        deny=keys.deny,
        limits=tuple(
            model.ClientLimit(_names(each.routes), each.rate, each.burst, each.in_flight) for each in keys.limits
        ),
        budgets=tuple(
            model.ClientBudget(
                each.route,
                each.per,
                _calls(each.hard, prices[each.route]),
                _calls(each.soft, prices[each.route]),
                _calls(each.outage_allowance, prices[each.route]) or 0,
            )
            for each in keys.budgets
        ),
    )


def _calls(limit: int | model.Money | None, price: model.Money | None) -> int | None:
    """Return how many calls an amount pays for; a number of calls as it is."""
    if not isinstance(limit, model.Money) or price is None:
        return limit if isinstance(limit, int) else None
    return int(limit.amount / price.amount)


def _names(names: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _issuer(name: str, keys: IssuerSection, way: model.Egress | None) -> model.Issuer:
    return model.Issuer(name=name, egress=way, **keys.model_dump())


def egress(keys: EgressSection | None, general: model.Egress | None = None) -> model.Egress | None:
    """Return the proxy of a section; without a section the general one, and None where the way is direct."""
    if keys is None or keys.proxy == DIRECT:
        return general if keys is None else None
    parts = urlsplit(keys.proxy)
    username = keys.username or ""
    return model.Egress(
        scheme="https" if parts.scheme == "https" else "http",
        host=parts.hostname or "",
        port=parts.port or DEFAULT_PORTS[parts.scheme],
        username=username.reveal() if isinstance(username, model.Secret) else username,
        password=keys.password,
        no_proxy=keys.no_proxy,
        ca_file=keys.ca_file,
        ca_fingerprint=fingerprint(keys.ca_file) if keys.ca_file else "",
    )


# --------------------------------------------------------------------------------------------------------- credentials


def credential(
    name: str, current: CredentialSection, following: CredentialSection | None, general: model.Egress | None = None
) -> model.Credential:
    """Return a credential with one grant, with two during a rotation, or with a static key.

    `general` is the proxy of the whole configuration.
    """
    way = egress(current.egress, general)
    recipes = [keys.grant for keys in (current, following) if keys is not None and keys.grant is not None]
    return model.Credential(
        name=name,
        grants=tuple(_grant(recipe, way) for recipe in recipes),
        static=current.static.token if current.static else None,
        profile=current.profile,
        keep_warm=current.keep_warm,
        min_interval=current.min_interval,
        timeout=current.timeout,
        single_active_token=current.single_active_token,
        store_outage=current.store_outage,
        revoke=request(current.revoke, way) if current.revoke and current.revoke_on_shutdown else None,
        probe=request(current.probe, way) if current.probe else None,
    )


def _grant(keys: g.GrantSection, way: model.Egress | None) -> model.Grant:
    return model.Grant(request(keys.request, way), _response(keys.response))


def request(keys: g.RequestSection, way: model.Egress | None = None) -> model.GrantRequest:
    """Return a request to a token, revoke or probe endpoint."""
    return model.GrantRequest(
        url=keys.url,
        method=keys.method,
        query=keys.query,
        headers=keys.headers,
        basic=model.Basic(keys.basic.username, keys.basic.password, keys.basic.encode) if keys.basic else None,
        form=keys.form,
        json=keys.json_,
        assertion=_assertion(keys.assertion) if keys.assertion else None,
        client_certificate=certificate(keys.client_certificate) if keys.client_certificate else None,
        ca_file=keys.ca_file,
        egress=way,
    )


def _assertion(keys: g.AssertionSection) -> model.Assertion:
    return model.Assertion(
        key=keys.key,
        algorithm=keys.algorithm,
        issuer=keys.issuer,
        audience=keys.audience,
        subject=keys.subject,
        key_id=keys.key_id,
        lifetime=keys.lifetime,
    )


def certificate(keys: g.ClientCertificateSection) -> model.ClientCertificate:
    """Return a client certificate with the hash of its file, so that a renewed one is a different value."""
    fingerprint = hashlib.sha256(read_bytes(keys.certificate, MAX_BYTES)).hexdigest()
    return model.ClientCertificate(keys.certificate, keys.key, fingerprint)


def _response(keys: g.ResponseSection) -> model.GrantResponse:
    return model.GrantResponse(
        expires=_expires(keys.expires),
        token=keys.token,
        success=frozenset(keys.success),
        token_type=keys.token_type,
        fallback=keys.expires.fallback,
        refused_statuses=frozenset(keys.refused_statuses),
        refused_errors=frozenset(keys.refused_errors),
    )


def _expires(keys: g.ExpiresSection) -> model.Expires:
    if keys.in_ is not None:
        return model.Expires("in", keys.in_)
    if keys.in_ms is not None:
        return model.Expires("in_ms", keys.in_ms)
    if keys.at is not None:
        return model.Expires("at", keys.at)
    if keys.after is not None:
        return model.Expires("after", seconds=keys.after)
    return model.Expires("jwt")


# -------------------------------------------------------------------------------------------------------------- routes


def route(
    name: str,
    keys: RouteSection,
    endpoints: Iterable[model.Upstream],
    credentials: Mapping[str, model.Credential],
    general: model.Egress | None = None,
) -> model.Route:
    """Return a route with its injections and all denied paths.

    Args:
        name: of the route.
        keys: its section.
        endpoints: those that no app may reach.
        credentials: all, by name.
        general: the proxy of the whole configuration.
    """
    upstream = _upstream(keys, egress(keys.egress, general))
    injections = _injections(keys)
    served = [credentials[i.credential].grants for i in injections if i.credential in credentials]
    denied = _served_paths(served) if keys.app_tokens else []
    return model.Route(
        name=name,
        prefix=keys.prefix or f"/{name}",
        upstream=upstream,
        injections=injections,
        authorization=keys.authorization,
        allow=keys.allow,
        deny=tuple(dict.fromkeys([*keys.deny, *_endpoint_patterns(upstream, endpoints), *denied])),
        methods=frozenset(keys.methods) if keys.methods is not None else None,
        timeouts=model.Timeouts(**keys.timeouts.model_dump()),
        max_body=keys.max_body,
        pool=model.PoolLimits(**keys.pool.model_dump()),
        replay=model.Replay(**keys.replay.model_dump()),
        refusal_signs=_signs(keys),
        strip_headers=frozenset(header.lower() for header in keys.strip_headers),
        pass_headers=frozenset(header.lower() for header in keys.pass_headers),
        origin=keys.origin,
        forwarded=keys.forwarded,
        websocket=keys.websocket,
        echo_guard=keys.echo_guard,
        hosts=tuple(host.lower().rstrip(".") for host in keys.hosts),
        app_tokens=keys.app_tokens,
        price=model.Money(keys.price.per_call, keys.price.currency) if keys.price is not None else None,
        paths=keys.paths,
    )


def _upstream(keys: RouteSection, way: model.Egress | None) -> model.Upstream:
    url = parse_upstream(keys.upstream)
    return model.Upstream(
        scheme=url.scheme,
        host=url.host,
        port=url.port,
        base_path=url.base_path,
        ca_file=keys.ca_file,
        ca_fingerprint=fingerprint(keys.ca_file) if keys.ca_file else "",
        egress=way,
        client_certificate=certificate(keys.client_certificate) if keys.client_certificate else None,
    )


def _injections(keys: RouteSection) -> tuple[model.Injection, ...]:
    if keys.inject is None:
        return (_injection(keys.header or "Authorization", keys.credential or "", keys.format),)
    return tuple(_injection(each.header, each.credential, each.format) for each in keys.inject)


def _injection(header: str, name: str, form: str | None) -> model.Injection:
    """Return an injection; the default format is `Bearer` in Authorization (RFC 6750 §2.1), else the token alone."""
    return model.Injection(header, name, form or ("Bearer {token}" if header.lower() == AUTHORIZATION else "{token}"))


def _signs(keys: RouteSection) -> tuple[model.RefusalSign, ...]:
    if keys.refusal_signs is None:
        return (model.RefusalSign(),)
    return tuple(
        model.RefusalSign(sign.status, sign.path, frozenset(sign.values), explicit=True) for sign in keys.refusal_signs
    )


def endpoints(credentials: Iterable[CredentialSection]) -> tuple[model.Upstream, ...]:
    """Return where tokens are issued and revoked, whether we revoke any or not: each URL's host and path."""
    requests = [
        asked for each in credentials for asked in (each.grant.request if each.grant else None, each.revoke) if asked
    ]
    return tuple(dict.fromkeys(parse_upstream(asked.url) for asked in requests))


def _endpoint_patterns(upstream: model.Upstream, endpoints: Iterable[model.Upstream]) -> list[str]:
    """Return `deny` patterns for the endpoints that are on the API's host, so that no app reaches them through us.

    An app's request to one of them would carry our token: it could revoke it, or get another one for itself.
    """
    patterns = []
    base = upstream.base_path.lower()
    for endpoint in endpoints:
        path = endpoint.base_path
        inside = path.lower().startswith(base) and path[len(base) : len(base) + 1] in {"", "/"}
        if inside and _same_server(endpoint, upstream):
            below = path[len(base) :]
            # Frameworks that negotiate by a suffix serve `/token.json`, too.
            patterns += [below, f"{below}/**", f"{below}.*"] if below else ["/"]
    return patterns


def _same_server(one: model.Upstream, other: model.Upstream) -> bool:
    """Whether two URLs may lead to one server: the same host and port, or both standard ports."""
    standard = {80, 443}
    ports = {one.port, other.port}
    return one.host.rstrip(".") == other.host.rstrip(".") and (len(ports) == 1 or ports == standard)


DISCOVERY = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")
"""OpenID Connect Discovery 1.0 §4 and RFC 8414 §3: an SDK would send the gateway's key to the token URL named there."""


def _served_paths(grants: Iterable[tuple[model.Grant, ...]]) -> list[str]:
    """Paths that never reach the vendor on a route that answers token requests: every spelling of its token URLs."""
    urls = [parse_upstream(grant.request.url).base_path for each in grants for grant in each]
    paths = [spelling for path in urls if path for spelling in (path, f"{path}/")]
    return paths + [each for path in DISCOVERY for each in (path, f"{path}/**", f"/**{path}")] if paths else []


# ---------------------------------------------------------------------------------------------------------- everything


def _tls(keys: TlsSection) -> model.ServerTLS:
    """Return the data port's TLS with a hash of its files, so that a renewed certificate is a different value."""
    files = [path for path in (keys.certificate, keys.key, keys.client_ca) if path is not None]
    return model.ServerTLS(keys.certificate, keys.key, keys.client_ca, fingerprint(*files))


def _planes(keys: PlanesSection) -> model.Planes:
    listen = keys.listen
    return model.Planes(
        listen=replace(listen, mode=int(keys.mode, 8)) if isinstance(listen, model.SocketFile) else listen,
        tls=_tls(keys.tls) if keys.tls else None,
        ask=tuple(
            model.AskPlane(
                name=name,
                routes=frozenset(each.routes),
                request=each.request,
                uid=each.uid,
                certificates=each.certificates,
                prefix=each.prefix,
                addresses=each.addresses,
            )
            for name, each in keys.ask.items()
        ),
        push=tuple(
            model.PushPlane(
                name=name,
                kind=each.kind,
                directory=each.directory,
                credentials=tuple(dict.fromkeys(each.credentials)),
                uid=each.uid,
                certificates=each.certificates,
            )
            for name, each in keys.push.items()
        ),
    )


def fingerprint(*files: Path) -> str:
    """Return the SHA-256 over the contents of files, in hex."""
    return hashlib.sha256(b"".join(hashlib.sha256(read_bytes(path, MAX_BYTES)).digest() for path in files)).hexdigest()


def config(
    keys: FileSection,
    clients: tuple[model.Client, ...],
    credentials: Mapping[str, model.Credential],
    routes: tuple[model.Route, ...],
    *,
    digest: str,
    watched_files: tuple[Path, ...],
    store_password_file: Path | None = None,
) -> model.Config:
    """Return the snapshot. On loopback, `access: clients` without any client means open access for this machine."""
    general = egress(keys.egress)
    return model.Config(
        listen=keys.listen,
        admin=keys.admin,
        access="clients" if clients and keys.access == "clients" else "open",
        local_only=not clients and keys.access == "clients",
        clients=clients,
        credentials=credentials,
        routes=routes,
        replay_budget=keys.replay_budget,
        token_timeout=keys.token_timeout,
        limits=model.Limits(**keys.limits.model_dump()),
        drain=model.Drain(**keys.drain.model_dump()),
        logs=model.Logs(**keys.logs.model_dump()),
        tracing=model.Tracing(**keys.tracing.model_dump(), egress=general) if keys.tracing else None,
        tls=_tls(keys.tls) if keys.tls else None,
        issuers=tuple(_issuer(name, each, general) for name, each in keys.issuers.items()),
        trusted_proxies=keys.trusted_proxies,
        allow_addresses=keys.allow_addresses,
        resolver_stale=keys.resolver.stale,
        admin_keys_sha256=keys.admin_keys_sha256,
        admin_hosts=keys.admin_hosts,
        app_token_key=keys.app_token_key,
        planes=_planes(keys.planes) if keys.planes else None,
        store=keys.store.compiled(store_password_file) if keys.store else None,
        state_file=Path(keys.state_file).absolute() if keys.state_file else None,
        digest=digest,
        watched_files=watched_files,
    )
