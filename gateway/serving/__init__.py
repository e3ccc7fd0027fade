"""A gateway as a process: signals, files that change, listening sockets from others, upgrades."""

from gateway.serving.process import serve

__all__ = ["serve"]
