"""Resolve host names without letting one name delay another, and keep known addresses usable while look-ups fail.

The system's resolver (`getaddrinfo`) is asked, because it alone knows hosts files, search domains and the like; it
blocks, so each look-up runs on a thread of its own. At most one look-up per name is under way, and names come from the
configuration, so the number of threads is bounded. An event loop's own resolver has a few threads for all names: two
names whose servers hang would stop every other look-up (docs/decisions/0011).

Addresses are checked (`gateway.addresses`) when a connection is made, and exactly the checked ones are connected to.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, cast

from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.addresses import parse, permitted
from gateway.descriptors import lacks_descriptor, open_one
from gateway.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.addresses import AddrInfo, Networks

    GetAddrInfo = Callable[..., Sequence[AddrInfo]]

STALE: Final = 3600.0
"""Default of `resolver.stale`, seconds."""
GRACE: Final = 0.05
"""Seconds that a connection waits for a new look-up although addresses are known.

A resolver that answers from its cache is faster. After a look-up that took longer or failed, no connection waits until
a look-up is quick again.
"""
_HANGS: Final = 1.0
"""Seconds after which a look-up that is still under way is reported."""
_NAMES: Final = 4096
"""Names that are remembered at most."""


class _Name:
    """What is known about one name."""

    __slots__ = ("addresses", "answered_at", "asked_at", "error", "infos", "question", "reported", "slow")

    def __init__(self) -> None:
        self.infos: Sequence[AddrInfo] = ()
        self.addresses: frozenset[str] = frozenset()
        """The addresses in `infos`, as text."""
        self.answered_at = 0.0
        """When the last successful look-up ended."""
        self.asked_at = 0.0
        """When the last look-up began."""
        self.error: OSError | None = None
        """Why the last look-up failed; None if it succeeded."""
        self.question: asyncio.Future[None] | None = None
        """The look-up that is under way."""
        self.slow = False
        """The last look-up failed or took longer than the grace."""
        self.reported = False


class Resolver:
    """Resolves the names of one gateway. Not thread-safe: use it from one event loop.

    Args:
        stale: seconds for which known addresses stay usable after the last successful look-up; 0: not at all.
        report: called with a name and True when its known addresses are used because look-ups fail or hang, and with
            False when a look-up has succeeded again.
        grace: seconds that a connection waits for a look-up although addresses are known.
        getaddrinfo: the blocking look-up, called on a thread.
        now: the clock, seconds.
    """

    def __init__(
        self,
        stale: float = STALE,
        *,
        grace: float = GRACE,
        report: Callable[[str, bool], None] | None = None,
        getaddrinfo: GetAddrInfo | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stale = stale
        self.report = report
        self._grace = grace
        self._getaddrinfo = getaddrinfo
        self._now = now
        self._names: OrderedDict[str, _Name] = OrderedDict()
        self._threads = Threads("gatepass-resolver")

    def current(self, host: str) -> frozenset[str] | None:
        """Return the addresses of the last successful look-up; None if there was none."""
        name = self._names.get(host)
        return name.addresses or None if name is not None else None

    async def look_up(self, host: str, port: int) -> Sequence[AddrInfo]:
        """Return the addresses of `host`, with `port`; known ones if the look-up is slow or fails.

        Raises an OSError if the look-up fails and no addresses are known: socket.gaierror, or that of the system if no
        file descriptor is left.
        """
        if parse(host) is not None:
            return _literal(host, port)
        name = self._name(host)
        question = name.question or self._ask(host, name)
        known = bool(name.infos) and self._now() - name.answered_at <= self.stale
        if not known:
            await asyncio.shield(question)
        elif not name.slow:
            done, _ = await asyncio.wait((question,), timeout=self._grace)
            name.slow = name.slow or not done
        if name.error is not None and not known:
            raise type(name.error)(*name.error.args)
        self._report_stale(host, name)
        return [_with_port(info, port) for info in name.infos]

    def _name(self, host: str) -> _Name:
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = _Name()
            if len(self._names) > _NAMES:
                self._names.popitem(last=False)
        return name

    def _report_stale(self, host: str, name: _Name) -> None:
        hangs = name.question is not None and self._now() - name.asked_at > _HANGS
        if self.report is not None and not name.reported and (name.error is not None or hangs):
            name.reported = True
            self.report(host, True)

    # ---------------------------------------------------------------------------------------------------- look-ups

    def _ask(self, host: str, name: _Name) -> asyncio.Future[None]:
        """Start a look-up; the returned future is done when `name` has been updated with its outcome."""
        loop = asyncio.get_running_loop()
        name.question = question = loop.create_future()
        name.asked_at = self._now()

        def deliver(outcome: Sequence[AddrInfo] | OSError) -> None:
            self._answered(host, name, outcome)
            if not question.done():
                question.set_result(None)

        def run() -> None:
            outcome = self._blocking_look_up(host)
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any more
                loop.call_soon_threadsafe(deliver, outcome)

        try:
            self._threads.run(run)
        except RuntimeError:  # the system allows no more threads
            deliver(socket.gaierror(socket.EAI_AGAIN, "no thread can be started"))
        return question

    def _blocking_look_up(self, host: str) -> Sequence[AddrInfo] | OSError:
        try:
            infos = (self._getaddrinfo or socket.getaddrinfo)(host, 0, type=socket.SOCK_STREAM)
            return cast("Sequence[AddrInfo]", infos)
        except OSError as error:
            return _descriptors_exhausted() or error
        except ValueError:  # a label that IDNA cannot encode (UnicodeError)
            return socket.gaierror(socket.EAI_NONAME, "not a host name")

    def _answered(self, host: str, name: _Name, outcome: Sequence[AddrInfo] | OSError) -> None:
        now = self._now()
        name.question = None
        if isinstance(outcome, OSError):
            name.error = outcome
            name.slow = True
            return
        name.error = None
        name.slow = now - name.asked_at > self._grace
        name.infos, name.answered_at = outcome, now
        name.addresses = frozenset(str(info[4][0]) for info in outcome)
        if name.reported:
            name.reported = False
            if self.report is not None:
                self.report(host, False)


def _descriptors_exhausted() -> OSError | None:
    """Return the error if no file can be opened; `getaddrinfo` then only says that the name was not found."""
    try:
        open_one()
    except OSError as error:
        return error if lacks_descriptor(error) else None
    return None


def _literal(host: str, port: int) -> Sequence[AddrInfo]:
    """Return what `getaddrinfo` says about a literal address; that asks no server."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return cast("Sequence[AddrInfo]", infos)


def _with_port(info: AddrInfo, port: int) -> AddrInfo:
    family, kind, protocol, canonical, address = info
    if len(address) == 2:  # noqa: PLR2004 - IPv4: host and port
        return family, kind, protocol, canonical, (address[0], port)
    return family, kind, protocol, canonical, (address[0], port, *address[2:])


class GuardedResolver(AbstractResolver):
    """The resolver of `aiohttp.ClientSession`s that send secrets: returns only addresses that are allowed."""

    def __init__(self, allowed: Networks, resolver: Resolver) -> None:
        self.allowed = allowed
        """Networks that a name may lead to although they are otherwise refused; a reload replaces them."""
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the permitted addresses of `host`. Raises AddressRefused or socket.gaierror, both OSErrors."""
        infos = permitted(host, await self._resolver.look_up(host, port), self.allowed)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=own,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for own, _, proto, _, address in infos
            if family in {socket.AF_UNSPEC, own}
        ]

    async def close(self) -> None:
        """Do nothing: a resolver holds nothing open."""
