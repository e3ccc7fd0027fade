"""One mapping against its documented keys, with every mistake told in one voice and at its own line.

The only place that speaks pydantic's error language. Input is never echoed: it may be a secret at the wrong key.
"""

from __future__ import annotations

import types
import typing
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.config.keys.credential import Keys
from gateway.config.read.expand import nearest
from gateway.config.read.tree import Absent, Node, Path, Problems, plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

K = TypeVar("K", bound=Keys)

WORDS = {
    "missing": "is missing",
    "model_type": "must be a mapping: {key: value}",
    "model_attributes_type": "must be a mapping: {key: value}",
    "dict_type": "must be a mapping: {key: value}",
    "list_type": "must be a list: [a, b]",
    "tuple_type": "must be a list: [a, b]",
    "value_error": "cannot be used",  # its own words could repeat the value
}


def validate(schema: type[K], node: Node, path: Path, problems: Problems, extra: Iterable[str] = ()) -> K | None:
    """Check a mapping; None when it has mistakes, which are in `problems`. `extra`: more names to suggest."""
    try:
        return schema.model_validate(plain(node))
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            where, message = _told(schema, node, detail, extra)
            if message:
                problems.add(node.mark_at(where), (*path, *where), message)
        return None


def _told(schema: type[Keys], node: Node, detail: ErrorDetails, extra: Iterable[str]) -> tuple[Path, str]:
    """Where, and in what words; no words for a gap whose own problem has been told already."""
    where = detail["loc"]
    at = node.at(where)
    if at is not None and isinstance(at.value, Absent):
        return where, ""
    if detail["type"] == "extra_forbidden":
        return where, "unknown key" + nearest(str(where[-1]), [*_keys_at(schema, where[:-1]), *extra])
    if detail["type"] == "literal_error":
        return where, "must be " + str(detail["ctx"]["expected"]).replace("'", "")
    return where, WORDS.get(detail["type"]) or detail["msg"]


def _keys_at(schema: type[BaseModel], where: Path) -> list[str]:
    """The keys that are known at a place inside a schema."""
    model: type[BaseModel] | None = schema
    for step in where:
        if isinstance(step, str) and model is not None:
            fields = {field.alias or name: field for name, field in model.model_fields.items()}
            model = model_of(fields[step].annotation) if step in fields else None
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The model inside `Model`, `Model | None`, `tuple[Model, ...]` or `dict[str, Model]`; None when there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        for part in typing.get_args(annotation):
            if (found := model_of(part)) is not None:
                return found
    return None
