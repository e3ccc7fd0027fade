"""Each default stands in a section and in the model; both must be the same, or tests would prove another gateway."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from gateway import model
from tests.kit.configuration import loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import BaseModel

EMPTY = f"""\
clients: [{{name: web, key_sha256: {"ab" * 32}, jwt: [{{issuer: i, claims: {{azp: web}}}}], limits: [{{rate: 1}}], budgets: [{{route: a, per: day, hard: 1}}]}}]
issuers: {{i: {{issuer: x, audience: [a], jwks_url: 'https://login.example/keys'}}}}
egress: {{proxy: 'http://proxy.internal:3128'}}
tracing: {{otlp: 'https://collector.example'}}
store: {{url: "redis://valkey:6379", keys: [0123456789abcdefghijklmnopqrstuv]}}
credentials:
  a:
    grant:
      request:
        url: 'https://auth.example.com/token'
        form: {{}}
        basic: {{username: u, password: CANARY}}
routes: {{a: {{credential: a, upstream: 'https://api.example.com'}}}}
planes:
  listen: unix:/run/planes.sock
  ask: {{edge: {{routes: [a], request: path, uid: 33}}}}
  push: {{envoy: {{kind: envoy-sds, directory: /nowhere/run/sds, credentials: [a]}}}}
"""  # noqa: E501 - one client in one line
GIVEN = {
    "Config": {"clients", "issuers", "tracing", "egress", "planes", "store", "digest", "watched_files"},
    "Client": {"jwt", "limits", "budgets"},
    "ClientLimit": {"rate"},
    "ClientBudget": {"hard"},
    "Credential": {"grants"},
    "GrantRequest": {"form", "basic"},
    "Expires": {"path"},
    "Route": {"deny"},
    "Issuer": {"jwks_url"},
    "Planes": {"listen", "ask", "push"},
    "AskPlane": {"uid"},
    "StoreServer": {"addresses"},
}
"""Fields that the text sets, or that every configuration computes."""
INHERITED = {"egress"}
"""Fields whose default is the value of the file as a whole."""
OPTIONAL = {"Assertion", "ClientCertificate", "ServerTLS", "CredentialStatus", "Token", "Address", "Presented", "Money"}
OPTIONAL |= {"PlaneStatus", "StoreStatus", "Again", "Bucket", "Demand", "Held", "Lease", "NotYet", "Reading"}
"""Nouns with required files or keys, or that no configuration makes."""


def nouns(value: object) -> Iterator[Any]:
    """Yield every dataclass inside a compiled configuration."""
    if dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from nouns(getattr(value, field.name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from nouns(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from nouns(item)


def default_of(field: dataclasses.Field[Any]) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def test_keys_that_are_not_written_compile_to_the_defaults_of_the_model(tmp_path: Path) -> None:
    compared = 0
    for noun in nouns(loaded(tmp_path, EMPTY)):
        name = type(noun).__name__
        for field in dataclasses.fields(noun):
            default = default_of(field)
            if default is dataclasses.MISSING or field.name in GIVEN.get(name, INHERITED) | INHERITED:
                continue
            assert getattr(noun, field.name) == default, f"{name}.{field.name}"
            compared += 1
    assert compared >= 86, "a noun is missing in the text above"


@pytest.mark.parametrize(
    "noun", [value for value in vars(model).values() if dataclasses.is_dataclass(value)], ids=lambda noun: noun.__name__
)
def test_no_noun_with_a_default_escapes_the_comparison(noun: type, tmp_path: Path) -> None:
    met = {type(each).__name__ for each in nouns(loaded(tmp_path, EMPTY))}
    assert noun.__name__ in met | OPTIONAL


def test_the_defaults_of_what_needs_files_or_keys_are_the_same_too() -> None:
    """An assertion needs a key and TLS needs files, so their fields are compared without compiling them."""
    from gateway.config.keys.grant import AssertionSection
    from gateway.config.keys.tls import TlsSection

    pairs: list[tuple[type[BaseModel], type[Any]]] = [
        (AssertionSection, model.Assertion),
        (TlsSection, model.ServerTLS),
    ]
    for section, noun in pairs:
        written = {name: field.default for name, field in section.model_fields.items() if not field.is_required()}
        assert written
        for field in dataclasses.fields(noun):
            assert field.name not in written or written[field.name] == field.default, f"{noun.__name__}.{field.name}"
