"""The merged configuration, as text for people and as a digest for comparison.

The text shows secrets as fingerprints; the digest is computed from their hashes.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

import yaml

from gateway.config.keys.files import MAX_BYTES
from gateway.config.read.files import read_bytes
from gateway.config.read.tree import Absent, Digits, plain
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
        named += [each.ca_file for each in (holder, holder.egress) if each is not None and each.ca_file]
    return list(dict.fromkeys(named))


def private_keys(config: Config) -> list[Path]:
    """Return the private key files of client certificates and of the ports."""
    holders: list[GrantRequest | Upstream] = [route.upstream for route in config.routes]
    holders += [grant.request for credential in config.credentials.values() for grant in credential.grants]
    keys = [holder.client_certificate.key for holder in holders if holder.client_certificate]
    served = [config.tls, config.planes.tls if config.planes is not None else None]
    return [*keys, *(tls.key for tls in served if tls is not None)]


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


REQUESTS = frozenset({"request", "revoke", "probe"})
"""Keys that hold a request to a vendor's token endpoint."""
HARMLESS = frozenset({
    "accept", "accept-encoding", "accept-language", "audience", "client_assertion_type", "client_id", "content-type",
    "encode", "grant_type", "requested_token_type", "resource", "response_type", "scope", "subject_token_type",
    "token_type_hint", "user-agent",
})  # fmt: skip
"""Names whose literal values in such a request are shown. Any other may be a secret, whatever its name."""
SENT = frozenset({"headers", "query", "form", "json", "basic"})
"""Keys of such a request whose values are sent to the vendor."""
FORMAT = re.compile(
    r"(?:(?:(?:access_?)?token|api-?key|basic|bearer|jwt|key|oauth)[ =:]+\"?)*\{token\}\"?", re.IGNORECASE
)
"""A scheme and the token, as `Bearer {token}`: shown. With anything else, a format may hold a secret."""


def _masked(value: object, name: str = "", *, sent: bool = False) -> object:
    """Return the value with secrets as fingerprints, and with literals of token requests unless they are harmless."""
    if isinstance(value, dict):
        return {key: _masked(item, key, sent=sent or (name in REQUESTS and key in SENT)) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, name, sent=sent) for item in value]
    if isinstance(value, Secret):
        return repr(value)
    if isinstance(value, Absent):
        return "<missing>"
    if isinstance(value, Digits):
        value = int(value)
    text = "" if value is None or isinstance(value, bool) else str(value)
    hidden = (sent and name.lower() not in HARMLESS) or "{token}" in text or name == "password"
    return repr(Secret(text)) if text and hidden and not FORMAT.fullmatch(text) else value


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
        return hashlib.sha256(read_bytes(path, MAX_BYTES)).hexdigest()
    except OSError:
        return ""  # removed since it was checked; the watcher sees it return
