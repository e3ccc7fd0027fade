"""Credentials and their grants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import model
from gateway.config.compile.connections import certificate, egress

if TYPE_CHECKING:
    from gateway.config.keys import grant as g
    from gateway.config.keys.credential import CredentialSection


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
        revoke=_request(current.revoke, way) if current.revoke and current.revoke_on_shutdown else None,
        probe=_request(current.probe, way) if current.probe else None,
    )


def _grant(keys: g.GrantSection, way: model.Egress | None) -> model.Grant:
    return model.Grant(_request(keys.request, way), _response(keys.response))


def _request(keys: g.RequestSection, way: model.Egress | None) -> model.GrantRequest:
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
