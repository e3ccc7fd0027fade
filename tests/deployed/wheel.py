"""The compiled wheel, built twice in different folders: the same bytes, and a demo that runs."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from tests.deployed.outcome import Outcome, Unable, run
from tests.deployed.systemd import python_outside_home
from tests.kit.configuration import ROOT

if TYPE_CHECKING:
    from pathlib import Path

RELEASE = ROOT / "requirements" / ".release" / "bin" / "python"


def trial(folder: Path) -> Outcome:
    """Build with the Python that the systemd unit would use, as `make wheels` does for each."""
    python = python_outside_home()
    if not RELEASE.exists():
        raise Unable("the tools of a release are not installed; `make wheels` installs them")
    outcome = Outcome()
    digests = []
    for turn in ("first", "second"):
        began = time.monotonic()
        run(RELEASE, ROOT / "deploy" / "release" / "wheels.py", folder / turn, python)
        (wheel,) = (folder / turn).glob("*.whl")
        digests.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
        outcome.add(
            f"{turn} build: {wheel.name}", f"{wheel.stat().st_size / 2**20:.1f} MiB, {time.monotonic() - began:.0f} s"
        )
    same = len(set(digests)) == 1
    outcome.add("two builds of the wheel", "equal, bit for bit" if same else "differ", good=same)
    return outcome
