"""Every configuration that the project shows passes the checks that a user's does, and leaks nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config import load, merged, profiles, starter
from tests.kit.configuration import ROOT, canaries

SHOWN = [ROOT / "config.yaml", *sorted((ROOT / "examples").glob("*.yaml"))]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.name)
def test_a_shown_configuration_loads_with_the_variables_that_it_names(path: Path) -> None:
    environ = canaries(path.read_text("utf-8"))
    assert environ, "an example without a secret shows nothing"
    config = load([path], environ=environ)
    assert config.routes
    assert all(injection.credential in config.credentials for route in config.routes for injection in route.injections)


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.name)
def test_what_a_shown_configuration_prints_holds_no_secret(path: Path) -> None:
    environ = canaries(path.read_text("utf-8"))
    printed = merged([path], environ=environ) + repr(load([path], environ=environ))
    assert "CANARY" not in printed
    assert "<secret " in printed


def test_the_shipped_configuration_is_what_init_writes_for_its_four_vendors() -> None:
    vendors = ["hypersign", "akiba", "uqudo", "idfy"]
    assert starter(vendors) == (ROOT / "config.yaml").read_text("utf-8")


@pytest.mark.parametrize("vendor", profiles())
def test_init_writes_a_configuration_that_loads_for_each_profile(vendor: str, tmp_path: Path) -> None:
    text = starter([vendor])
    path = tmp_path / "config.yaml"
    path.write_text(text, "utf-8")
    config = load([path], environ=canaries(text))
    assert [route.prefix for route in config.routes] == [f"/{vendor}"]


@pytest.mark.parametrize("vendor", profiles())
def test_init_reads_each_secret_from_a_file_where_that_is_asked(vendor: str, tmp_path: Path) -> None:
    text = starter([vendor], f"{tmp_path}/")
    for name in re.findall(r"\$\{file:(.+?)\}", text):
        assert Path(name).parent == tmp_path
        Path(name).write_text("CANARY")
    path = tmp_path / "config.yaml"
    path.write_text(text, "utf-8")
    assert [route.prefix for route in load([path], environ={}).routes] == [f"/{vendor}"]
