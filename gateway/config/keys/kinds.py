"""The kinds of value that the schema's keys are made of: a check of `values.py`, a name for people, a JSON Schema."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from gateway.config.keys import net
from gateway.config.keys import values as v
from gateway.model import Address, Pairs, Secret, Text

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Kind:
    """The name of a kind of value, for the documentation."""

    name: str


def kind(name: str, check: Callable[[Any], Any], **schema: object) -> tuple[Kind, PlainValidator, WithJsonSchema]:
    """Return the three annotations that make a kind."""
    return Kind(name), PlainValidator(check), WithJsonSchema(dict(schema))


_TEXT: dict[str, object] = {"type": "string"}
_LIST: dict[str, object] = {"type": "array", "items": _TEXT}
_STATUSES: dict[str, object] = {"type": "array", "items": {"type": "integer"}}
_MAP: dict[str, object] = {
    "type": "object",
    "additionalProperties": {"type": ["string", "integer", "array", "null"], "items": {"type": ["string", "integer"]}},
}

PlainText = Annotated[str, *kind("text", v.plain_text, type="string")]
Name = Annotated[str, *kind("name", v.name_text, type="string", pattern=f"^{v.NAME.pattern}$")]
TextValue = Annotated[Text, *kind("text or secret", v.any_text, type=["string", "integer"])]
SecretValue = Annotated[Secret, *kind("secret", v.secret_text, type=["string", "integer"])]
Duration = Annotated[float, *kind("duration", v.duration, type=["number", "string"])]
SomeDuration = Annotated[float, *kind("duration", v.some_duration, type=["number", "string"])]
Size = Annotated[int, *kind("size", v.size, type=["integer", "string"])]
Count = Annotated[int, *kind("number", v.count, type=["integer", "string"])]
Share = Annotated[float, *kind("share", v.share, type=["number", "string"], minimum=0, maximum=1)]
Levels = Annotated[
    tuple[tuple[str, str], ...],
    *kind("levels by logger", v.levels, type="object", additionalProperties={"enum": list(v.LEVELS)}),
]
Flag = Annotated[bool, *kind("true or false", v.flag, type=["boolean", "string"])]
Status = Annotated[int, *kind("status", v.status, type="integer", minimum=100, maximum=599)]
Statuses = Annotated[tuple[int, ...], *kind("list of statuses", v.texts(v.status), **_STATUSES)]
Words = Annotated[tuple[str, ...], *kind("list of text", v.texts(v.plain_text), **_LIST)]
Names = Annotated[tuple[str, ...], *kind("list of names", v.texts(v.name_text), **_LIST)]
HeaderName = Annotated[str, *kind("header name", v.header_name, type="string", pattern=f"^{net.TOKEN.pattern}$")]
HostNames = Annotated[tuple[str, ...], *kind("list of host names", v.texts(v.host_name), **_LIST)]
HeaderNames = Annotated[tuple[str, ...], *kind("list of header names", v.texts(v.header_name), **_LIST)]
Headers = Annotated[Pairs, *kind("headers", v.headers, **_MAP)]
Fields = Annotated[Pairs, *kind("fields", v.pairs, **_MAP)]
JsonValue = Annotated[object, *kind("JSON value", v.json_value)]
Overlay = Annotated[dict[str, object], *kind("mapping", v.overlay, type="object")]
ReadableFile = Annotated[Path, *kind("file", v.readable_file, type="string")]
Url = Annotated[str, *kind("URL", v.url, type="string", format="uri")]
ListenAddress = Annotated[Address, *kind("address", v.address, type="string")]
Sha256 = Annotated[str, *kind("SHA-256", v.sha256, type="string", pattern=f"^{v.SHA256.pattern}$")]
Sha256s = Annotated[tuple[str, ...], *kind("list of SHA-256", v.texts(v.sha256), **_LIST)]
DottedPath = Annotated[str, *kind("dotted path", v.dotted_path, type="string")]
Patterns = Annotated[tuple[str, ...], *kind("list of path patterns", v.texts(v.path_pattern), **_LIST)]
Prefix = Annotated[str, *kind("path prefix", v.prefix_text, type="string", pattern=f"^{net.PREFIX.pattern}$")]
