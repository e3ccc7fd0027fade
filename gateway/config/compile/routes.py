"""Routes, and the paths on them that no app may reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import model
from gateway.config.compile.connections import certificate, egress, fingerprint
from gateway.config.keys.http import parse_upstream

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.config.keys.credential import CredentialSection
    from gateway.config.keys.route import RouteSection

AUTHORIZATION = "authorization"


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
