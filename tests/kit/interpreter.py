"""A script in a fresh interpreter: for what an import or the allocator does to a whole process."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any


def said(script: str) -> Any:
    """Run a script in a fresh interpreter; return what it prints, as JSON."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=100).stdout)
