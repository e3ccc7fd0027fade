"""Handles a report that the vendor refused a pushed token: fetches the next one, and waits until the file has it.

A report may have the value of the field that the plane sent; then only exactly that token is invalidated. A report
without a value is about the token in use, unless that token is new: then it may be about the previous one, so nothing
is invalidated, and the answer waits until the token is no longer new. A second report about the same request is then
about this token. Many requests fail together, and some reports arrive late: one about an older token invalidates
nothing.
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
"""`replaced`: the token was invalidated, and the file has the next one. `known`: the report is about an older token;
the file has the present one. `limited`: the token stays in use, because no fetch is allowed yet. `unavailable`: there
is no other token. `unknown`: the value is not a token that was pushed."""
NEW: Final = 0.5
"""Seconds for which a token in the file counts as new: a plane uses it within `UPTAKE`, and a vendor refuses a token at
once, so a report in this time is probably about the previous token."""
PROVEN: Final = 5.0
"""Seconds without a report after which the vendor counts as having accepted a pushed token. Planes do not report
success, and a token that was never accepted is replaced less often."""


class Source(Protocol):
    """The tokens of all credentials, as `TokenSet` has them."""

    def held(self, name: str) -> Token | None:
        """Return the valid token of a credential, if any."""

    def tokens(self, name: str) -> Tokens:
        """Return the tokens of one credential."""


async def report(push: Push, source: Source, credential: str, sent: bytes) -> Result:
    """Handle a report about a token; return when the file has another token, or when none comes.

    `sent` is the value of the request's field with the token; empty if the report does not have it.
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
    """Invalidate a token and fetch the next one; return False if no fetch is allowed now, so that it stays in use."""
    if file.doubted is not refused:
        file.doubted = refused
        if push.seconds_since(file) >= PROVEN:
            tokens.accepted(refused)
    await tokens.refused(refused)
    return tokens.current() is not refused
