"""The `store` block: what each form of URL means, and every mistake with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config import json_schema, load, merged
from gateway.config.read.command import Commands
from gateway.model import Address, Secret, StoreConfig, StoreServer
from tests.kit.configuration import loaded, problems, written

if TYPE_CHECKING:
    from pathlib import Path

REST = "credentials: {a: {static: {token: t}}}\nroutes: {a: {credential: a, upstream: 'https://api.example.com'}}\n"
KEY = "CANARY-0123456789abcdefghijklmnopqrs"


def text(keys: str, store_keys: str = f"[{KEY}]") -> str:
    return f"store: {{{keys}, keys: {store_keys}}}\n{REST}"


def stored(folder: Path, keys: str, store_keys: str = f"[{KEY}]", **environ: str) -> StoreConfig:
    found = loaded(folder, text(keys, store_keys), **environ).store
    assert found is not None
    return found


HOST = (Address("valkey.internal", 6379),)
URLS = {
    "redis://valkey.internal": StoreServer(HOST),
    "valkey://valkey.internal:6379/": StoreServer(HOST),
    "redis://valkey.internal:7000/3": StoreServer((Address("valkey.internal", 7000),), database=3),
    "rediss://store.example.com/0": StoreServer((Address("store.example.com", 6379),), tls=True),
    "valkeys://store.example.com:6380": StoreServer((Address("store.example.com", 6380),), tls=True),
    "redis://[fd00::1]": StoreServer((Address("fd00::1", 6379),)),
    "redis://[::1]:6380/1": StoreServer((Address("::1", 6380),), database=1),
    "unix:///run/valkey/valkey.sock": StoreServer(socket="/run/valkey/valkey.sock"),
    "redis+sentinel://s1,s2:26380/mymaster": StoreServer(
        (Address("s1", 26379), Address("s2", 26380)), master="mymaster"
    ),
    "rediss+sentinel://s1.example.com/my-master.1/2": StoreServer(
        (Address("s1.example.com", 26379),), database=2, tls=True, master="my-master.1"
    ),
}


@pytest.mark.parametrize("url", URLS)
def test_each_form_of_url(url: str, tmp_path: Path) -> None:
    assert stored(tmp_path, f'url: "{url}"').server == URLS[url]


def test_a_url_may_come_from_a_variable(tmp_path: Path) -> None:
    assert stored(tmp_path, 'url: "${STORE}"', STORE="redis://valkey.internal").server == StoreServer(HOST)


SHAPES = (
    "must be redis://host:6379/0, rediss://host:6379/0 (TLS), unix:///path/of/socket, "
    "or redis+sentinel://h1:26379,h2:26379/NAME/0"
)
PLAIN = "must be rediss:// (redis:// is only for loopback, private addresses and local names)"
SHORT = "fewer than 32 characters: openssl rand -base64 33"
MISTAKES = {
    "no URL": (f"store: {{keys: [{KEY}]}}\n{REST}", "store.url: is missing"),
    "no keys": (f"store: {{url: 'redis://v'}}\n{REST}", "store.keys: is missing"),
    "an empty list of keys": (
        text("url: 'redis://v'", "[]"),
        "store.keys: is empty: at least one key is needed: openssl rand -base64 33",
    ),
    "a short key": (text("url: 'redis://v'", f"[{KEY}, CANARY-short]"), f"store.keys: key 2 has {SHORT}"),
    "a key without chance": (
        text("url: 'redis://v'", f"[{'ab' * 20}]"),
        "store.keys: key 1 repeats a few characters: openssl rand -base64 33",
    ),
    "one key that is no list": (text("url: 'redis://v'", KEY), "store.keys: must be a list: [a, b]"),
    "a namespace with a colon": (
        text("url: 'redis://v', namespace: 'a:b'"),
        "store.namespace: must be a name of at most 64 letters, digits, dots, underscores and hyphens, as prod",
    ),
    "an empty namespace": (text("url: 'redis://v', namespace: ''"), "store.namespace: is empty"),
    "another scheme": (text("url: 'http://v'"), f"store.url: {SHAPES}"),
    "a bare host": (text("url: 'valkey:6379'"), f"store.url: {SHAPES}"),
    "no host": (text("url: 'redis:///0'"), f"store.url: {SHAPES}"),
    "a port that is none": (text("url: 'redis://v:99999'"), f"store.url: {SHAPES}"),
    "port 0": (text("url: 'redis://v:0'"), f"store.url: {SHAPES}"),
    "a password in the URL": (
        text("url: 'redis://:CANARY@v'"),
        "store.url: must not hold a user name or password; use `username` and `password`",
    ),
    "options in the URL": (
        text("url: 'redis://v?db=1'"),
        f"store.url: must not have options (? or #): {SHAPES.removeprefix('must be ')}",
    ),
    "a database that is no number": (
        text("url: 'redis://v/main'"),
        "store.url: must end with the number of a database: /0",
    ),
    "several servers": (
        text("url: 'redis://a,b'"),
        "store.url: names several servers; only Sentinels can be several: redis+sentinel://h1,h2/NAME/0",
    ),
    "Sentinels without a name": (
        text("url: 'redis+sentinel://a,b'"),
        "store.url: must name the server that the Sentinels watch: redis+sentinel://h1:26379,h2:26379/NAME/0",
    ),
    "a socket that is no path": (
        text("url: 'unix://valkey.sock'"),
        "store.url: must be an absolute path: unix:///run/valkey/valkey.sock",
    ),
    "no TLS over the Internet": (text("url: 'redis://store.example.com'"), f"store.url: {PLAIN}"),
    "no TLS to a Sentinel over the Internet": (
        text("url: 'redis+sentinel://v,store.example.com/m'"),
        f"store.url: {PLAIN}",
    ),
    "a user without a password": (text("url: 'redis://v', username: u"), "store: `username` needs a `password`"),
    "a lease that a command outlives": (
        text("url: 'redis://v', timeout: 1s, lease: 3s"),
        "store: `lease` must be at least 4 times `timeout`, and at most 60s",
    ),
    "a lease for hours": (
        text("url: 'redis://v', lease: 1h"),
        "store: `lease` must be at least 4 times `timeout`, and at most 60s",
    ),
    "no time at all": (text("url: 'redis://v', timeout: 0"), "store.timeout: must be longer than zero"),
    "an unknown key": (text("url: 'redis://v', passwort: x"), "store.passwort: unknown key; did you mean password?"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_place(name: str, tmp_path: Path) -> None:
    config, expected = MISTAKES[name]
    assert problems(tmp_path, config) == [f"config.yaml:1: {expected}"]


def test_authorities_need_tls(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    assert problems(tmp_path, text(f"url: 'redis://v', ca_file: {path}")) == [
        "config.yaml:1: store: `ca_file` needs an encrypted connection: rediss://"
    ]
    assert problems(tmp_path, text(f"url: 'rediss://v', ca_file: {path}")) == [
        "config.yaml:1: store: ca_file is not a PEM file of certificates"
    ]


def test_the_extra_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.config.checks.find_spec", lambda _: None)
    assert problems(tmp_path, text("url: 'redis://v'")) == [
        "config.yaml:1: store: needs packages that are not installed: pip install 'WHEEL[store]', with your wheel"
    ]


@pytest.mark.parametrize(
    "written_as", ["literal", "${PASSWORD}", "${file:FILE}"], ids=["literal", "a variable", "a file"]
)
def test_password_and_keys_are_secrets_however_they_are_written(written_as: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("CANARY-password-from-file\n")
    form = written_as.replace("FILE", str(file)).replace("literal", "CANARY-literal")
    keys = f'url: "redis://v", password: "{form}"'
    path = written(tmp_path, text(keys))
    environ = {"PASSWORD": "CANARY-variable"}
    found = load([path], environ=environ).store
    assert found is not None
    assert isinstance(found.password, Secret)
    assert all(isinstance(key, Secret) for key in found.keys)
    assert found.password_file == (file if "file" in written_as else None)
    assert "CANARY" not in merged([path], environ=environ)
    assert "CANARY" not in repr(found)


def test_a_password_made_of_two_parts_is_no_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("CANARY")
    found = stored(tmp_path, f'url: "redis://v", password: "x-${{file:{file}}}"')
    assert found.password_file is None


def test_another_password_is_another_digest(tmp_path: Path) -> None:
    one = loaded(tmp_path, text("url: 'redis://v', password: CANARY-1"))
    other = loaded(tmp_path, text("url: 'redis://v', password: CANARY-2"))
    assert one.digest != other.digest


def test_files_of_the_block_are_watched(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    config = loaded(tmp_path, text("url: 'redis://v'", f'["${{file:{file}}}"]'))
    assert file in config.watched_files
    assert file in config.secret_files


def test_the_schema_has_the_block() -> None:
    keys = json_schema()["$defs"]["StoreSection"]["properties"]
    assert {"url", "username", "password", "namespace", "keys", "timeout", "lease", "ca_file"} == set(keys)


def test_placeholders_stand_for_what_is_missing(tmp_path: Path) -> None:
    """`gatepass check --no-secrets` works where the secrets are not."""
    path = written(
        tmp_path, text('url: "${NO_STORE}", password: "${file:/nonexistent/p}"', '["${file:/nonexistent/k}"]')
    )
    found = load([path], environ={}, commands=Commands(), placeholders=True).store
    assert found is not None
