"""Runs a script in a new interpreter, for tests of imports and of the allocator."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any


def said(script: str) -> Any:
    """Run a script in a new interpreter; return the JSON that it prints."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=100).stdout)
