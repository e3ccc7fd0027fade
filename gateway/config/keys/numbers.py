"""Numbers with and without units: durations, sizes, counts, rates, shares, flags and HTTP statuses.

A number may also come from `${…}` as text.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

from gateway.config.keys.section import kind, refuse, revealed
from gateway.config.keys.text import list_of

DURATION = re.compile(r"(?P<number>[0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(?P<unit>ms|s|m|h|d)?")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
SIZE = re.compile(r"(?P<number>[0-9]{1,18})\s*(?P<unit>B|KB|KiB|MB|MiB|GB|GiB)?")
BYTES = {"B": 1, "KB": 1000, "KiB": 1024, "MB": 1000**2, "MiB": 1024**2, "GB": 1000**3, "GiB": 1024**3, None: 1}
WHOLE = re.compile(r"[0-9]{1,18}")
DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")
SHARE = re.compile(r"[0-9]*\.?[0-9]+")


def duration(value: object) -> float:
    """Return seconds, from a number or from text with a unit."""
    value = revealed(value)
    if isinstance(value, str) and (match := DURATION.fullmatch(value.strip())):
        value = float(match["number"]) * SECONDS[match["unit"]]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        refuse("must be a duration: seconds, or 500ms, 45s, 5m, 2h")
    return float(value)


def positive_duration(value: object) -> float:
    """Return seconds, more than zero."""
    seconds = duration(value)
    return seconds if seconds > 0 else refuse("must be longer than zero")


def size(value: object) -> int:
    """Return bytes, from a whole number or from text with a unit."""
    value = revealed(value)
    if isinstance(value, str) and (match := SIZE.fullmatch(value.strip())):
        value = int(match["number"]) * BYTES[match["unit"]]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        refuse("must be a size: bytes, or 64KiB, 32MiB, 1GiB")
    return value


def count(value: object) -> int:
    """Return a whole number of at least one."""
    value = revealed(value)
    if isinstance(value, str) and WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        refuse("must be a whole number of at least 1")
    return value


def share(value: object) -> float:
    """Return a share from 0 to 1."""
    value = revealed(value)
    if isinstance(value, str) and SHARE.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        refuse("must be a share from 0 to 1")
    return float(value)


def rate(value: object) -> float:
    """Return requests per second; fractions are allowed."""
    value = revealed(value)
    if isinstance(value, str) and DECIMAL.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        refuse("must be a number of requests per second, more than zero")
    return float(value)


def flag(value: object) -> bool:
    """Return a Boolean; `${…}` may give it as `true` or `false`."""
    value = revealed(value)
    if isinstance(value, str) and value in {"true", "false"}:
        return value == "true"
    return value if isinstance(value, bool) else refuse("must be true or false")


def status(value: object) -> int:
    """Return an HTTP status code."""
    code = count(value)
    return code if 100 <= code <= 599 else refuse("must be an HTTP status from 100 to 599")  # noqa: PLR2004


_NUMBER_FROM_TEXT = {"type": "string", "pattern": f"^{WHOLE.pattern}$"}
_TIME: dict[str, object] = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)?$"}],
    "examples": ["500ms", "45s", "5m", "2h"],
}
_BYTES: dict[str, object] = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": r"^[0-9]+\s*(B|KB|KiB|MB|MiB|GB|GiB)?$"},
    ],
    "examples": ["64KiB", "32MiB", "1GiB"],
}
_STATUS: dict[str, object] = {"type": "integer", "minimum": 100, "maximum": 599}

Duration = Annotated[float, *kind("duration", duration, **_TIME)]
PositiveDuration = Annotated[float, *kind("duration", positive_duration, **_TIME)]
Size = Annotated[int, *kind("size", size, **_BYTES)]
Count = Annotated[int, *kind("number", count, anyOf=[{"type": "integer", "minimum": 1}, _NUMBER_FROM_TEXT])]
Share = Annotated[float, *kind("share", share, type=["number", "string"], minimum=0, maximum=1)]
Rate = Annotated[float, *kind("number", rate, type=["number", "string"], exclusiveMinimum=0)]
Flag = Annotated[bool, *kind("true or false", flag, enum=[True, False, "true", "false"])]
Status = Annotated[int, *kind("status", status, **_STATUS)]
Statuses = Annotated[tuple[int, ...], *kind("list of statuses", list_of(status), type="array", items=_STATUS)]
