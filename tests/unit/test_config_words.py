"""YAML mistakes in plain words; a configuration without its secrets can still be checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config import load, merged
from gateway.errors import ConfigError
from tests.kit.configuration import ROOT, problems, written

if TYPE_CHECKING:
    from pathlib import Path

QUOTES = "`${…}` inside braces or brackets must be in quotes"
TAB = "contains a tab"
CLOSED = "is not closed, or a comma is missing"
YAML = {
    "reference in braces": ("a: {b: ${X}}\n", 1, QUOTES),
    "reference with a default": ("a:\n  b: {c: ${X:-y}, d: 1}\n", 2, QUOTES),
    "reference in brackets": ("a: [${X}]\n", 1, QUOTES),
    "tab before a key": ("a:\n\tb: 1\n", 2, TAB),
    "tab before a deeper key": ("a:\n  b: 1\n\tc: 2\n", 3, TAB),
    "tab before a value": ("a:\tb\n", 1, TAB),
    "too deep": ("a:\n  b: 1\n   c: 2\n", 3, "is indented more than line 2, which has a value already"),
    "under a value": ("a: 1\n\n  b: 2\n", 3, "is indented more than line 1, which has a value already"),
    "no blank after a colon": ("a:1\nb: 2\n", 1, "needs a blank after the colon: `key: value`"),
    "no blank after a deeper colon": ("a:\n  url:https://x.example\n  b: 2\n", 2, "needs a blank after the colon"),
    "a URL is no key": ("a:\n  https://x.example\n  b: 2\n", 3, "is indented more than line 2"),
    "not deep enough": ("a:\n   b: 1\n  c: 2\n", 3, "is indented like no line above it"),
    "list not deep enough": ("a:\n  - x\n - y\n", 3, "is indented like no line above it"),
    "colon in a value": ("a: b: c\n", 1, "a value that contains `: ` must be in quotes"),
    "no blank behind a colon": ("a: 1\nb:2\n", 2, "needs a colon and a blank after the key"),
    "only keys without a blank": ("a:1\n", 1, "must be a mapping, with a blank after each colon"),
    "open bracket": ("a: [1, 2\nb: 3\n", 2, f"the `[` of line 1 {CLOSED}"),
    "open brace": ("a: {b: 1\nc: 2\n", 2, f"the `{{` of line 1 {CLOSED}"),
    "spare brace": ("a: {b: 1}}\n", 1, "has a `}` that closes nothing"),
    "open quote": ('a: 1\nb: "x\nc: 2\n', 2, "a quote is opened here and never closed"),
    "percent": ("a: %x\n", 1, "a value that begins with `%` must be in quotes"),
    "at": ("a: @x\n", 1, "a value that begins with `@` must be in quotes"),
    "escape": ('a: "\\d"\n', 1, "in double quotes `\\d` means nothing; use single quotes"),
    "second document": ("a: 1\n---\nb: 2\n", 2, "begins a second document; only one is read"),
}


@pytest.mark.parametrize(("text", "line", "said"), YAML.values(), ids=YAML)
def test_a_yaml_mistake_is_told_in_plain_words_at_its_line(text: str, line: int, said: str, tmp_path: Path) -> None:
    told = problems(tmp_path, text)
    assert any(each.startswith(f"config.yaml:{line}: {said}") for each in told)
    assert not any(word in told[0] for word in ("token", "block", "mapping values", "scalar", "stream"))


@pytest.mark.parametrize("value", ["8380", "'8380'", "8380.5", "true"])
@pytest.mark.parametrize("key", ["listen", "admin"])
def test_a_port_alone_is_told_what_an_address_is(key: str, value: str, tmp_path: Path) -> None:
    told = problems(tmp_path, f"{key}: {value}\nroutes: {{}}\n")
    assert f"config.yaml:1: {key}: must be host:port, as 127.0.0.1:8080, [::1]:8080 or 0.0.0.0:8080" in told


# ----------------------------------------------------------------------------------------------------- without secrets


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *sorted((ROOT / "examples").glob("*.yaml"))], ids=lambda path: path.name
)
def test_every_shown_configuration_can_be_checked_without_its_secrets(path: Path) -> None:
    with pytest.raises(ConfigError):
        load([path], environ={})
    config = load([path], environ={}, placeholders=True)
    assert len(config.routes) >= 1
    assert any("placeholder" in warning for warning in config.warnings)


EVERYWHERE = """\
listen: ${LISTEN}
admin: ${ADMIN}
tls: {certificate: /not/here.pem, key: /not/here.key, client_ca: /not/ca.pem}
trusted_proxies: ["${PROXIES}"]
admin_keys_sha256: ["${ADMIN_KEY}"]
state_file: ${STATE}
egress: {proxy: "http://proxy.internal:3128", username: "${PROXY_USER}", password: "${PROXY_PASSWORD}"}
issuers: {corp: {issuer: "${ISSUER}", audience: ["${AUDIENCE}", gatepass], jwks_file: /not/keys.json}}
clients:
  - {name: web, key_sha256: "${WEB_KEY}"}
  - {name: batch, keys_sha256: ["${BATCH_KEY}", "${BATCH_NEXT}"]}
  - {name: mesh, certificates: ["dns:mesh.internal"]}
credentials:
  file: {static: {token: "${file:/not/here}"}}
  program: {static: {token: "${command:/bin/sh -c 'touch PROOF'}"}}
  grant:
    grant:
      request:
        url: ${TOKEN_URL}
        basic: {username: "${ID}", password: "${SECRET}"}
        form: {scope: "${SCOPE}"}
        ca_file: /not/ca.pem
        client_certificate: {certificate: /not/c.pem, key: /not/k.pem}
  signed:
    grant:
      request:
        url: https://auth.example/token
        form: {}
        assertion: {key: "${PEM}", algorithm: ES256, issuer: "${ID}", audience: a}
routes:
  file: {credential: file, upstream: "${UPSTREAM}", ca_file: /not/ca.pem}
  program: {credential: program, upstream: "https://${HOST}/v1", max_body: "${MAX}"}
  grant: {credential: grant, upstream: "https://grant.example", deny: ["${DENIED}", /x]}
  signed: {credential: signed, upstream: "https://signed.example"}
"""


def test_nothing_that_is_missing_is_a_mistake_without_secrets(tmp_path: Path) -> None:
    path = written(tmp_path, EVERYWHERE.replace("PROOF", str(tmp_path / "proof")))
    config = load([path], environ={}, placeholders=True)
    assert {route.name for route in config.routes} == {"file", "program", "grant", "signed"}
    assert len(config.clients) == 3
    assert not (tmp_path / "proof").exists(), "no program is run"
    told = "\n".join(config.warnings)
    for name in ("LISTEN", "WEB_KEY", "SECRET", "UPSTREAM", "/not/here", "/not/ca.pem", "no program is run"):
        assert name in told
    assert "placeholder.invalid" in merged([path], environ={}, placeholders=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("max_body:", "max_boddy:"), "unknown key; did you mean max_body?"),
        (("algorithm: ES256", "algorithm: HS256"), "must be RS256, PS256, ES256 or EdDSA"),
        (("${SECRET}", "${SECRET"), "a `${` has no `}`"),
        (("credential: file,", "credential: flie,"), "there is no credential 'flie'; did you mean file?"),
        (('"${UPSTREAM}"', '"http://public.example"'), "must be https://"),
    ],
)
def test_real_mistakes_are_still_told_without_secrets(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    path = written(tmp_path, EVERYWHERE.replace(*change))
    with pytest.raises(ConfigError) as caught:
        load([path], environ={}, placeholders=True)
    [problem] = caught.value.problems
    assert said in problem.message


def test_what_is_set_is_used_and_checked_without_secrets(tmp_path: Path) -> None:
    path = written(tmp_path, EVERYWHERE)
    config = load([path], environ={"UPSTREAM": "https://real.example", "LISTEN": "127.0.0.1:7"}, placeholders=True)
    assert config.routes[0].upstream.host == "real.example"
    assert config.listen[0].port == 7
    with pytest.raises(ConfigError, match="begins or ends with a blank"):
        load([path], environ={"SECRET": "CANARY "}, placeholders=True)
