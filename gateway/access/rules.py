"""What a client may call: `allow` and `deny` rules of the form `METHODS /path`, as `GET,HEAD /ledger/**`.

Pure. Paths are those that the app wrote, route prefix included, after routing has refused every ambiguous one. Deny
wins; where there are `allow` rules, what none of them names is refused. Without methods, or with `*`, a rule is for
every method; methods are case-sensitive (RFC 9110 §9.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.errors import ClientForbidden
from gateway.model.http import COMMON_METHODS
from gateway.patterns import ALLOWING, DENYING, bare, compiled, decoded

if TYPE_CHECKING:
    import re
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


Compiled = tuple["re.Pattern[str] | None", "re.Pattern[str] | None"]


class Rules:
    """The rules of one client. `check` is the hot path: two expressions at most, chosen by the method."""

    __slots__ = ("_allow", "_by_method", "_client", "_deny", "_others")

    def __init__(self, client: str, allow: Sequence[str], deny: Sequence[str]) -> None:
        self._client = client
        self._allow = tuple(map(Rule.of, allow))
        self._deny = tuple(map(Rule.of, deny))
        methods = {method for rule in (*self._allow, *self._deny) for method in rule.methods}
        self._by_method = {method: self._compile(method) for method in methods}
        self._others = self._compile("")

    def __bool__(self) -> bool:
        return bool(self._allow or self._deny)

    def _compile(self, method: str) -> Compiled:
        denied = [rule.pattern for rule in self._deny if rule.takes(method)]
        allowed = [rule.pattern for rule in self._allow if rule.takes(method)]
        return compiled(denied, DENYING), compiled(allowed, ALLOWING)

    def check(self, method: str, path: str) -> None:
        """Raise ClientForbidden, naming the rule, unless the client may do this."""
        deny, allow = self._by_method.get(method, self._others)
        plain = decoded(path)
        if deny is not None and deny.match(bare(plain)) is not None:
            raise self._denied(method, bare(plain))
        if self._allow and (allow is None or not allow.match(path) or (plain is not path and not allow.match(plain))):
            raise ClientForbidden(
                f"The client {self._client} may not do this: no rule of its `allow` fits",
                reason=f"no rule of clients.{self._client}.allow fits the {_word(method)} and the path",
            )

    def _denied(self, method: str, plain: str) -> ClientForbidden:
        [name, *_] = [name for name, rule in self._named("deny", self._deny) if _fits(rule, method, plain, DENYING)]
        return ClientForbidden(
            f"The client {self._client} may not do this: its rule {name} forbids it",
            reason=f"clients.{self._client}.{name}",
        )

    def allowing(self, method: str, path: str) -> str:
        """Name the rule that lets a permitted call pass, for people."""
        found = [name for name, rule in self._named("allow", self._allow) if _fits(rule, method, path, ALLOWING)]
        return found[0] if found else "no `allow`: everything on its routes"

    @staticmethod
    def _named(which: str, rules: Sequence[Rule]) -> list[tuple[str, Rule]]:
        return [(f"{which}[{index}] ({rule.text})", rule) for index, rule in enumerate(rules)]


def _fits(rule: Rule, method: str, path: str, flags: int) -> bool:
    expression = compiled([rule.pattern], flags)
    return rule.takes(method) and expression is not None and expression.match(path) is not None


def _word(method: str) -> str:
    """A method is the app's own word: only one that everybody knows is repeated in a log."""
    return f"method {method}" if method in COMMON_METHODS else "method"
