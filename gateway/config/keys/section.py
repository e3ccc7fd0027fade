"""What sections and kinds of value are made of: the base class, the refusal of a value, and the annotation of a kind.

A section is one mapping of documented keys, such as a route or `limits`. Each field's description is its line in
`docs/configuration.md` and in the JSON Schema. Sections are strict: no unknown key, no conversion between types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Self, get_origin

from pydantic import BaseModel, ConfigDict, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from gateway.model import Secret

if TYPE_CHECKING:
    from collections.abc import Callable


def refuse(message: str) -> NoReturn:
    """Raise the error for a value that cannot be used; `message` must not contain the value."""
    raise PydanticCustomError("gatepass", "{message}", {"message": message})


def revealed(value: object) -> object:
    """Return the text of a value from `${…}`, for keys whose values are not secret."""
    return value.reveal() if isinstance(value, Secret) else value


@dataclass(frozen=True, slots=True)
class Kind:
    """The name of a kind of value, for the documentation."""

    name: str


def kind(name: str, check: Callable[[Any], Any], **schema: object) -> tuple[Kind, PlainValidator, WithJsonSchema]:
    """Return the annotations that make a kind: its name, its check, and its JSON Schema."""
    return Kind(name), PlainValidator(check), WithJsonSchema(dict(schema))


class Section(BaseModel):
    """A mapping of documented keys. `null` means "not set", except at the keys in `nullable`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, defer_build=True)
    nullable: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def empty(cls) -> Self:
        """Return the section with every key at its default."""
        return cls.model_validate({})

    @classmethod
    def fields_by_key(cls) -> dict[str, Any]:
        """Return the fields by the name that is written in the file."""
        return {field.alias or name: field for name, field in cls.model_fields.items()}

    @model_validator(mode="before")
    @classmethod
    def null_is_not_set(cls, data: Any) -> Any:
        """Drop known keys that are null, so that a later file or the user can remove a value."""
        if not isinstance(data, dict):
            return data
        known = {key: field.annotation for key, field in cls.fields_by_key().items()}
        return {
            key: revealed(value) if get_origin(known.get(key)) is Literal else value
            for key, value in data.items()
            if value is not None or key in cls.nullable or key not in known
        }
