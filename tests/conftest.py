"""Shared fixtures: the production event loop, and the hunt for canaries after every test that runs a gateway.

Hypothesis measures no time here: how long an example takes is the machine's business.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import socket
import warnings
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.kit.wire import close_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SOONER = 0.9
"""The share of its time-out after which an asynchronous test is cancelled: before pytest-timeout comes."""

pytest.register_assert_rewrite("tests.kit.edge_cases")
settings.register_profile("untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Allow for a habit of mypyc, and for one of pytest-rerunfailures.

    How mypyc's coroutines pass an exception on is deprecated since Python 3.12. pytest-rerunfailures sends two small
    messages before each test, of which the second waits 40 ms for the acknowledgement of the first.
    """
    line = getattr(getattr(config, "failures_db", None), "sock", None)
    if isinstance(line, socket.socket):
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if os.environ.get("GATEPASS_COMPILE") == "1":
        habit = r"ignore:the \(type, exc, tb\) signature of throw\(\) is deprecated:DeprecationWarning"
        config.addinivalue_line("filterwarnings", habit)


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 - the hook's signature
    item: pytest.Item,  # noqa: ARG001
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run asynchronous tests on the loop that the gateway runs on."""
    try:
        import uvloop
    except ImportError:
        return {"asyncio": asyncio.new_event_loop}

    class Loop(uvloop.Loop):
        """Closes what a failed test has left open; waits for ever if the warning about it is raised as an error."""

        def close(self) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("always", ResourceWarning)
                super().close()

    return {"uvloop": Loop}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show why tests failed that succeeded when they were run again, or nobody would ever mend them."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.write_sep("_", f"first run of {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)


def pytest_itemcollected(item: pytest.Item) -> None:
    """End an asynchronous test that hangs, with the line at which it waits.

    pytest-timeout cannot: uvloop swallows what a signal's handler raises.
    """
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        mark = item.get_closest_marker("timeout")
        item.obj = _bounded(item.obj, SOONER * (mark.args[0] if mark else float(item.config.getini("timeout"))))


def _bounded(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(*args: object, **kwargs: object) -> None:
        async with asyncio.timeout(seconds):
            await test(*args, **kwargs)

    return bounded


@pytest.fixture(autouse=True)
def _peers_are_closed(request: pytest.FixtureRequest) -> None:
    """Close the raw connections that an asynchronous test has opened; thousands of others need no event loop."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_peers")


@pytest.fixture
async def _peers() -> AsyncIterator[None]:
    yield
    close_all()
    await asyncio.sleep(0)
