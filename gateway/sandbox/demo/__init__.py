"""`gatepass demo`: runs emulated vendors, a real gateway process in front of them, and an app that uses it."""

from __future__ import annotations

from gateway.sandbox.demo.play import run_demo

__all__ = ["run_demo"]
