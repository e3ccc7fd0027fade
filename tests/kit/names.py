"""A stand-in for the system's resolver: tests choose the addresses of names, and which names hang or fail."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from gateway.resolver import Resolver
from tests.kit.wire import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST = "93.184.216.34"


class System:
    """Blocks the calling thread as `getaddrinfo` does. A name has the address `FIRST` unless a test sets another."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.addresses: dict[str, list[str]] = {}
        self.hanging: set[str] = set()
        self.failing: set[str] = set()
        self.free = threading.Event()

    def __call__(self, host: str, port: int, **_: object) -> Sequence[Any]:
        self.asked[host] += 1
        if host in self.hanging:
            self.free.wait(30)
        if host in self.failing:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        found = self.addresses.get(host, [FIRST])
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (each, port, 0, 0))
            if ":" in each
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in found
        ]


def resolver(system: System) -> Resolver:
    """Return a resolver that waits for the result of each look-up, however slow the machine is."""
    return Resolver(getaddrinfo=system, grace=PATIENCE)
