"""Finds any of many secrets in a text, in the encodings in which a secret can appear.

Knows only strings. Each encoded form of a secret is indexed by its first characters, and a text is scanned once, so the
cost does not grow with the number of secrets. A match may be cut short if it is long enough.
"""

from __future__ import annotations

import base64
import html
import json
from collections import OrderedDict
from urllib.parse import quote, quote_plus

SHORTEST = 6
"""Secrets of fewer characters are not searched for."""
CUT = 12
"""A cut form matches from this many characters on."""
REMEMBERED = 128
"""Tokens held at most; the oldest is dropped first. Each takes about 15 KiB."""
KEPT = 2048
"""Configured secrets held at most; the oldest are dropped first."""


class SecretMatcher:
    """A bounded set of secrets that can be masked in a text."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._secrets: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._kept: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._by_head: dict[str, set[str]] = {}
        self.version = 0
        """Increases with every secret that is added."""

    def __contains__(self, text: object) -> bool:
        return text in self._secrets or text in self._kept

    def __len__(self) -> int:
        return len(self._secrets) + len(self._kept)

    def add(self, secret: str, *, kept: bool = False) -> None:
        """Add a secret, or make it the newest again. Tokens never displace a `kept` secret."""
        if len(secret) < SHORTEST:
            return
        home, room = (self._kept, KEPT) if kept else (self._secrets, self._remembered)
        if secret in home:
            home.move_to_end(secret)
            return
        if secret in self._kept:
            return
        self.version += 1
        home[secret] = found = forms(secret)
        for form in found:
            self._by_head.setdefault(form[:SHORTEST], set()).add(form)
        if len(home) > room:
            self._rebuild_without_the_oldest(home, room)

    def _rebuild_without_the_oldest(self, home: OrderedDict[str, frozenset[str]], room: int) -> None:
        """Rebuild the index, because two secrets may share a form. Drops a sixteenth of the room at once."""
        for _ in range(max(1, room // 16)):
            home.popitem(last=False)
        self._by_head = {}
        for found in (*self._kept.values(), *self._secrets.values()):
            for form in found:
                self._by_head.setdefault(form[:SHORTEST], set()).add(form)

    def mask(self, text: str, mask: str) -> str:
        """Return `text` with every registered secret, whole or cut, replaced by `mask`."""
        heads = self._by_head
        if not heads or heads.keys().isdisjoint([text[i : i + SHORTEST] for i in range(len(text) - SHORTEST + 1)]):
            return text
        out: list[str] = []
        start = at = 0
        while at <= len(text) - SHORTEST:
            length = self._match(text, at)
            if length:
                out += (text[start:at], mask)
                start = at = at + length
            else:
                at += 1
        return "".join([*out, text[start:]])

    def _match(self, text: str, at: int) -> int:
        """Return the length of the longest match at `at`, 0 for none."""
        longest = 0
        for form in self._by_head.get(text[at : at + SHORTEST], ()):
            common = _common_prefix(form, text[at : at + len(form)])
            if common >= min(CUT, len(form)):
                longest = max(longest, common)
        return longest


def _common_prefix(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def forms(secret: str) -> frozenset[str]:
    """Return the texts in which a secret may appear in a log: itself and its encodings.

    Percent and form encoding (RFC 3986, RFC 6749 §2.3.1), JSON and Python escapes, HTML, hex, and base64 (RFC 4648)
    of the plain and the form-encoded secret at each of the three places at which it may start inside a longer
    text, as in `id:secret` of HTTP Basic.
    """
    data = secret.encode("utf-8", "surrogateescape")
    encoded = {secret, quote(data, safe=""), quote(data), quote_plus(data)}
    texts = encoded | {_lower_percent(text) for text in encoded}
    texts |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    texts |= {repr(secret)[1:-1], ascii(secret)[1:-1], repr(data)[2:-1], html.escape(secret)}
    texts |= {data.hex(), data.hex().upper()}
    for text in encoded:
        texts |= _base64_cores(text.encode("utf-8", "surrogateescape"))
    return frozenset(text for text in texts if len(text) >= SHORTEST)


def _lower_percent(text: str) -> str:
    head, *rest = text.split("%")
    return "%".join([head, *(part[:2].lower() + part[2:] for part in rest)])


def _base64_cores(data: bytes) -> set[str]:
    """Return the characters of `data` in base64 that do not depend on what stands before and after it."""
    cores = set()
    for offset, unsure in ((0, 0), (1, 2), (2, 3)):
        whole = (len(data) + offset) * 8 // 6
        padded = b"\0" * offset + data
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            cores.add(encode(padded).decode()[unsure:whole])
    return cores
