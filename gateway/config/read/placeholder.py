"""Placeholders for what a pipeline does not have: variables, secret files, programs and certificate files.

With them a configuration can be checked where its secrets are not. Each placeholder has the form that its key wants.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from gateway.config.read.tree import Absent, dotted
from gateway.model import Secret

if TYPE_CHECKING:
    from gateway.config.read.tree import Node, Path

URL = "https://placeholder.invalid"
STORE = "rediss://placeholder.invalid"
URLS = frozenset({"jwks_url", "otlp", "upstream", "url"})
HASHES = frozenset({"admin_keys_sha256", "key_sha256", "keys_sha256", "sha256"})
TEXTS = frozenset({"audience", "issuer", "name", "password", "username"})
FILES = ("ca_file", "client_ca", "jwks_file")


def placeholder(path: Path) -> object:
    """Return a value for a key whose own is missing; None, which means not set, where no value is needed."""
    if path == ("store", "url"):
        return STORE
    key = next((step for step in reversed(path) if isinstance(step, str)), "")
    if key in URLS:
        return URL
    if key in HASHES or path[:2] == ("store", "keys"):
        return hashlib.sha256(dotted(path).encode()).hexdigest()
    if path[-2:] == ("assertion", "key"):
        return Absent()  # a private key cannot be made up: the credential is left out
    if path[:1] == ("credentials",):
        return Secret("placeholder")
    return "placeholder" if key in TEXTS else None


def without_missing_files(node: Node, missing: list[str]) -> Node:
    """Return a tree without the certificates, keys and authorities that are not on this machine; name them."""
    if isinstance(node.value, list):
        return dataclasses.replace(node, value=[without_missing_files(each, missing) for each in node.value])
    if not isinstance(node.value, dict):
        return node
    entries = {key: without_missing_files(child, missing) for key, child in node.value.items()}
    for key in FILES:
        if key in entries and _is_missing(entries[key], missing):
            if key == "jwks_file":
                entries["jwks_url"] = dataclasses.replace(entries[key], value=URL)
            entries[key] = dataclasses.replace(entries[key], value=None)
    for key, child in entries.items():
        pair = [child.entries[name] for name in ("certificate", "key") if name in child.entries]
        if len(pair) == len(child.entries.keys() & {"certificate", "key"}) == 2 and any(  # noqa: PLR2004 - a pair
            [_is_missing(each, missing) for each in pair]  # noqa: C419 - name both
        ):
            entries[key] = dataclasses.replace(child, value=None)
    return dataclasses.replace(node, value=entries)


def _is_missing(node: Node, missing: list[str]) -> bool:
    if not isinstance(node.value, str) or FilePath(node.value).exists():
        return False
    missing.append(f"the file {node.value} is not here")
    return True
