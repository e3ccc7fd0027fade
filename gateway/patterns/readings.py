"""All the ways in which a server may read a path. The one place that knows them (docs/decisions/0012).

A server may decode percent escapes or not, take an encoded slash for a separator or for data, drop path parameters
(`;a=b`, RFC 3986 §3.3) before or after decoding, compare characters by their Unicode compatibility form, and ignore
blanks and dots at the end of a segment. It may do each of these or not; case is ignored where readings are compared.
Patterns are read in the same ways: their wildcards are control characters here, which no path contains.
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from typing import TYPE_CHECKING, Final

from gateway.errors import PathRefused

if TYPE_CHECKING:
    from collections.abc import Callable

STAR: Final = "\x01"
"""Stands for `*` in a pattern."""
GLOBSTAR: Final = "\x02"
"""Stands for `**` in a pattern."""
DATA_SLASH: Final = "\x03"
"""An encoded slash that does not separate segments."""
MOST: Final = 64 * 1024
"""Characters in all readings of one path together; a path with more is refused, because judging it takes too long."""
MOST_ODD: Final = 64
"""Parameters in one path, and blanks and dots at the end of a segment."""
MOST_FOREIGN: Final = 1000
"""Characters in one path that are not ASCII."""

_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,=:@-]++(?<!\.))*+/?+\Z")
"""No percent, semicolon or backslash, no empty segment, and no segment that ends with a dot."""
_TOO_MUCH: Final = "too much that can be read in several ways"
_PARAMETER: Final = re.compile(r";[^/]*")
_ENDS: Final = re.compile(r"(?<=/)\s++(?:[.\s]++(?=/|\Z))?|(?<![.\s])[.\s]++(?=/|\Z)")
_NOT_UTF_8: Final = re.compile(r"[\udc80-\udcff]")
"""Bytes that are not UTF-8 and that Python keeps as surrogates; they are read as ISO 8859-1."""
_LOOK_ALIKES: Final = {0x2044: "/", 0x2215: "/", 0x29F8: "/", 0x2216: "\\", 0x29F5: "\\", 0x29F9: "\\"}
"""Slashes that have no compatibility form, and that some conversions to ASCII map all the same."""
_DROPPED: Final = frozenset({"Mn", "Cf"})
"""Unicode categories of accents and of invisible characters."""

_NOT_VISIBLE: Final = re.compile(r"[^\x21-\x7e]")
_NO_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_OVERLONG: Final = re.compile(r"%[Cc][01]|%[Ee]0%[89]|%[Ff]0%8")
_CONTROL: Final = re.compile(r"[\x00-\x02\x04-\x1f\x7f]")
_ESCAPE: Final = re.compile(r"%(?:[0-9A-Fa-f]{2}|[Uu][0-9A-Fa-f]{4})")
_DOT_SEGMENT: Final = re.compile(r"[/\x03]\.{1,2}\s*(?=[/;\x03]|\Z)")
_BLANK: Final = re.compile(r"\s")
_NON_ASCII: Final = re.compile(r"[^\x00-\x7f]+")


def is_plain(path: str) -> bool:
    """Whether every server reads this path alike, so that it is its only reading. May say no too often."""
    return _PLAIN.match(path) is not None and "::$" not in path


def distinct_readings(path: str) -> list[str]:
    """Return every reading of `path` once. Raises PathRefused if that is too much work."""
    written = _grown([path], _without_parameters)
    return _grown_variants(list(dict.fromkeys([*written, *_decoded_readings(written)])))


def readings(path: str) -> tuple[str, ...]:
    """Return every reading of `path`, with repetitions: their number and order are the same for all paths.

    The readings at one index come from the same operations, so that paths and patterns can be compared by index. Takes
    visible ASCII, and the control characters that stand for wildcards. Raises PathRefused if that is too much work.
    """
    written = _also([path], _without_parameters)
    decoded = _each(written, _with_data_slashes) + _each(written, _decode)
    return (*_variants(decoded), *_variants(written))


def refusal(path: str) -> str | None:
    """Return what makes servers disagree about `path`, for people; None if nothing does."""
    if _NOT_VISIBLE.search(path) is not None:
        return "a byte that is not visible ASCII"
    if _NO_ESCAPE.search(path) is not None:
        return "a percent sign that starts no encoded byte"
    if _OVERLONG.search(path) is not None:
        return "an overlong UTF-8 sequence"
    try:
        decoded = _grown_variants(_decoded_readings(_grown([path], _without_parameters)))
    except PathRefused as error:
        return error.reason
    return next((fault for fault in map(_fault, decoded) if fault), None)


def _fault(reading: str) -> str:
    """Return what no decoded reading may hold, or nothing."""
    if "\\" in reading:
        return "a backslash"
    if "//" in reading:
        return "an empty segment (`//`) in one of its readings"
    if _CONTROL.search(reading) is not None:
        return "an encoded control byte"
    if "%" in reading and _ESCAPE.search(reading) is not None:
        return "a double encoding"
    if ("/." in reading or "\x03." in reading) and _DOT_SEGMENT.search(reading) is not None:
        return "a dot segment"
    return ""


def pattern_mistake(pattern: str) -> str | None:
    """Return why no request can have a path that `pattern` describes, for people; None if one can."""
    reason = refusal(re.sub(r"\*\*?", "w", pattern))
    return None if reason is None else f"holds {reason}: a request for such a path is always refused"


def _too_much() -> PathRefused:
    return PathRefused(f"The path holds {_TOO_MUCH}", reason=_TOO_MUCH)


def _variants(texts: list[str]) -> list[str]:
    """Apply what a server may do after it has decoded, or not decoded, a path."""
    texts = _also(_also(texts, _without_parameters), _compatible)
    return _also(_also(texts, _without_parameters), _without_ends)


def _grown_variants(texts: list[str]) -> list[str]:
    """Return what `_variants` does, once each."""
    texts = _grown(_grown(texts, _without_parameters), _compatible)
    return _grown(_grown(texts, _without_parameters), _without_ends)


def _decoded_readings(written: list[str]) -> list[str]:
    decoded: list[str] = []
    for text in written:
        for reading in (_with_data_slashes(text), _decode(text)):
            if reading not in decoded:
                decoded.append(reading)
    return decoded


def _grown(texts: list[str], change: Callable[[str], str]) -> list[str]:
    """Return `texts`, and those of them that `change` changes, once each."""
    grown = texts
    for text in texts:
        changed = change(text)
        if changed is not text and changed not in grown:
            grown = [*grown, changed]
    if len(grown) > 1 and sum(map(len, grown)) > MOST:
        raise _too_much()
    return grown


def _also(texts: list[str], change: Callable[[str], str]) -> list[str]:
    """Return `texts`, and `texts` changed."""
    return texts + _each(texts, change)


def _each(texts: list[str], change: Callable[[str], str]) -> list[str]:
    if len(texts) == 1:
        return [change(texts[0])]
    changed = {text: change(text) for text in dict.fromkeys(texts)}
    if sum(map(len, changed)) > MOST // 2:
        raise _too_much()
    return [changed[text] for text in texts]


def _without_parameters(text: str) -> str:
    if ";" not in text:
        return text
    if text.count(";") > MOST_ODD:
        raise _too_much()
    return _PARAMETER.sub("", text)


def _with_data_slashes(text: str) -> str:
    return _decode(text.replace("%2f", DATA_SLASH).replace("%2F", DATA_SLASH)) if "%" in text else text


def _decode(text: str) -> str:
    """Decode all escapes: as quoted-printable, which differs by its sign alone and is decoded in C."""
    if "%" not in text:
        return text
    data = binascii.a2b_qp(text.replace("=", "=3D").replace("%", "=").encode("ascii"))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _NOT_UTF_8.sub(_as_latin, data.decode("utf-8", "surrogateescape"))


def _as_latin(byte: re.Match[str]) -> str:
    return chr(ord(byte[0]) - 0xDC00)


def _compatible(text: str) -> str:
    """Return the text in its compatibility form, without accents and invisible characters (Unicode TR 15)."""
    if text.isascii():
        return text
    if len(text.encode("utf-8")) - len(text) > MOST_FOREIGN:  # each takes one to three bytes more
        raise _too_much()
    return _NON_ASCII.sub(_compatible_part, text)


def _compatible_part(part: re.Match[str]) -> str:
    normal = unicodedata.normalize("NFKD", part[0]).translate(_LOOK_ALIKES)
    return "".join([char for char in normal if char < "\x80" or unicodedata.category(char) not in _DROPPED])


def _without_ends(text: str) -> str:
    """Return the text without blanks around segments, and without dots at the end of segments."""
    if " " in text or "./" in text or text[-1:] == "." or not (text.isascii() or _BLANK.search(text) is None):
        if text.count("./") + text.count(" ") > MOST_ODD:
            raise _too_much()
        return _ENDS.sub("", text)
    return text


def folded(text: str) -> str:
    """Return the text without case, as servers compare it that convert to upper or lower case; `+` is a blank."""
    if text.isascii():
        return text.lower().replace("+", " ")
    rare = _NON_ASCII.sub(lambda part: part[0].upper().casefold(), text)
    return rare.encode("utf-8").lower().replace(b"+", b" ").decode("utf-8")  # bytes.lower knows ASCII, and is quick
