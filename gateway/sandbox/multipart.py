"""Parses multipart uploads: every part is read to its end, checked and hashed, and none is kept.

Follows RFC 7578 and the rules of a vendor. Returns byte counts and SHA-256, so that a client can verify that its upload
arrived unchanged. Memory is one chunk, whatever the size.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import BodyPartReader, hdrs

if TYPE_CHECKING:
    from aiohttp import web

CHUNK = 256 * 1024


class UploadRefused(Exception):
    """The upload violates a rule; `status` is 400, 413 or 415."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Rule:
    """Rules for one part. Empty `types`: any media type. `file`: needs a file name."""

    required: bool = True
    max_bytes: int | None = None
    types: frozenset[str] = frozenset()
    file: bool = True


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was received."""

    name: str
    filename: str | None
    content_type: str
    size: int
    sha256: str

    def as_json(self) -> dict[str, object]:
        """Return the part's facts for the answer."""
        return {
            "name": self.name,
            "filename": self.filename,
            "contentType": self.content_type,
            "bytes": self.size,
            "sha256": self.sha256,
        }


async def receive(request: web.Request, rules: dict[str, Rule] | None) -> list[Part]:
    """Read the whole upload. `rules` by part name; with None, any parts, but at least one.

    Raises:
        UploadRefused: not multipart, malformed, or against a rule.
    """
    if request.content_type != "multipart/form-data":
        raise UploadRefused(415, f"expected multipart/form-data, got {request.headers.get(hdrs.CONTENT_TYPE)}")
    parts: list[Part] = []
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            parts.append(await _read(part, rules))
    except (ValueError, AssertionError, EOFError) as error:
        raise UploadRefused(400, f"the multipart body is broken: {type(error).__name__}") from error
    missing = [name for name, rule in (rules or {}).items() if rule.required and name not in {p.name for p in parts}]
    if missing or not parts:
        raise UploadRefused(400, f"missing part: {', '.join(missing) or 'any'}")
    return parts


async def _read(part: object, rules: dict[str, Rule] | None) -> Part:
    if not isinstance(part, BodyPartReader) or not part.name:
        raise UploadRefused(400, "a part without a name")
    rule = Rule(file=False) if rules is None else rules.get(part.name)
    if rule is None:
        raise UploadRefused(400, f"unexpected part: {part.name}")
    content_type = part.headers.get(hdrs.CONTENT_TYPE, "text/plain").split(";")[0].strip().lower()
    if rule.file and not part.filename:
        raise UploadRefused(400, f"part {part.name} is no file")
    if rule.types and content_type not in rule.types:
        raise UploadRefused(415, f"part {part.name} has the type {content_type}")
    digest, size = hashlib.sha256(), 0
    while chunk := await part.read_chunk(CHUNK):
        size += len(chunk)
        digest.update(chunk)
        if rule.max_bytes is not None and size > rule.max_bytes:
            raise UploadRefused(413, f"part {part.name} is larger than {rule.max_bytes} bytes")
    if rule.file and not size:
        raise UploadRefused(400, f"part {part.name} is empty")
    return Part(part.name, part.filename, content_type, size, digest.hexdigest())
