"""What pyproject.toml cannot say: the hot path may be compiled to C, where GATEPASS_COMPILE=1 asks for it.

The same sources either way: mypyc makes extension modules of the annotated Python, which stand beside the modules that
they are made from and are imported in their place (docs/decisions/0009). It wants a C compiler, Python's headers, and
what requirements/compile.txt names.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

INTERPRETED = {"__init__.py", "intake.py"}
"""Of the data plane: `Intake` inherits from asyncio, which a compiled class cannot."""
COMPILED = (
    *(str(path) for path in sorted(Path("gateway/proxy").glob("*.py")) if path.name not in INTERPRETED),
    "gateway/access/allowance.py",
    "gateway/access/budgets.py",
    "gateway/access/clients.py",
    "gateway/access/counters.py",
    "gateway/access/rules.py",
    "gateway/observe/log/access.py",
    "gateway/observe/metrics/children.py",
    "gateway/observe/metrics/labels.py",
    "gateway/observe/metrics/values.py",
    "gateway/observe/journal.py",
    *(str(path) for path in sorted(Path("gateway/patterns").glob("*.py")) if path.name != "__init__.py"),
    "gateway/tokens/cache.py",
    "gateway/tokens/shared.py",
    "gateway/planes/answers.py",
    "gateway/planes/asking.py",
    "gateway/planes/port.py",
    "gateway/planes/question.py",
)
"""What runs for every request."""


def extensions() -> list[Extension]:
    """Return the modules to compile: none, unless that is asked for."""
    if os.environ.get("GATEPASS_COMPILE") != "1":
        return []
    try:
        from mypyc.build import mypycify  # noqa: PLC0415 - not there where nothing is compiled
    except ImportError:
        raise SystemExit(
            "GATEPASS_COMPILE=1 wants mypyc: pip install -r requirements/build.txt -r requirements/compile.txt,"
            " and build with --no-build-isolation"
        ) from None
    return mypycify(
        ["--config-file=", "--ignore-missing-imports", *COMPILED],
        opt_level="3",
        debug_level="0",  # debug information names the folder of the build, and two builds would differ
        group_name="gatepass",
        target_dir=f"build/c-{sys.implementation.cache_tag}",  # so that two versions of Python can compile at once
    )


setup(ext_modules=extensions())
