"""A plane reports that a vendor refused a token that was pushed: replace it, and answer when the next one is in place.

A report may have the value of the field that the plane has sent; then only exactly this token is invalidated. Without
it, the token in use is meant, unless it is so new that the report may be about the one before: the answer then waits
until the token is no longer new, so that a second report about the same request is about this token. Many requests fail
together, and their reports come late: a report about an older token invalidates nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal, Protocol

from gateway.errors import TokenError
from gateway.planes import sds

if TYPE_CHECKING:
    from gateway.model import Token, Tokens
    from gateway.planes.files import File
    from gateway.planes.push import Push

Result = Literal["replaced", "known", "limited", "unavailable", "unknown"]
"""`replaced`: that token was dropped, and the next one is in place. `known`: an older token; the present one is in
place. `limited`: it stays in use, because no fetch is allowed yet. `unavailable`: there is no other token. `unknown`:
no token that was pushed."""
NEW: Final = 0.5
"""Seconds for which a report without a value is taken to be about the token before: the plane uses a new token within
`UPTAKE`, and a vendor that refuses a token does so at once."""
PROVEN: Final = 5.0
"""Seconds without a report after which the vendor is taken to have accepted a pushed token. A plane reports no success,
and a token that was never accepted is replaced less often."""


class Source(Protocol):
    """The tokens of all credentials, as `TokenSet` has them."""

    def held(self, name: str) -> Token | None:
        """Return the valid token of a credential, if any."""

    def tokens(self, name: str) -> Tokens:
        """Return the tokens of one credential."""


async def report(push: Push, source: Source, credential: str, sent: bytes) -> Result:
    """Take a report about a token; return when the file has another one, or when there is none.

    `sent` is the value of the field with the token; empty if the plane does not tell it.
    """
    file, found = push.files.get(credential), sds.digests(sent)
    if file is None:
        return "unknown"
    held = source.held(credential)
    if sent:
        refused = held if held is not None and sds.digest(held) in found else None
        if refused is None and found.isdisjoint(file.recent):
            return "unknown"
    else:
        new_for = NEW - push.seconds_since(file)
        refused = held if held is file.token and new_for <= 0 else None
        if held is file.token and new_for > 0:
            await push.sleep(new_for)
    try:
        async with asyncio.timeout(push.hold):
            if refused is not None and not await _replace(push, file, source.tokens(credential), refused):
                return "limited"
            await source.tokens(credential).get()
            await push.replaced(credential, found)
    except (TokenError, TimeoutError):
        push.give_up(credential)
        return "unavailable"
    return "known" if refused is None else "replaced"


async def _replace(push: Push, file: File, tokens: Tokens, refused: Token) -> bool:
    """Invalidate a token; return whether that is allowed now."""
    if file.doubted is not refused:
        file.doubted = refused
        if push.seconds_since(file) >= PROVEN:
            tokens.accepted(refused)
    await tokens.refused(refused)
    return tokens.current() is not refused
