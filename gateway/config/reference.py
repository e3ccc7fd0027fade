"""The documented keys as data, for `docs/configuration.md` and for the JSON Schema.

Both are made from the sections' fields and the profiles' parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic_core import PydanticUndefined

from gateway.config.keys.file import FileSection
from gateway.config.keys.section import Kind
from gateway.config.read import profile as shipped
from gateway.config.validate import model_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

REFERENCE = {"type": "string", "pattern": r"\$\{.+\}"}
DOCUMENTED_ELSEWHERE = frozenset(
    {"credentials.*.revoke", "credentials.*.probe", "credentials.*.egress", "routes.*.egress"}
)
"""Keys with the same mapping as `grant.request` or `egress`, where it is documented."""


@dataclass(frozen=True, slots=True)
class Key:
    """One documented key: a line of `docs/configuration.md`."""

    path: str
    """Dotted, `*` for a name or an index: `routes.*.timeouts.connect`."""
    type: str
    default: str
    meaning: str

    @property
    def row(self) -> str:
        """Return the line of the Markdown table."""
        cells = (f"`{self.path}`", self.type, self.default, self.meaning)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def keys() -> list[Key]:
    """Return every documented key, in the order of the sections; shared mappings appear once."""
    return list(_keys(FileSection, ""))


def _keys(model: type[BaseModel], above: str) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        path = f"{above}{field.alias or name}"
        inner = model_of(field.annotation)
        many = _many(field)
        kind = f"{many} of mappings" if inner and many else "mapping" if inner else _kind(field)
        yield Key(path, kind, _default(field), field.description or "")
        if inner is None or path in DOCUMENTED_ELSEWHERE:
            continue
        yield from _keys(inner, f"{path}{'.*' if many == 'mapping' else '[]' if many else ''}.")


def _many(field: FieldInfo) -> str:
    """Return `list` or `mapping` when the field holds several of a section, else an empty string."""
    text = str(field.annotation)
    return "list" if "tuple[" in text else "mapping" if "dict[" in text else ""


def _kind(field: FieldInfo) -> str:
    for note in field.metadata:
        if isinstance(note, Kind):
            return note.name
    return _kind_of(field.annotation)


def _kind_of(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    for part in get_args(annotation):
        for note in getattr(part, "__metadata__", ()):
            if isinstance(note, Kind):
                return note.name
        if get_origin(part) is Literal:
            return _kind_of(part)
    raise TypeError(f"a field without a kind: {annotation}")


def _default(field: FieldInfo) -> str:
    """Return the default as it is written in the file; `–` for none, `required` where there must be a value."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined or (isinstance(value, tuple | Mapping) and not value):
        return "–"
    if model_of(field.annotation) is not None:
        return "–"
    return f"`{written(value, _kind(field))}`"


def written(value: object, kind: str) -> str:
    """Return a value as it is written in the file: `5s`, `32MiB`, `true`."""
    if kind == "duration" and isinstance(value, float):
        larger = ((unit, n) for unit, n in (("h", 3600), ("m", 60)) if value >= 2 * n and not value % n)
        unit, seconds = next(larger, ("s", 1))  # 60s and 75s are easy to read, 300s and 1440m are not
        return f"{value / seconds:g}{unit}"
    if kind == "size" and isinstance(value, int):
        unit = next((u for u, n in (("MiB", 2**20), ("KiB", 2**10)) if value and value % n == 0), "B")
        return f"{value // {'MiB': 2**20, 'KiB': 2**10, 'B': 1}[unit]}{'' if unit == 'B' else unit}"
    if isinstance(value, tuple):
        return "[" + ", ".join(str(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


# --------------------------------------------------------------------------------------------------------- JSON Schema


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a configuration file, for editors.

    It describes one of possibly several files, before profiles are applied: nothing is required, any value may be null
    ("not set"), and any value may be written as `${…}`.
    """
    schema = FileSection.model_json_schema(by_alias=True)
    for model in [schema, *schema["$defs"].values()]:
        model.pop("required", None)
        for name, each in model.get("properties", {}).items():
            model["properties"][name] = _loosened(each)
    _add_params(schema["$defs"]["CredentialSection"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Gatepass configuration"}


def _loosened(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that also accepts null and `${…}`, with its description first."""
    kept: dict[str, Any] = {key: schema.pop(key) for key in ("description", "default", "examples") if key in schema}
    schema.pop("title", None)
    if kept.get("default", 0) in ([], {}, None):
        del kept["default"]
    choices = schema.pop("anyOf", None) or [schema]
    choices = [_with_references(choice) for choice in choices if choice != {"type": "null"}]
    return {**kept, "anyOf": [*choices, REFERENCE, {"type": "null"}]}


def _with_references(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose items and values also accept `${…}`."""
    changed = dict(schema)
    for inner in ("items", "additionalProperties"):
        value = changed.get(inner)
        if isinstance(value, dict) and "$ref" not in value:
            changed[inner] = {"anyOf": [_with_references(value), REFERENCE]}
    return changed


def _add_params(credential: dict[str, Any]) -> None:
    """Add the parameters of each profile to the keys of a credential."""
    credential.pop("additionalProperties", None)
    credential["unevaluatedProperties"] = False
    credential["allOf"] = []
    for name in shipped.names():
        params: dict[str, Any] = {}
        for param in shipped.profile(name).params.values():
            value = {"description": param.help, "type": ["string", "integer", "null"]}
            params[param.name] = value
            if param.secret:
                params[f"next_{param.name}"] = {**value, "description": f"{param.help}, while it is being replaced"}
        condition = {"properties": {"profile": {"const": name}}, "required": ["profile"]}
        credential["allOf"].append({"if": condition, "then": {"properties": params}})
