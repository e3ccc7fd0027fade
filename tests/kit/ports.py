"""Finds free ports."""

from __future__ import annotations

import errno
import random
import socket

BELOW_EPHEMERAL = range(20_000, 32_000)
"""Linux and macOS take the ports of outgoing connections from above, so none is taken before a server listens here."""
_chance = random.SystemRandom()  # hypothesis seeds the shared one, alike in every process


def free_port() -> int:
    """Return a TCP port on which nothing listens now, with any address of IPv4 or IPv6."""
    while True:
        port = _chance.choice(BELOW_EPHEMERAL)
        if not any(_is_taken(family, port) for family in (socket.AF_INET, socket.AF_INET6)):
            return port


def _is_taken(family: socket.AddressFamily, port: int) -> bool:
    """Whether binding fails because of the port; a machine may have no IPv6 at all."""
    try:
        with socket.socket(family) as bound:
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(("", port))
    except OSError as error:
        return error.errno in (errno.EADDRINUSE, errno.EACCES)
    return False
