"""What a configuration amounts to, for people and for comparison: the merged text, and the digest.

Secrets appear as fingerprints in the one and as hashes in the other.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import yaml

from gateway.config.read.tree import plain
from gateway.model import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gateway.config.read.draft import Draft
    from gateway.model import Config, Credential, GrantRequest, Route, Upstream


def text(draft: Draft) -> str:
    """The configuration as it is meant, as YAML."""
    return yaml.safe_dump(_masked(_meant(draft)), sort_keys=False, allow_unicode=True, width=120)


def digest(draft: Draft, apart: Sequence[Path]) -> str:
    """SHA-256 over everything that decides how the gateway acts, certificates included."""
    contents = [_content_hash(path) for path in apart]
    text = json.dumps([_hashed(_meant(draft)), contents], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def files_apart(credentials: Mapping[str, Credential], routes: Sequence[Route]) -> list[Path]:
    """Files that are named by path rather than read into a value: certificates, keys and authorities."""
    holders: list[GrantRequest | Upstream] = [route.upstream for route in routes]
    holders += [grant.request for credential in credentials.values() for grant in credential.grants]
    found: list[Path] = []
    for holder in holders:
        pair = holder.client_certificate
        found += [pair.certificate, pair.key] if pair else []
        found += [holder.ca_file] if holder.ca_file else []
    return list(dict.fromkeys(found))


def private_keys(config: Config) -> list[Path]:
    """Files of private keys: of client certificates and of the data port."""
    holders: list[GrantRequest | Upstream] = [route.upstream for route in config.routes]
    holders += [grant.request for credential in config.credentials.values() for grant in credential.grants]
    found = [holder.client_certificate.key for holder in holders if holder.client_certificate]
    return [*found, *([config.tls.key] if config.tls else [])]


def _meant(draft: Draft) -> dict[str, object]:
    """The whole tree as plain values, profiles applied."""
    whole = plain(draft.root)
    if not isinstance(whole, dict):
        raise TypeError("the root is a mapping")
    credentials: dict[str, object] = {}
    for name, expanded in draft.credentials.items():
        today = plain(expanded.today)
        following = plain(expanded.next) if expanded.next is not None else None
        credentials[name] = {**today, "next": following} if following and isinstance(today, dict) else today
    routes = {name: plain(node) for name, node in draft.routes.items()}
    return {**whole, "credentials": credentials, "routes": routes}


def _masked(value: object) -> object:
    """Secrets as their fingerprints."""
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return repr(value) if isinstance(value, Secret) else value


def _hashed(value: object) -> object:
    """Secrets as their SHA-256, for the digest."""
    if isinstance(value, dict):
        return {key: _hashed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_hashed(item) for item in value]
    return (
        hashlib.sha256(value.reveal().encode("utf-8", "surrogateescape")).hexdigest()
        if isinstance(value, Secret)
        else value
    )


def _content_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""  # gone since it was checked: the watcher will see it come back
