"""A gateway as a process: signals, watched files, passed sockets, upgrades in place."""

from gateway.serving.process import serve

__all__ = ["serve"]
