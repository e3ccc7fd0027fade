"""Values from outside the file: what an editor or a shell adds to a secret is removed or refused, never sent."""

from __future__ import annotations

import re

LINE_ENDS = re.compile(r"[\r\n]+\Z")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
INVISIBLE = re.compile("[\ufeff\u200b\u2060]")
"""Byte order mark, zero-width space, word joiner."""
SURROGATE = re.compile("[\ud800-\udfff]")
"""Bytes of the environment that are not UTF-8 (PEP 383)."""
LINE_END = {"\r", "\n"}
PEM = "-----BEGIN "


def without_line_ends(text: str) -> str:
    """Return the text of a file or program without a byte order mark at its start and line ends at its end."""
    return LINE_ENDS.sub("", text.removeprefix("\ufeff"))


def mistake(text: str) -> str:
    """Return why a value from outside cannot be meant as it is, as a predicate; an empty string when it can.

    Line ends are allowed inside a PEM block only.
    """
    controls = set(CONTROL.findall(text)) - (LINE_END if text.startswith(PEM) else set())
    rules = (
        (not text, "is empty"),
        (SURROGATE.search(text), "is not UTF-8"),
        (INVISIBLE.search(text), "contains an invisible character, such as a byte order mark"),
        (text != text.strip(), "begins or ends with a blank or a line end"),
        ("\x00" in controls, "contains a NUL character"),
        (controls & LINE_END, "contains a line end"),
        (controls, "contains a control character"),
    )
    return next((wrong for applies, wrong in rules if applies), "")
