"""Run the trials named, or all; print a table. Exit status 1 if something is not as it should be."""

from __future__ import annotations

import importlib
import sys
import tempfile
import traceback
from pathlib import Path

from tests.deployed.outcome import Outcome, Unable

TRIALS = ("wheel", "image", "container", "compose", "systemd", "rollout")


def main(names: list[str]) -> int:
    """Run each trial in a folder of its own."""
    failed = False
    for name in names or TRIALS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome = importlib.import_module(f"tests.deployed.{name}").trial(Path(folder))
            except Unable as why:
                outcome = Outcome([(f"not tried: {why}", "", True)])
            except Exception:  # noqa: BLE001 - the other trials go on; the table says it
                traceback.print_exc()
                outcome = Outcome([("the trial itself", "failed", False)])
        for what, figure, good in outcome.rows:
            failed = failed or not good
            sys.stdout.write(f"{'ok  ' if good else 'FAIL'} {name:10} {what:60} {figure}\n")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
