"""The merged configuration, as text for people and as a digest for comparison.

The text shows secrets as fingerprints; the digest is computed from their hashes.
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
    """Return the merged configuration as YAML, secrets masked."""
    return yaml.safe_dump(_masked(_merged(draft)), sort_keys=False, allow_unicode=True, width=120)


def digest(draft: Draft, named: Sequence[Path]) -> str:
    """Return the SHA-256 over the merged configuration and the contents of the files that it names."""
    contents = [_content_hash(path) for path in named]
    text = json.dumps([_hashed(_merged(draft)), contents], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def named_files(credentials: Mapping[str, Credential], routes: Sequence[Route]) -> list[Path]:
    """Return the files that are named by path, not read into a value: certificates, keys and authorities."""
    holders: list[GrantRequest | Upstream] = [route.upstream for route in routes]
    holders += [grant.request for credential in credentials.values() for grant in credential.grants]
    named: list[Path] = []
    for holder in holders:
        pair = holder.client_certificate
        named += [pair.certificate, pair.key] if pair else []
        named += [holder.ca_file] if holder.ca_file else []
    return list(dict.fromkeys(named))


def private_keys(config: Config) -> list[Path]:
    """Return the private key files of client certificates and of the data port."""
    holders: list[GrantRequest | Upstream] = [route.upstream for route in config.routes]
    holders += [grant.request for credential in config.credentials.values() for grant in credential.grants]
    keys = [holder.client_certificate.key for holder in holders if holder.client_certificate]
    return [*keys, *([config.tls.key] if config.tls else [])]


def _merged(draft: Draft) -> dict[str, object]:
    """Return the whole tree as plain values, profiles applied."""
    whole = plain(draft.root)
    if not isinstance(whole, dict):
        raise TypeError("the root is a mapping")
    credentials: dict[str, object] = {}
    for name, expanded in draft.credentials.items():
        current = plain(expanded.current)
        following = plain(expanded.next) if expanded.next is not None else None
        credentials[name] = {**current, "next": following} if following and isinstance(current, dict) else current
    routes = {name: plain(node) for name, node in draft.routes.items()}
    return {**whole, "credentials": credentials, "routes": routes}


def _masked(value: object) -> object:
    """Return the value with secrets as fingerprints."""
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return repr(value) if isinstance(value, Secret) else value


def _hashed(value: object) -> object:
    """Return the value with secrets as SHA-256, for the digest."""
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
        return ""  # removed since it was checked; the watcher sees it return
