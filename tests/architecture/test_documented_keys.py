"""docs/configuration.md and the schema say the same, both ways; the profiles' parameters are in docs/vendors.md."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gateway.config import json_schema, profiles
from gateway.config.read.profile import profile
from gateway.config.reference import keys
from tests.kit.configuration import ROOT

CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text("utf-8")
VENDORS = (ROOT / "docs" / "vendors.md").read_text("utf-8")
ROW = re.compile(r"^\| `([a-z0-9_.*\[\]]+)` \|", re.MULTILINE)


@pytest.mark.parametrize("key", keys(), ids=lambda key: key.path)
def test_a_key_stands_in_the_documentation_with_its_type_default_and_meaning(key: Any) -> None:
    assert key.row in CONFIGURATION.splitlines()


def test_the_documentation_names_no_key_that_does_not_exist() -> None:
    assert set(ROW.findall(CONFIGURATION)) == {key.path for key in keys()}


@pytest.mark.parametrize("name", profiles())
def test_each_parameter_of_a_profile_stands_in_the_vendors_page(name: str) -> None:
    section = VENDORS[VENDORS.index(f"(`{name}`)") :]
    for param in profile(name).params.values():
        assert f"`{param.name}`" in section, param.name


def test_the_json_schema_names_every_key() -> None:
    found = json_schema()
    named: set[str] = set()
    for model in [found, *found["$defs"].values()]:
        named |= set(model.get("properties", {}))
    assert named >= {key.path.rsplit(".", 1)[-1].removesuffix("[]") for key in keys()}


def test_the_json_schema_knows_a_profile_s_parameters() -> None:
    rules = json_schema()["$defs"]["CredentialSection"]["allOf"]
    names = {rule["if"]["properties"]["profile"]["const"]: set(rule["then"]["properties"]) for rule in rules}
    assert set(names) == set(profiles())
    assert {"client_secret", "next_client_secret", "scope"} <= names["idfy"]
