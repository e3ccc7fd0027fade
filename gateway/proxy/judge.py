"""Decides whether an answer says that the token is no longer valid: by status, or by a value in a JSON error body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from gateway.model import RefusalSign
    from gateway.proxy.body import Body
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.response import Outbound

_MOST_BODY: Final = 64 * 1024


async def is_refusal(x: Exchange, signs: tuple[RefusalSign, ...], head: Outbound, body: Body) -> bool:
    """Return whether one of `signs`, all for this status, matches the answer.

    If a sign depends on the body, up to 64 KiB of it are read into `x.prefetched` and relayed from there.
    """
    if any(sign.path is None for sign in signs):
        return True
    if "json" not in head.value(b"content-type").lower():
        return False
    pieces: list[bytes] = []
    size = 0
    while size <= _MOST_BODY and (piece := await body.read()):
        pieces.append(piece)
        size += len(piece)
    x.prefetched = b"".join(pieces)
    try:
        document = orjson.loads(x.prefetched)
    except orjson.JSONDecodeError:
        return False
    return any(not sign.values.isdisjoint(_words(document, sign.path or "")) for sign in signs)


def _words(document: object, path: str) -> list[str]:
    """Return the string at a dotted path, or the strings of the list there."""
    for step in path.split("."):
        if isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        elif isinstance(document, dict):
            document = document.get(step)
        else:
            return []
    words = document if isinstance(document, list) else [document]
    return [word for word in words if isinstance(word, str)]
