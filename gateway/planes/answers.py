"""The answer to a question: built once per token, and sent to every question until the token is replaced.

An answer has *every* field that the route injects, or building it fails. With an incomplete answer, a plane would
forward the request without the missing field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import TokenMalformed

if TYPE_CHECKING:
    from gateway.access import Allowance
    from gateway.model import Token
    from gateway.proxy.prepared import PreparedRoute

ACCEPTED_AFTER: Final = 5.0
"""Seconds after a token's first use, after which the vendor counts as having accepted it unless it was refused."""
_LINE_END: Final = b"\r\n"


def generation_of(token: Token) -> str:
    """Return a token's name in `X-Gatepass-Generation`: `NUMBER-FINGERPRINT`.

    The fingerprint is needed because another process may have given the same number to another token.
    """
    return f"{token.generation}-{token.fingerprint}"


class Answer:
    """The answer of a route with one set of tokens."""

    __slots__ = ("accepted", "generation", "handed", "head", "since", "tokens")

    def __init__(self, prepared: PreparedRoute, tokens: tuple[Token, ...], now: float) -> None:
        """Build the answer; `now` is monotonic. Raises TokenMalformed if an injected field would be missing."""
        lines = prepared.lines(tokens)
        if len(lines) != len(prepared.route.injections) or not all(map(_is_field, lines)):
            raise TokenMalformed(reason="a token that cannot be written as a header field")
        self.tokens = tokens
        self.generation = ".".join([generation_of(token) for token in tokens])
        self.since = now
        self.accepted = False
        """Whether it is decided if the vendor accepts the tokens: none was refused in time, or one was."""
        self.handed: dict[Allowance, int] = {}
        """By client: calls that were counted, each of which entitles it to one uncounted question about a refusal."""
        self.head = b"\r\n".join(
            [
                b"HTTP/1.1 200 OK",
                b"Content-Length: 0",
                b"Cache-Control: no-store",
                *lines,
                b"X-Gatepass-Generation: " + self.generation.encode("ascii"),
                b"X-Request-Id: ",
            ]
        )

    def has(self, tokens: tuple[Token, ...]) -> bool:
        """Return whether the answer was built with exactly these tokens."""
        if len(tokens) == 1:
            return tokens[0] is self.tokens[0]
        return all(one is other for one, other in zip(tokens, self.tokens, strict=True))


def _is_field(line: bytes) -> bool:
    _, colon, value = line.partition(b":")
    return bool(colon) and bool(value.strip()) and not any(end in line for end in _LINE_END)


class RouteAnswers:
    """The answer of a route with its current tokens, and the previous answer."""

    __slots__ = ("_last", "_previous", "prepared")

    def __init__(self, prepared: PreparedRoute) -> None:
        self.prepared = prepared
        self._last: Answer | None = None
        self._previous: Answer | None = None

    def answer(self, tokens: tuple[Token, ...], now: float) -> Answer:
        """Return the answer with these tokens, built if necessary; `now` is monotonic. Raises TokenMalformed."""
        last = self._last
        if last is None or not last.has(tokens):
            self._previous = last
            self._last = last = Answer(self.prepared, tokens, now)
        elif not last.accepted and now - last.since >= ACCEPTED_AFTER:
            last.accepted = True
            self.prepared.accepted(tokens)
        return last

    def repeats(self, generation: str, allowance: Allowance) -> bool:
        """Return whether a question about a refused generation belongs to a call that was already counted."""
        for answer in (self._last, self._previous):
            if answer is not None and answer.generation == generation:
                left = answer.handed.get(allowance, 0)
                if left:
                    answer.handed[allowance] = left - 1
                return left > 0
        return False

    async def refused(self, generation: str) -> bool:
        """Invalidate the tokens of a refused generation that are still in use, and fetch the next ones.

        Return whether all of them stay in use, because no forced fetch is allowed yet or the credential is static.
        """
        prepared, kept = self.prepared, 0
        names = generation.split(".")
        if self._last is not None and self._last.generation == generation:
            self._last.accepted = True  # decided: a refused token must not count as accepted later
        prepared.metrics.vendor_refusal()
        for injector, name in zip(prepared.injectors, names, strict=False):
            token = injector.tokens.current()
            if token is not None and generation_of(token) == name:
                kept += await injector.tokens.refused(token) is None and injector.tokens.current() is not None
        return kept == len(prepared.injectors)
