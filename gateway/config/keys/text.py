"""Text: names, words, dotted paths, secrets, values of a token request, JSON templates and log levels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from gateway.config.keys.section import kind, refuse, revealed
from gateway.config.names import NAME, NAME_RULE
from gateway.config.read.clean import mistake
from gateway.config.read.tree import Absent, Digits
from gateway.config.read.words import LIST, MAPPING, TEXT
from gateway.model import LEVELS, Pairs, Secret, Text
from gateway.payload import scalar_text

if TYPE_CHECKING:
    from collections.abc import Callable

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
DOTTED = re.compile(r"[^.\s]+(?:\.[^.\s]+)*")


def plain_text(value: object) -> str:
    """Return text that is not empty and has no control characters."""
    text = revealed(value)
    if not isinstance(text, str):
        refuse(TEXT if isinstance(text, int | float) else "must be text")
    if not text:
        refuse("is empty")
    if CONTROL.search(text):
        refuse("holds a control character")
    return text


def scalar(value: object) -> str:
    """Return a value to compare with a JSON value: text, a number or a boolean, as text."""
    if isinstance(value, Digits):
        refuse(TEXT)
    if isinstance(value, bool | int | float):
        return scalar_text(value) or ""
    return plain_text(value)


def any_text(value: object) -> Text:
    """Return a value of a token request: text, or a whole number as text, or a secret."""
    if isinstance(value, int) and not isinstance(value, bool | Digits):
        return str(value)
    if not isinstance(value, str | Secret):
        refuse(TEXT)
    return checked(value)


def checked(value: Text) -> Text:
    """Return a value; a secret with a line end, a blank at its end or the like is refused."""
    if isinstance(value, Secret) and value and (wrong := mistake(value.reveal())):
        refuse(wrong)
    return value


def secret_text(value: object) -> Secret:
    """Return a secret that is not empty."""
    text = any_text(value)
    if not text:
        refuse("is empty")
    return text if isinstance(text, Secret) else Secret(text)


def text_like(pattern: re.Pattern[str], message: str) -> Callable[[object], str]:
    """Return a check for text that matches a pattern as a whole."""

    def check(value: object) -> str:
        text = plain_text(value)
        return text if pattern.fullmatch(text) else refuse(message)

    return check


def list_of(check: Callable[[Any], Any]) -> Callable[[object], tuple[Any, ...]]:
    """Return a check for a list whose items all pass `check`."""

    def check_each(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            refuse(LIST)
        return tuple(check(item) for item in value)

    return check_each


def pairs(value: object) -> Pairs:
    """Return names and values of a mapping; a list repeats the name, null leaves it out."""
    if not isinstance(value, dict):
        refuse("must be a mapping: {name: value}")
    given: list[tuple[str, Text]] = []
    for name, written in value.items():
        for item in written if isinstance(written, list) else () if written is None else (written,):
            if isinstance(item, Absent):
                continue
            if isinstance(item, bool | Digits) or not isinstance(item, str | int | Secret):
                refuse(f"{name}: {TEXT}")
            if isinstance(item, Secret) and item and (wrong := mistake(item.reveal())):
                refuse(f"{name}: {wrong}")
            given.append((name, any_text(item)))
    return tuple(given)


def json_value(value: object) -> object:
    """Return a JSON template: anything that both YAML and JSON can express."""
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_value(item) for item in value]
    if isinstance(value, Digits):
        refuse("has a number that JSON cannot write as it is here; put it in quotes")
    if isinstance(value, Secret):
        return checked(value)
    return value if value is None or isinstance(value, str | int | float | Absent) else refuse("is no JSON value")


def overlay(value: object) -> dict[str, object]:
    """Return a mapping whose keys are checked after it is merged into another one."""
    return value if isinstance(value, dict) else refuse(MAPPING)


def levels(value: object) -> tuple[tuple[str, str], ...]:
    """Return log levels by the logger's name."""
    if not isinstance(value, dict):
        refuse("must be a mapping: {gatepass.tokens: debug}")
    for name, level in value.items():
        if level not in LEVELS:
            refuse(f"{name}: must be one of {', '.join(LEVELS)}")
    return tuple(sorted((str(name), str(level)) for name, level in value.items()))


name_text = text_like(NAME, f"must be a name: {NAME_RULE}")
dotted_path = text_like(DOTTED, "must be a dotted path, as data.access_token")

STRINGS: dict[str, object] = {"type": "array", "items": {"type": "string"}}
"""JSON Schema of a list of text."""
SCALARS: dict[str, object] = {"type": "array", "items": {"type": ["string", "number", "boolean"]}}
"""JSON Schema of a list of values to compare with JSON values."""
FIELDS: dict[str, object] = {
    "type": "object",
    "additionalProperties": {"type": ["string", "integer", "array", "null"], "items": {"type": ["string", "integer"]}},
}
"""JSON Schema of names and values."""

PlainText = Annotated[str, *kind("text", plain_text, type="string")]
Name = Annotated[str, *kind("name", name_text, type="string", pattern=f"^{NAME.pattern}$")]
TextValue = Annotated[Text, *kind("text or secret", any_text, type=["string", "integer"])]
SecretValue = Annotated[Secret, *kind("secret", secret_text, type=["string", "integer"])]
Words = Annotated[tuple[str, ...], *kind("list of text", list_of(plain_text), **STRINGS)]
Scalars = Annotated[tuple[str, ...], *kind("list of values", list_of(scalar), **SCALARS)]
Names = Annotated[tuple[str, ...], *kind("list of names", list_of(name_text), **STRINGS)]
DottedPath = Annotated[str, *kind("dotted path", dotted_path, type="string", pattern=f"^{DOTTED.pattern}$")]
Fields = Annotated[Pairs, *kind("fields", pairs, **FIELDS)]
JsonValue = Annotated[object, *kind("JSON value", json_value)]
Overlay = Annotated[dict[str, object], *kind("mapping", overlay, type="object")]
Levels = Annotated[
    tuple[tuple[str, str], ...],
    *kind("levels by logger", levels, type="object", additionalProperties={"enum": list(LEVELS)}),
]
