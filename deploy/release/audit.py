"""Look up every pinned package for known weaknesses, and say of each whether it could be looked up at all.

For `make release`: `python audit.py pypi|osv|skip REPORT PIP-AUDIT REQUIREMENTS`. Around pip-audit, which tells a
package that it could not look up from one that has no weakness only in its JSON. The report is written in every case,
so that a release says of itself what was audited. Exit status 0: all looked up, no weakness (or told to skip);
1: a weakness; 3: something could not be looked up.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

SERVICES = ("pypi", "osv")
"""Where pip-audit can ask: its `--service`."""
WEAK, NOT_AUDITED = 1, 3
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", re.MULTILINE)


def plain(name: str) -> str:
    """Return a package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def look_up(tool: str, service: str, requirements: Path) -> dict[str, list[str]]:
    """Ask about all pinned packages; return by name the ids of weaknesses. Who is missing could not be looked up."""
    command = [tool, "--disable-pip", "--require-hashes", "--service", service, "--format", "json", "-r"]
    done = subprocess.run([*command, str(requirements)], capture_output=True, text=True, check=False)  # noqa: S603
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        sys.stderr.write(done.stderr[-2000:])
        return {}
    return {plain(each["name"]): [weak["id"] for weak in each["vulns"]] for each in found if "vulns" in each}


def judged(service: str, pinned: list[str], found: dict[str, list[str]]) -> tuple[list[str], int]:
    """Return the report's lines and the exit status."""
    weak = {name: ids for name, ids in found.items() if ids}
    missing = [name for name in pinned if name not in found]
    lines = [f"{len(found)} of {len(pinned)} packages looked up (pip-audit --service {service})"]
    lines += [f"WEAK: {name}: {', '.join(ids)}" for name, ids in weak.items()]
    if missing:
        lines += [f"NOT AUDITED, as it could not be looked up: {name}" for name in missing]
        lines.append("make release AUDIT=osv asks another service; AUDIT=skip releases without, and says so")
    return lines, WEAK if weak else NOT_AUDITED if missing else 0


def main(service: str, report: Path, tool: str, requirements: Path) -> int:
    """Audit, write the report, print it."""
    pinned = [plain(name) for name in PIN.findall(requirements.read_text(encoding="utf-8"))]
    if service == "skip":
        lines, status = [f"NOT AUDITED, as AUDIT=skip says: {', '.join(pinned)}"], 0
    elif service in SERVICES:
        lines, status = judged(service, pinned, look_up(tool, service, requirements))
    else:
        lines, status = [f"AUDIT must be one of {', '.join(SERVICES)}, skip"], 2
    text = "\n".join([*lines, ""])
    report.write_text(text, encoding="utf-8")
    (sys.stderr if status else sys.stdout).write(text)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])))
