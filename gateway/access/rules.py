"""What a client may call: `allow` and `deny` rules of the form `METHODS /path`, as `GET,HEAD /ledger/**`.

Pure. Rules apply to the path as the app wrote it, with the route's prefix, and in all its readings (`patterns/`).
`deny` takes precedence; if there are `allow` rules, a request that matches none of them is rejected. Without methods,
or with `*`, a rule applies to every method. Methods are case-sensitive (RFC 9110 §9.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.errors import ClientForbidden
from gateway.model.http import COMMON_METHODS
from gateway.patterns import AllowPatterns, DenyPatterns

if TYPE_CHECKING:
    from collections.abc import Sequence

ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a client's `allow` or `deny`."""

    text: str
    methods: frozenset[str]
    """Empty: any."""
    pattern: str

    @classmethod
    def of(cls, text: str) -> Rule:
        """Read `GET,HEAD /ledger/**`, `* /ledger/**` or `/ledger/**`."""
        methods, _, pattern = text.rpartition(" ")
        named = {method.strip() for method in methods.split(",")} - {"", ANY}
        return cls(text, frozenset(named), pattern.strip())

    def takes(self, method: str) -> bool:
        """Whether the rule is about this method."""
        return not self.methods or method in self.methods


class Rules:
    """The rules of one client. `check` is the hot path: two expressions at most, chosen by the method."""

    __slots__ = ("_allow", "_by_method", "_client", "_deny", "_others")

    def __init__(self, client: str, allow: Sequence[str], deny: Sequence[str]) -> None:
        self._client = client
        self._allow = tuple(map(Rule.of, allow))
        self._deny = tuple(map(Rule.of, deny))
        methods = {method for rule in (*self._allow, *self._deny) for method in rule.methods}
        self._by_method = {method: self._prepare(method) for method in methods}
        self._others = self._prepare("")

    def __bool__(self) -> bool:
        return bool(self._allow or self._deny)

    def _prepare(self, method: str) -> tuple[DenyPatterns | None, AllowPatterns]:
        denied = [rule.pattern for rule in self._deny if rule.takes(method)]
        allowed = [rule.pattern for rule in self._allow if rule.takes(method)]
        return DenyPatterns(denied) if denied else None, AllowPatterns(allowed)

    def check(self, method: str, path: str, *, plain: bool = False) -> None:
        """Raise ClientForbidden, naming the rule, unless the client may do this.

        `plain`: the path is known to have only one reading.
        """
        deny, allow = self._by_method.get(method, self._others)
        if deny is not None and deny.name(path, plain=plain):
            raise self._denied(method, path)
        if self._allow and not allow.name(path, plain=plain):
            raise ClientForbidden(
                f"The client {self._client} may not do this: no rule of its `allow` matches",
                reason=f"no rule of clients.{self._client}.allow matches the {_word(method)} and the path",
            )

    def _denied(self, method: str, path: str) -> ClientForbidden:
        named = self._named("deny", self._deny)
        name = next(name for name, rule in named if rule.takes(method) and DenyPatterns([rule.pattern]).name(path))
        return ClientForbidden(
            f"The client {self._client} may not do this: its rule {name} forbids it",
            reason=f"clients.{self._client}.{name}",
        )

    def allowing(self, method: str, path: str) -> str:
        """Return the name of the rule that permits a call, for people."""
        for name, rule in self._named("allow", self._allow):
            if rule.takes(method) and AllowPatterns([rule.pattern]).name(path):
                return name
        return "several rules of `allow` together" if self._allow else "no `allow`: everything on its routes"

    @staticmethod
    def _named(which: str, rules: Sequence[Rule]) -> list[tuple[str, Rule]]:
        return [(f"{which}[{index}] ({rule.text})", rule) for index, rule in enumerate(rules)]


def _word(method: str) -> str:
    """Return the method for the log: only a common one by its name, because an app may invent others."""
    return f"method {method}" if method in COMMON_METHODS else "method"
