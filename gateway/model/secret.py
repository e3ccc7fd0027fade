"""`Secret`: a string that cannot be printed, and `Text`, which is plain or secret."""

from __future__ import annotations

import hashlib
import hmac
from typing import NoReturn


class Secret:
    """A string that cannot be printed: `repr`, `str` and `format` show only its fingerprint.

    A value is wrapped where it is read; `reveal()` is called only where it is sent or hashed.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself. Never pass the result to a log, an error or a metric."""
        return self._value

    @property
    def fingerprint(self) -> str:
        """Return the first 8 hex digits of the secret's SHA-256: enough to compare secrets, not enough to use one."""
        return hashlib.sha256(self._value.encode("utf-8", "surrogateescape")).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"<secret {self.fingerprint}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine = self._value.encode("utf-8", "surrogateescape")
        return hmac.compare_digest(mine, other._value.encode("utf-8", "surrogateescape"))

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __reduce__(self) -> NoReturn:
        msg = "a Secret is never pickled or copied out of the process"
        raise TypeError(msg)


Text = str | Secret
"""A value of a token request: plain text, or a secret (everything that came from `${…}`)."""
