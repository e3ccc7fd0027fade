"""Emulates the four vendors as strictly as their documents allow; the demo uses the emulation.

`Sandbox` is for tests, `run_sandbox` for people, `run_demo` for both. Everything listens on real sockets.
"""

from __future__ import annotations

from gateway.sandbox.demo import run_demo
from gateway.sandbox.run import For, run_sandbox
from gateway.sandbox.vendors import Sandbox

__all__ = ["For", "Sandbox", "run_demo", "run_sandbox"]
