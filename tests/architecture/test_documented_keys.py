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


OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
BOUND = re.compile(r"^\| (`(?:limits|routes|resolver|replay|token|logs)[^|]*) \| ([^|]*) \| [^|]* \|$", re.MULTILINE)
UNITS = {"s": "s", "m": "min", "KiB": "KiB", "MiB": "MiB", "": ""}


def in_words(default: str) -> str:
    """Return a default as the page on operations writes it: `10 000`, `5 min`, `32 MiB`."""
    number, unit = re.fullmatch(r"`(\d+)(\w*)`", default).groups()  # type: ignore[union-attr]
    if (number, unit) == ("60", "m"):
        return "1 h"
    return f"{int(number):,} {UNITS[unit]}".replace(",", " ").strip()


def bounds() -> list[tuple[str, str]]:
    """Return each key in the table of bounds, with the text of its defaults."""
    found = []
    for names, defaults in BOUND.findall(OPERATIONS):
        above = ""
        for name in re.findall(r"`([\w.*]+)`", names):
            full = name if not above else f"{above}.{name.removeprefix('.')}"
            above = above or name.rpartition(".")[0]
            found.append((full, defaults))
    return found


@pytest.mark.parametrize(("path", "defaults"), bounds(), ids=lambda value: value)
def test_the_page_on_operations_gives_each_bound_its_default(path: str, defaults: str) -> None:
    [key] = [each for each in keys() if each.path == path]
    assert re.search(rf"(?<!\d){re.escape(in_words(key.default))}(?!\d)", defaults)


def test_every_limit_is_in_the_table_of_bounds() -> None:
    assert {key.path for key in keys() if key.path.startswith("limits.")} <= {path for path, _ in bounds()}
