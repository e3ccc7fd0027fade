"""Decides whether an answer says that the token is no longer valid: by status, or by a value in a JSON error body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import Aborted, UpstreamReset
from gateway.model.http import ERROR
from gateway.payload import decode, looks_like_json, read_json, scalar_text

if TYPE_CHECKING:
    from gateway.model import RefusalSign
    from gateway.proxy.body import Body
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.response import Outbound

_MOST_BODY: Final = 64 * 1024
_TELLING: Final = 4
"""Bytes that show whether a body may be JSON: a byte order mark and one more, or one character of UTF-32."""
_STREAMS: Final[tuple[str, ...]] = ("event-stream", "ndjson", "jsonl", "json-seq", "stream+json", "grpc", "multipart")
"""Parts of media types whose answers come bit by bit: they are never held back."""
_COMPRESSED: Final[tuple[str, ...]] = ("gzip", "deflate")


async def is_refusal(x: Exchange, signs: tuple[RefusalSign, ...], head: Outbound, body: Body) -> bool:
    """Return whether one of `signs`, all for this status, matches the answer.

    If a sign depends on the body, up to 64 KiB of it are read into `x.prefetched` and relayed from there. What a body
    is labelled as does not matter if the status is an error; only other bodies must be labelled as JSON.
    """
    if any(sign.path is None for sign in signs):
        return True
    media_type, coding = head.value(b"content-type").lower(), head.value(b"content-encoding").lower()
    if any(name in media_type for name in _STREAMS) or (head.code < ERROR and "json" not in media_type):
        return False
    x.prefetched = await _beginning(body, coding)
    plain = decode(x.prefetched, coding, _MOST_BODY)
    if plain is None:
        return False
    document = read_json(plain)
    return any(not sign.values.isdisjoint(_words(document, sign.path or "")) for sign in signs)


async def _beginning(body: Body, coding: str) -> bytes:
    """Return the first 64 KiB of a body that may be JSON, less of any other. Raises UpstreamReset if it breaks off."""
    pieces: list[bytes] = []
    size = 0
    unsure = not any(name in coding for name in _COMPRESSED)
    try:
        while size <= _MOST_BODY and (piece := await body.read()):
            pieces.append(piece)
            size += len(piece)
            if unsure and size >= _TELLING:
                unsure = False
                if not looks_like_json(b"".join(pieces)):
                    break
    except Aborted as error:
        raise UpstreamReset(reason=error.reason) from None  # the app has not seen the head yet
    return b"".join(pieces)


def _words(document: object, path: str) -> list[str]:
    """Return the scalar at a dotted path as text, or the scalars of the list there."""
    for step in path.split("."):
        if isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        elif isinstance(document, dict):
            document = document.get(step)
        else:
            return []
    words = document if isinstance(document, list) else [document]
    return [text for word in words if (text := scalar_text(word)) is not None]
