"""A key that anybody could guess is refused when the configuration is loaded, whoever it is for."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import TYPE_CHECKING

import pytest

from gateway.admin.guard import Guard
from gateway.config.keys.guessable import is_guessable, spellings
from tests.kit.configuration import ROOT, problems

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BASE = """\
credentials: {vault-credential: {static: {token: CANARY-t}}}
routes: {payments-route: {credential: vault-credential, upstream: 'https://api.example.com'}}
"""
PLACES = {
    "client": "clients: [{{name: fraud-desk, key_sha256: {digest}}}]",
    "client, several": f"clients: [{{{{name: fraud-desk, keys_sha256: ['{'ab' * 32}', '{{digest}}']}}}}]",
    "client, expiring": "clients: [{{name: fraud-desk, keys: [{{sha256: '{digest}', expires: 2031-01-31}}]}}]",
    "admin": "admin_keys_sha256: ['{digest}']",
}
GUESSED = [
    "", "\n", "test", "foo",
    "foo\n", "bar\n", "Password1", "letmein", "hunter2", "CHANGEME", "changeme!", "qwerty123",
    "admin", "admin\r\n", "s3cret", "iloveyou", "dragon\n", "onboarding-web", "api-key", "supersecret123",
    "your-key-here",
]  # fmt: skip
NAMES = ["fraud-desk", "payments-route", "vault-credential", "Fraud-desk", "payments-route123", "VAULT-CREDENTIAL\n"]


def digest(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("word", GUESSED, ids=repr)
def test_the_hash_of_a_guessable_key_is_refused_without_naming_the_word(place: str, word: str, tmp_path: Path) -> None:
    [line] = problems(tmp_path, BASE + place.format(digest=digest(word)))
    assert "is the hash of a key that is easy to guess" in line
    assert digest(word) not in line


@pytest.mark.parametrize("place", ["client", "client, several", "admin"])
@pytest.mark.parametrize("word", NAMES, ids=repr)
def test_a_name_of_the_configuration_is_no_key(place: str, word: str, tmp_path: Path) -> None:
    text = BASE + "clients: [{name: fraud-desk, key_sha256: '" + "ab" * 32 + "'}]\n"
    text = (
        BASE + PLACES[place].format(digest=digest(word))
        if place != "admin"
        else text + PLACES[place].format(digest=digest(word))
    )
    [line] = problems(tmp_path, text)
    assert "easy to guess" in line


def test_a_made_key_is_accepted(tmp_path: Path) -> None:
    for place in PLACES.values():
        assert problems(tmp_path, BASE + place.format(digest=digest(f"gp_{secrets.token_urlsafe(24)}"))) == []


SHOWN = [
    path
    for folder in ("docs", "examples", "deploy", "grafana")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".md", ".yaml", ".yml", ".conf", ".example", ".tpl"} and "node_modules" not in path.parts
]


def test_no_page_and_no_example_shows_the_hash_of_a_known_word() -> None:
    shown = {
        hashed
        for path in [*SHOWN, ROOT / "README.md", ROOT / "config.yaml"]
        for hashed in re.findall(r"\b[0-9a-fA-F]{64}\b", path.read_text("utf-8"))
    }
    assert shown, "the pages show no hash at all"
    assert [hashed for hashed in shown if is_guessable(hashed)] == []


@pytest.mark.parametrize("key", ["", " ", "\t"])
def test_the_empty_key_opens_no_admin_port_even_if_its_hash_were_configured(key: str) -> None:
    guard = Guard()
    guard.use([digest("")])
    assert not guard.is_key(key)


@pytest.mark.parametrize("clients", [1, 40])
def test_names_are_hashed_once_however_many_keys_there_are(
    clients: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a key, a thousand clients and routes took a minute to load."""
    hashed: list[str] = []

    def counted(word: str) -> Iterable[str]:
        hashed.append(word)
        return spellings(word)

    is_guessable(digest("CANARY-first"))  # the words of the documentation are hashed now
    monkeypatch.setattr("gateway.config.keys.guessable.spellings", counted)
    rows = [f"{{name: desk-{at}, keys_sha256: ['{digest(f'CANARY-{at}')}']}}" for at in range(clients)]
    assert problems(tmp_path, f"{BASE}clients: [{', '.join(rows)}]\nadmin_keys_sha256: ['{digest('CANARY-a')}']") == []
    assert sorted(hashed) == sorted(["payments-route", "vault-credential", *(f"desk-{at}" for at in range(clients))])
