"""A release says what was audited: a package that could not be looked up is never taken for a sound one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit.configuration import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SOUND = {"name": "alpha", "version": "1", "vulns": []}
WEAK = {"name": "beta", "version": "2", "vulns": [{"id": "PYSEC-1"}, {"id": "CVE-2"}]}
UNKNOWN = {"name": "beta", "skip_reason": "Dependency not found on PyPI and could not be audited"}


def audit(folder: Path, service: str, answer: object) -> tuple[int, str]:
    """Run the audit of two pinned packages with a stand-in for pip-audit; return exit status and report."""
    requirements = folder / "run.txt"
    requirements.write_text("alpha==1 \\\n    --hash=sha256:00\n# via x\nbeta[extra]==2 \\\n    --hash=sha256:01\n")
    tool = folder / "pip-audit"
    tool.write_text(
        f"#!{sys.executable}\nimport sys\nsys.stdout.write({json.dumps(json.dumps(answer))})\nsys.exit(1)\n"
    )
    tool.chmod(0o755)
    script = ROOT / "deploy" / "release" / "audit.py"
    command = [sys.executable, str(script), service, str(folder / "audit.txt"), str(tool), str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    report = (folder / "audit.txt").read_text()
    assert report in done.stdout + done.stderr
    return done.returncode, report


@pytest.mark.parametrize(
    ("service", "found", "status", "said"),
    [
        ("pypi", [SOUND, {**WEAK, "vulns": []}], 0, "2 of 2 packages looked up"),
        ("pypi", [SOUND, WEAK], 1, "WEAK: beta: PYSEC-1, CVE-2"),
        ("osv", [SOUND, UNKNOWN], 3, "NOT AUDITED, as it could not be looked up: beta"),
        ("pypi", [WEAK], 1, "NOT AUDITED, as it could not be looked up: alpha"),
        ("skip", [WEAK], 0, "NOT AUDITED, as AUDIT=skip says: alpha, beta"),
        ("elsewhere", [SOUND, WEAK], 2, "AUDIT must be one of pypi, osv, skip"),
    ],
    ids=["sound", "weak", "unknown", "weak-and-unknown", "skipped", "misspelt"],
)
def test_the_report_names_what_was_found_and_what_was_not_audited(
    tmp_path: Path, service: str, found: list[object], status: int, said: str
) -> None:
    returned, report = audit(tmp_path, service, {"dependencies": found, "fixes": []})
    assert returned == status
    assert said in report


def test_a_service_that_cannot_be_reached_audits_nothing(tmp_path: Path) -> None:
    status, report = audit(tmp_path, "osv", None)
    assert status == 3
    assert report.count("NOT AUDITED") == 2
