"""The JSON Schema agrees with the loader: what it accepts loads, and an editor marks what the loader refuses."""

from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its types are a package of their own
import pytest
import yaml

from gateway.config import json_schema, profiles, starter
from tests.kit.configuration import ROOT

SCHEMA = jsonschema.Draft202012Validator(json_schema())
SHOWN = [ROOT / "config.yaml", *sorted((ROOT / "examples").glob("*.yaml"))]


def mistakes(document: object) -> list[str]:
    return [error.json_path for error in SCHEMA.iter_errors(document)]


def route(**keys: object) -> dict[str, Any]:
    return {"routes": {"a": {"credential": "a", **keys}}}


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.name)
def test_every_shown_configuration_is_valid_under_the_schema(path: Any) -> None:
    document = yaml.safe_load(path.read_text("utf-8").replace("2031-01-31", "'2031-01-31'"))
    assert mistakes(document) == []


@pytest.mark.parametrize("vendor", profiles())
def test_what_init_writes_is_valid_under_the_schema(vendor: str) -> None:
    assert mistakes(yaml.safe_load(starter([vendor]))) == []


@pytest.mark.parametrize("value", [3, 0.5, "500ms", "45s", "1.5 h", "7", "${T}", "${T:-5s}", None])
def test_a_duration_that_loads_is_accepted(value: object) -> None:
    assert mistakes(route(timeouts={"connect": value})) == []


@pytest.mark.parametrize("value", [-1, "5 minutes", "1h30m", "soon", True, [1]])
def test_a_duration_that_is_refused_is_marked(value: object) -> None:
    assert mistakes(route(timeouts={"connect": value}))


@pytest.mark.parametrize("value", [10, "32MiB", "64 KiB", "${S}", None])
def test_a_size_that_loads_is_accepted(value: object) -> None:
    assert mistakes(route(max_body=value)) == []


@pytest.mark.parametrize("value", [-1, 1.5, "32 mib", "1.5MiB", "big", True])
def test_a_size_that_is_refused_is_marked(value: object) -> None:
    assert mistakes(route(max_body=value))


@pytest.mark.parametrize("credential", [{"profile": "uqudo", "client_sceret": "x"}, {"client_id": "x"}])
def test_a_key_that_is_no_parameter_of_the_profile_is_marked(credential: dict[str, str]) -> None:
    assert mistakes({"credentials": {"a": credential}})


@pytest.mark.parametrize("key", ["client_secret", "next_client_secret", "client_id"])
def test_the_parameters_of_a_profile_are_accepted(key: str) -> None:
    assert mistakes({"credentials": {"a": {"profile": "uqudo", key: "${X}"}}}) == []


def test_a_reference_may_stand_in_a_list() -> None:
    assert mistakes({"admin_keys_sha256": ["${HASH}"], "trusted_proxies": ["${NET}"]}) == []
    assert mistakes({"admin_keys_sha256": ["abc"]})
