"""Hashes of keys that somebody could guess: the empty key, common passwords, and words from our documentation.

A key is only as secret as the text behind its hash, and these texts are in every attacker's list. The common passwords
are in `common_passwords.bin`, as hashes (`deploy/release/common_passwords.py` makes it).
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = 5
"""Bytes of a hash in the file."""
WORDS = (
    "", "0", "1", "a", "abc", "acme", "admin", "api", "apikey", "api-key", "api_key", "app", "back-office",
    "bar", "baz", "bearer", "billing", "canary", "change-me", "change_me", "changeit", "changeme", "client",
    "client_secret", "correct horse battery staple", "correcthorsebatterystaple", "credential", "default", "demo",
    "dev",
    "dummy", "example", "fixme", "foo", "foobar", "gatepass", "gateway", "gp_", "guest", "hello", "hello world",
    "hunter2", "insecure", "key", "ledger", "localhost", "mykey", "my-key", "my-secret-key",
    "mysecret", "none", "null", "onboarding-web", "operator", "orders", "p@ssw0rd", "p@ssword", "pass", "passphrase",
    "password", "placeholder", "prod", "production", "replace-me", "replaceme", "root", "s3cr3t", "s3cret", "sample",
    "sandbox", "secret", "secret-key", "secretkey", "service", "staging", "supersecret", "super-secret", "test",
    "test-key", "testkey", "testing", "todo", "token", "true", "undefined", "user", "username", "web", "x",
    "x-gatepass-key", "xxx", "your-key-here", "your-secret-here",
)  # fmt: skip
"""Texts that people write as examples and placeholders, among them all names in our own documentation."""
ENDINGS = ("", "\n", "\r\n", "1", "12", "123", "1234", "!", "123!")


def spellings(word: str) -> Iterable[str]:
    """Yield a word in the usual spellings: capitalised, in capitals, with a number, with a line end."""
    for form in {word, word.lower(), word.capitalize(), word.upper()}:
        for ending in ENDINGS:
            yield form + ending


@cache
def _known() -> frozenset[bytes]:
    data = (files("gateway.config.keys") / "common_passwords.bin").read_bytes()
    return frozenset(data[at : at + PREFIX] for at in range(0, len(data), PREFIX)) | hashes(WORDS)


def hashes(words: Iterable[str]) -> frozenset[bytes]:
    """Return the beginnings of the SHA-256 of all spellings of `words`."""
    texts = {spelling for word in words for spelling in spellings(word)}
    return frozenset(hashlib.sha256(text.encode()).digest()[:PREFIX] for text in texts)


def is_guessable(digest: str, more: frozenset[bytes] = frozenset()) -> bool:
    """Return whether a SHA-256 (hex) is that of a well-known text, or is in `more`, a result of `hashes`."""
    beginning = bytes.fromhex(digest)[:PREFIX]
    return beginning in _known() or beginning in more
