"""What garbage and what free memory a process that runs for years may hold."""

from __future__ import annotations

import asyncio
import gc
import platform
import sys
import weakref

import pytest

from gateway.serving import memory
from tests.kit.interpreter import said
from tests.kit.rest import until


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="collects in steps of its own")
def test_garbage_that_grew_old_before_it_died_is_collected_too() -> None:
    """Connections that were open for long are cycles of the oldest generation when they close."""
    most = said("""
        from collections import deque
        from gateway.serving.memory import tune_collector

        class Connection:
            alive = most = 0
            def __init__(self):
                self.itself = self
                Connection.alive += 1
            def __del__(self):
                Connection.alive -= 1

        tune_collector()
        opened = deque(maxlen=180_000)
        for _ in range(1_500_000):
            opened.append(Connection())
            Connection.most = max(Connection.most, Connection.alive)
        print(Connection.most)
    """)
    assert most < 1_000_000


async def test_garbage_is_looked_for_every_minute_however_little_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    monkeypatch.setattr(memory, "TIDY_EVERY", 0.01)
    gc.disable()
    old = weakref.ref(Cycle())
    assert old() is not None
    looking = asyncio.create_task(memory.tidy())
    try:
        await until(lambda: old() is None)
    finally:
        looking.cancel()
        gc.enable()


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="other allocators are not tuned")
def test_the_memory_of_uploads_is_kept_for_the_next_and_given_back_within_the_minute() -> None:
    """Given back at once, it would have to be mapped and zeroed anew for the next bodies, a page at a time."""
    before, held, freed, second_faults, tidied = said("""
        import asyncio, json, resource
        from gateway.serving import memory

        PAGE = resource.getpagesize()

        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * PAGE // 2**20

        def uploads():
            return [bytes([number]) * 256_000 for number in range(200)]  # some 49 MiB

        memory.tune_allocator()
        before = resident()
        bodies = uploads()
        held = resident()
        del bodies
        freed = resident()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        bodies = uploads()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        del bodies

        async def a_minute_later():
            memory.TIDY_EVERY = 0.01
            tidying = asyncio.create_task(memory.tidy())
            while resident() > before + 10:
                await asyncio.sleep(0.01)
            tidying.cancel()

        asyncio.run(asyncio.wait_for(a_minute_later(), 10))
        print(json.dumps([before, held, freed, faults, resident()]))
    """)
    assert held >= before + 45
    assert freed >= held - 2
    assert second_faults < 500  # of the 12,500 pages
    assert tidied <= before + 10
