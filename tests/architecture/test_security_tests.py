"""The page of security promises names tests that exist, and SECURITY.md leads to it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security-tests.md").read_text(encoding="utf-8")
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}


def test_every_named_test_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named
    assert named <= TESTS, sorted(named - TESTS)


def test_every_promise_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 40
    assert not [row for row in rows if "`test_" not in row]


def test_the_security_page_leads_to_it() -> None:
    assert "docs/security-tests.md" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
