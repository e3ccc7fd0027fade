"""What a value must look like: durations, sizes, URLs, headers, secrets. One function per kind of value.

Each takes what YAML or a variable gave and returns what the model wants (seconds, bytes, `Secret` …). No message ever
repeats the value: it may be a secret that stands at the wrong key. Knows no key.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic_core import PydanticCustomError

from gateway.config.keys import net
from gateway.config.read.tree import Absent
from gateway.model import Address, Pairs, Secret, Text

if TYPE_CHECKING:
    from collections.abc import Callable

DURATION = re.compile(r"(?P<number>[0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(?P<unit>ms|s|m|h|d)?")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
SIZE = re.compile(r"(?P<number>[0-9]{1,18})\s*(?P<unit>B|KB|KiB|MB|MiB|GB|GiB)?")
BYTES = {"B": 1, "KB": 1000, "KiB": 1024, "MB": 1000**2, "MiB": 1024**2, "GB": 1000**3, "GiB": 1024**3, None: 1}
WHOLE = re.compile(r"[0-9]{1,18}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DOTTED = re.compile(r"[^.\s]+(?:\.[^.\s]+)*")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
LEVELS = ("debug", "info", "warning", "error")


def refuse(message: str) -> NoReturn:
    """Say what is wrong with a value, without the value."""
    raise PydanticCustomError("gatepass", "{message}", {"message": message})


# --------------------------------------------------------------------------------------------------------------- text


def opened(value: object) -> object:
    """Return a value from `${…}` as the text that it is, for keys whose value is no secret."""
    return value.reveal() if isinstance(value, Secret) else value


def plain_text(value: object) -> str:
    """Text without control characters."""
    text = opened(value)
    if not isinstance(text, str):
        refuse("must be text; put it in quotes" if isinstance(text, int | float) else "must be text")
    if not text:
        refuse("is empty")
    if net.CONTROL.search(text):
        refuse("holds a control character")
    return text


def any_text(value: object) -> Text:
    """A value of a token request: text, a whole number, or a secret."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str | Secret):
        refuse("must be text; put it in quotes")
    return value


def secret_text(value: object) -> Secret:
    """A secret, wherever it came from; an empty one is a mistake."""
    text = any_text(value)
    if not text:
        refuse("is empty")
    return text if isinstance(text, Secret) else Secret(text)


def text_like(pattern: re.Pattern[str], message: str) -> Callable[[object], str]:
    """Text that matches a pattern as a whole."""

    def check(value: object) -> str:
        text = plain_text(value)
        return text if pattern.fullmatch(text) else refuse(message)

    return check


def texts(check: Callable[[Any], Any]) -> Callable[[object], tuple[Any, ...]]:
    """A list of one kind."""

    def each(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            refuse("must be a list: [a, b]")
        return tuple(check(item) for item in value)

    return each


# ------------------------------------------------------------------------------------------------------------ numbers


def duration(value: object) -> float:
    """Seconds: a number, or text with a unit."""
    value = opened(value)
    if isinstance(value, str) and (match := DURATION.fullmatch(value.strip())):
        value = float(match["number"]) * SECONDS[match["unit"]]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        refuse("must be a duration: seconds, or 500ms, 45s, 5m, 2h")
    return float(value)


def some_duration(value: object) -> float:
    """Seconds, more than zero."""
    seconds = duration(value)
    return seconds if seconds > 0 else refuse("must be longer than zero")


def size(value: object) -> int:
    """Bytes: a whole number, or text with a unit."""
    value = opened(value)
    if isinstance(value, str) and (match := SIZE.fullmatch(value.strip())):
        value = int(match["number"]) * BYTES[match["unit"]]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        refuse("must be a size: bytes, or 64KiB, 32MiB, 1GiB")
    return value


def count(value: object) -> int:
    """A whole number of at least one."""
    value = opened(value)
    if isinstance(value, str) and WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        refuse("must be a whole number of at least 1")
    return value


def share(value: object) -> float:
    """A part of a whole: 0 to 1."""
    value = opened(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]*\.?[0-9]+", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        refuse("must be a share from 0 to 1")
    return float(value)


def levels(value: object) -> tuple[tuple[str, str], ...]:
    """Log levels by the logger's name."""
    if not isinstance(value, dict):
        refuse("must be a mapping: {gatepass.tokens: debug}")
    for name, level in value.items():
        if level not in LEVELS:
            refuse(f"{name}: must be one of {', '.join(LEVELS)}")
    return tuple(sorted((str(name), str(level)) for name, level in value.items()))


def flag(value: object) -> bool:
    """`true` or `false`; a variable may say it too."""
    value = opened(value)
    if isinstance(value, str) and value in {"true", "false"}:
        return value == "true"
    return value if isinstance(value, bool) else refuse("must be true or false")


def status(value: object) -> int:
    """An HTTP status code."""
    code = count(value)
    return code if 100 <= code <= 599 else refuse("must be an HTTP status from 100 to 599")  # noqa: PLR2004


# ---------------------------------------------------------------------------------------------------- names and values


def host_name(value: str) -> str:
    """A DNS name without a port."""
    return value if net.HOST_NAME.fullmatch(value) else refuse("must be a host name without scheme and port")


def header_name(value: object) -> str:
    """A field name (RFC 9110 §5.1)."""
    text = plain_text(value)
    return text if net.TOKEN.fullmatch(text) else refuse("is no header name")


def header_value(value: Text) -> Text:
    """A field value that is safe on the wire: visible ASCII, spaces and tabs (RFC 9110 §5.5)."""
    text = value.reveal() if isinstance(value, Secret) else value
    if not net.FIELD_VALUE.fullmatch(text):
        refuse("is no header value: only visible ASCII, with spaces inside")
    return value


def pairs(value: object) -> Pairs:
    """A mapping of names to values; a list repeats the name, null leaves it out."""
    if not isinstance(value, dict):
        refuse("must be a mapping: {name: value}")
    found: list[tuple[str, Text]] = []
    for name, given in value.items():
        for item in given if isinstance(given, list) else () if given is None else (given,):
            if isinstance(item, Absent):
                continue
            if isinstance(item, bool) or not isinstance(item, str | int | Secret):
                refuse(f"{name}: must be text; put it in quotes")
            found.append((name, any_text(item)))
    return tuple(found)


def headers(value: object) -> Pairs:
    """Header fields of a token request."""
    found = pairs(value)
    for name, text in found:
        if not net.TOKEN.fullmatch(name):
            refuse(f"{name!r} is no header name")
        if name.lower() in net.MESSAGE_HEADERS:
            refuse(f"{name} is written by the gateway itself")
        if not net.FIELD_VALUE.fullmatch(text.reveal() if isinstance(text, Secret) else text):
            refuse(f"{name}: is no header value: only visible ASCII, with spaces inside")
    return found


def json_value(value: object) -> object:
    """A JSON template: what YAML can say and JSON can carry."""
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_value(item) for item in value]
    return (
        value if value is None or isinstance(value, str | int | float | Secret | Absent) else refuse("is no JSON value")
    )


def overlay(value: object) -> dict[str, object]:
    """Keys to be laid over others; they are checked where they end up."""
    return value if isinstance(value, dict) else refuse("must be a mapping: {key: value}")


def readable_file(value: object) -> Path:
    """A path to a file that can be read now; a relative one counts from the working directory."""
    path = Path(plain_text(value)).absolute()
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        refuse(f"the file cannot be read: {(error.strerror or 'unknown error').lower()}")
    return path


def url(value: object) -> str:
    """A URL of a token endpoint; see `net.url_mistake`."""
    text = plain_text(value)
    return refuse(mistake) if (mistake := net.url_mistake(text)) else text


def address(value: object) -> Address:
    """`host:port`, `[::1]:port`, or `:port` for every address of the machine."""
    found = net.parse_address(plain_text(value))
    return found or refuse("must be host:port, as 127.0.0.1:8080, [::1]:8080 or 0.0.0.0:8080")


def sha256(value: object) -> str:
    """The SHA-256 of a gateway key, in hex."""
    return text_like(SHA256, "must be the 64 hex digits of a SHA-256; `gatepass keys new NAME` prints one")(
        value
    ).lower()


name_text = text_like(NAME, "must be a name: letters, digits, `.`, `_` and `-`, at most 64")
dotted_path = text_like(DOTTED, "must be a dotted path, as data.access_token")
path_pattern = text_like(net.PATTERN, "must be a path pattern that begins with /, as /v1/** or /files/*")
prefix_text = text_like(net.PREFIX, "must be a path as /name: no slash at the end, no dot segments, no escapes")
