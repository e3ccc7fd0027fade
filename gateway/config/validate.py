"""Check one section against its documented keys; each mistake becomes a problem with its line.

The only module that handles pydantic's errors. Messages never repeat the input, because it may be a secret.
"""

from __future__ import annotations

import types
import typing
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.config.keys.section import Section
from gateway.config.names import nearest
from gateway.config.read.tree import Absent, Node, Path, Problems, plain
from gateway.config.read.words import LIST, MAPPING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

S = TypeVar("S", bound=Section)

WORDS = {
    "missing": "is missing",
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
    "dict_type": MAPPING,
    "list_type": LIST,
    "tuple_type": LIST,
    "value_error": "cannot be used",  # its own words could repeat the value
}


def validate(section: type[S], node: Node, path: Path, problems: Problems, extra: Iterable[str] = ()) -> S | None:
    """Return the checked section; None when it has mistakes, which are added to `problems`.

    `extra` are more names to suggest for a mistyped key.
    """
    try:
        return section.model_validate(plain(node))
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            where, message = _message(section, node, detail, extra)
            if message:
                problems.add(node.mark_at(where), (*path, *where), message)
        return None


def _message(section: type[Section], node: Node, detail: ErrorDetails, extra: Iterable[str]) -> tuple[Path, str]:
    """Return the place and the message; the message is empty when the problem has been reported already."""
    where = detail["loc"]
    at = node.at(where)
    if at is not None and isinstance(at.value, Absent):
        return where, ""
    if detail["type"] == "extra_forbidden":
        return where, "unknown key" + nearest(str(where[-1]), [*_keys_at(section, where[:-1]), *extra])
    if detail["type"] == "literal_error":
        return where, "must be " + str(detail["ctx"]["expected"]).replace("'", "")
    return where, WORDS.get(detail["type"]) or detail["msg"]


def _keys_at(section: type[BaseModel], where: Path) -> list[str]:
    """Return the documented keys at a place inside a section."""
    model: type[BaseModel] | None = section
    for step in where:
        if isinstance(step, str) and model is not None:
            fields = {field.alias or name: field for name, field in model.model_fields.items()}
            model = model_of(fields[step].annotation) if step in fields else None
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside `Model | None`, `tuple[Model, ...]` or `dict[str, Model]`; None without one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        for part in typing.get_args(annotation):
            if (inner := model_of(part)) is not None:
                return inner
    return None
