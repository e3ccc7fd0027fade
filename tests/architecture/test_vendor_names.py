"""A vendor is data: its name stands in its profile and in the sandbox that plays it, and nowhere else in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "gateway"
PROFILES = PACKAGE / "config" / "profiles"
CODE = sorted(path for path in PACKAGE.rglob("*.py") if PACKAGE / "sandbox" not in path.parents)
NAMES = {word for profile in PROFILES.glob("*.yaml") for word in re.split(r"[-_.]", profile.stem)}


def vendors_in(text: str) -> set[str]:
    """Return the vendors' names that stand in this text as words or parts of identifiers, in any case."""
    return {name for name in NAMES if name in text.lower()}


def test_there_are_names_to_look_for() -> None:
    assert len(NAMES) >= 4
    assert all(vendors_in(f"class {name.title()}Client: ...") for name in NAMES)


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_vendor_is_named_in_code(path: Path) -> None:
    assert vendors_in(path.read_text(encoding="utf-8")) == set()
