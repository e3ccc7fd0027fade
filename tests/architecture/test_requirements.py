"""The locked packages are whole: also on a Python other than the one that `make lock` ran on.

pip refuses a package without a hash, so one that only some Pythons need, and that is not pinned, ends the installation
there.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import cast

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
PYTHONS = ("3.11.0", "3.11.2", "3.12.0", "3.13.0")
"""The first release of each supported version, and that of Debian 12."""


def pinned(*names: str) -> set[str]:
    texts = [(REQUIREMENTS / name).read_text(encoding="utf-8") for name in names]
    return {canonicalize_name(name) for text in texts for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}


def environment(python: str, platform: str) -> dict[str, str]:
    """Return what markers see there."""
    changed = {
        "python_full_version": python,
        "implementation_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": platform,
        "platform_system": {"linux": "Linux", "darwin": "Darwin"}[platform],
        "extra": "",
    }
    return cast("dict[str, str]", default_environment()) | changed


def needed(names: set[str], where: dict[str, str]) -> set[tuple[str, str]]:
    """Return what packages need in an environment: package and what it needs."""
    found: set[tuple[str, str]] = set()
    for name in names:
        try:
            wants = requires(name) or []
        except PackageNotFoundError:  # of another platform
            continue
        for want in map(Requirement, wants):
            if want.marker is None or want.marker.evaluate(where):
                found.add((name, canonicalize_name(want.name)))
    return found


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("python", PYTHONS)
def test_what_runs_is_pinned_for_every_supported_python(python: str, platform: str) -> None:
    known = pinned("run.txt")
    assert not {each for each in needed(known, environment(python, platform)) if each[1] not in known}


@pytest.mark.parametrize("python", PYTHONS)
def test_what_the_tests_need_is_pinned_for_every_supported_python(python: str) -> None:
    known = pinned("run.txt", "dev.txt", "build.txt")
    assert not {each for each in needed(known, environment(python, "linux")) if each[1] not in known}


def test_a_package_that_an_older_python_needs_would_be_seen() -> None:
    assert ("redis", "async-timeout") in needed({"redis"}, environment("3.11.2", "linux"))
    assert ("redis", "async-timeout") not in needed({"redis"}, environment("3.13.0", "linux"))
