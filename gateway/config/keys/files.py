"""Files that the configuration names by path: they must be readable when the configuration is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from gateway.config.keys.section import kind, refuse
from gateway.config.keys.text import plain_text
from gateway.config.read.files import read_bytes, why
from gateway.model import MIB

MAX_BYTES = 4 * MIB
"""Bytes of a file with certificates or keys; the bundle of all public authorities has a quarter of a MiB."""


def readable_file(value: object) -> Path:
    """Return the absolute path of a readable file; a relative path is relative to the working directory."""
    path = Path(plain_text(value)).absolute()
    try:
        read_bytes(path, MAX_BYTES, regular=True)
    except OSError as error:
        refuse(f"the file cannot be read: {why(error)}")
    return path


def jwks_file(value: object) -> Path:
    """Return the path of a file of public keys (JWKS, RFC 7517 §5)."""
    path = readable_file(value)
    try:
        document = json.loads(read_bytes(path, MAX_BYTES, regular=True))
    except (OSError, ValueError):
        refuse("the file is not JSON")
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list) or not document["keys"]:
        refuse('the file holds no keys: it must be a JWKS, as {"keys": […]}')
    return path


ReadableFile = Annotated[Path, *kind("file", readable_file, type="string")]
JwksFile = Annotated[Path, *kind("file", jwks_file, type="string")]
