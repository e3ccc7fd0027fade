"""Removes secrets from values that are about to be printed. The last step before every renderer.

Three defences: values wrapped in `model.Secret` print as fingerprints; secrets that this process holds (`register`) are
found in any text, in their usual encodings, even cut short; patterns match credentials that the process never held (an
app's bearer, a key in a URL). When in doubt, it masks. Knows nothing of logging; the admin port uses it, too.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from gateway.model import Secret
from gateway.observe.redaction.matcher import SecretMatcher

MASK = "<redacted>"
DEPTH = 8
"""Levels of nesting that are printed; deeper values are not."""
ITEMS = 1000
"""Items of one collection that are printed; the others are not."""

SHORT = 40
"""A request id of up to this many characters is too short for a JWT or one of our keys."""
LONGEST = 64 * 1024
"""Characters of one text that are printed, which also bounds the work."""

OFTEN = 256
"""Texts that `redact_often` caches."""

_live = SecretMatcher()
_often: dict[tuple[int, str], str] = {}

_PATTERNS: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    (
        ("private key",),
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        MASK,
    ),
    (
        ("bearer", "basic"),
        re.compile(r"\b(bearer|basic)(\s+|%20|\+)[^\s\"',;]+", re.IGNORECASE),
        rf"\1 {MASK}",
    ),
    (("eyj",), re.compile(r"(?<![A-Za-z0-9])eyJ[\w-]{5,}(?:\.[\w-]*){0,4}"), MASK),
    (("gp_",), re.compile(r"gp_[0-9A-Za-z]{16,}"), MASK),
    (("@",), re.compile(r"(?<=://)[^\s/@\"']+@"), f"{MASK}@"),
    (
        ("authorization", "cookie"),
        re.compile(r"(authorization|cookie)(\\?[\"']?\s*[:=,]\s*b?\\?[\"']?)[^\"'\r\n]+", re.IGNORECASE),
        rf"\1\2{MASK}",
    ),
    (
        ("secret", "passw", "credential", "token", "key", "assertion"),
        re.compile(
            r"((?:secret|passw(?:or)?d|client_credential|[_-]token|api[_-]?key|gatepass-key|secret[_-]key|assertion)"
            r"\\?[\"']?\s*[:=]\s*b?\\?[\"']?)(?!<redacted>|<secret )[^\s&\"',;}\)\\]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (("?", "&"), re.compile(r"([?&][\w.~%\[\]-]+=)(?!<redacted>|<secret )[^&\s\"'<>]+"), rf"\1{MASK}"),
)
"""Lower-case words without which the pattern cannot match, the pattern, its replacement. In this order: private keys,
credentials after a scheme, JWTs, our own keys, user info in URLs, header fields, named values, values of a query."""
_WORD = re.compile(r"[A-Za-z0-9_.-]*")
"""Most values of an event are such a word, in which only two of the patterns can match."""

_SECRET_NAMES = frozenset(
    {
        "access_token", "api_key", "apikey", "assertion", "authorization", "client_assertion", "client_credential",
        "cookie", "id_token", "password", "passwd", "private_key", "proxy_authorization", "refresh_token",
        "set_cookie", "token", "x_gatepass_key",
    }
)  # fmt: skip
_SECRET_ENDINGS = ("_secret", "_password", "_api_key", "_secret_key", "_access_token")


class OwnWords(str):
    """A message of our own that contains no value, only names of keys, files and variables.

    The patterns would take a key for the name of a secret, and the next word for its value: `client_secret: variable`.
    """

    __slots__ = ()


def register(secret: Secret) -> None:
    """Redact a secret, in any encoding, from everything printed from now on.

    For tokens when they arrive; the most recent ones are kept. For configured secrets, use `register_all`. Secrets of
    fewer than `matcher.SHORTEST` characters are not searched for, because they would mask half of every line.
    """
    _live.add(secret.reveal())


def register_all(value: object) -> None:
    """Redact every `Secret` in a tree of dataclasses, mappings and sequences, such as a `model.Config`.

    They are kept as long as the process runs; tokens do not displace them.
    """
    if isinstance(value, Secret):
        _live.add(value.reveal(), kept=True)
    elif isinstance(value, Mapping):
        for item in value.values():
            register_all(item)
    elif isinstance(value, (tuple, list, AbstractSet)):
        for item in value:
            register_all(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            register_all(getattr(value, field.name))


def is_live(text: str) -> bool:
    """Return whether `text` as a whole is a registered secret. Costs one look-up."""
    return text in _live


def shown_id(request_id: str) -> str:
    """Return an app's request id, redacted. Cheap for a short one."""
    return request_id if len(request_id) <= SHORT and not is_live(request_id) else redact_text(request_id)


def redact_often(text: str) -> str:
    """As `redact_text`, with a cache for texts that repeat, such as the reasons of many failures.

    Registering a secret clears the cache.
    """
    key = (_live.version, text)
    known = _often.get(key)
    if known is None:
        if len(_often) >= OFTEN:
            _often.clear()
        known = _often[key] = redact_text(text)
    return known


def redact_text(text: str) -> str:
    """Return `text` without registered secrets and without text that looks like a credential.

    The result is valid UTF-8 and has at most `LONGEST` characters. In `OwnWords`, only registered secrets are masked.
    """
    own = isinstance(text, OwnWords)
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    text = _live.mask(str(text), MASK)
    if own:
        return text
    if _WORD.fullmatch(text) and "eyJ" not in text and "gp_" not in text:
        return text
    lower = text.lower()
    for triggers, pattern, replacement in _PATTERNS:
        if any(trigger in lower for trigger in triggers):
            text = pattern.sub(replacement, text)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def redact(value: object) -> Any:
    """Return a copy of `value` that is safe to print: only None, bool, numbers, `str`, `list` and `dict` remain."""
    return _redact(value, DEPTH)


def _redact(value: object, depth: int) -> Any:  # noqa: PLR0911  a table of types, one line each
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return _redact_int(value)
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return redact_text(bytes(value).decode("utf-8", "backslashreplace"))
    if isinstance(value, (Mapping, list, tuple, AbstractSet)) and not depth:
        return "<too deep>"
    if isinstance(value, Mapping):
        return dict(_items(value, depth))
    if isinstance(value, (list, tuple, AbstractSet)):
        return [_redact(item, depth - 1) for item in _first(value)]
    return redact_text(_repr(value))


def _redact_int(value: int) -> int | str:
    """Return the number, or a text if its digits are a secret or JSON cannot represent it."""
    text = str(value) if -(1 << 256) < value < 1 << 256 else "<huge number>"
    if is_live(text) or not -(1 << 63) <= value < 1 << 63:
        return redact_text(text)
    return value


def _items(mapping: Mapping[Any, Any], depth: int) -> Iterable[tuple[str, Any]]:
    for key in _first(mapping):
        name = redact_text(key if isinstance(key, str) else _repr(key))
        yield name, MASK if _names_a_secret(name, mapping[key]) else _redact(mapping[key], depth - 1)


def _names_a_secret(name: str, value: object) -> bool:
    """Return whether a value must be masked because of its name. A `Secret` prints its fingerprint instead."""
    plain = name.lower().replace("-", "_")
    telling = plain in _SECRET_NAMES or plain.endswith(_SECRET_ENDINGS)
    return telling and value is not None and not isinstance(value, (Secret, bool))


def _first(values: Iterable[Any]) -> Iterable[Any]:
    return (item for _, item in zip(range(ITEMS), values, strict=False))


def _repr(value: object) -> str:
    if isinstance(value, type):
        return value.__qualname__
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001  a foreign repr may raise anything, and the event must still be printed
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
