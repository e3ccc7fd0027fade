"""The whole configuration, with what is in it only once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway import model
from gateway.config.compile.clients import issuer
from gateway.config.compile.connections import egress, server_tls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.keys.file import FileSection
    from gateway.config.keys.planes import PlanesSection


def _planes(keys: PlanesSection) -> model.Planes:
    listen = keys.listen
    return model.Planes(
        listen=replace(listen, mode=int(keys.mode, 8)) if isinstance(listen, model.SocketFile) else listen,
        tls=server_tls(keys.tls) if keys.tls else None,
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
        tls=server_tls(keys.tls) if keys.tls else None,
        issuers=tuple(issuer(name, each, general) for name, each in keys.issuers.items()),
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
