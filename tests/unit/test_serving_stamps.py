"""Files are looked at on threads: one that hangs delays neither the event loop nor the look at other files."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from gateway.serving import stamps
from gateway.serving.stamps import Stamps, stamp

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_a_file_that_hangs_keeps_its_stamp_and_the_others_are_still_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamps, "PATIENCE", 0.05)
    good, hung = tmp_path / "good", tmp_path / "hung"
    good.write_text("1")
    hung.write_text("1")
    hangs, released, threads = False, threading.Event(), set()

    def read(path: Path) -> tuple[int, ...]:
        threads.add(threading.current_thread())
        if hangs and path == hung:
            released.wait(30)
        return stamp(path)

    looked = Stamps(read)
    first = await looked.of([hung, good])
    hangs = True
    began = time.monotonic()
    assert await looked.of([hung, good]) == first, "nobody knows better"
    hung.write_text("22")
    good.write_text("22")
    for _ in range(10):
        now = await looked.of([hung, good])
        assert now[hung] == first[hung]
        assert now[good] == stamp(good) != first[good]
    assert time.monotonic() - began < 10
    assert len(threads) == 2, "one thread waits for the file and another one reads, not one for each look"
    hangs = False
    released.set()
    while (await looked.of([hung, good]))[hung] != stamp(hung):
        pass
    assert len(threads) == 2


async def test_a_missing_file_has_an_empty_stamp(tmp_path: Path) -> None:
    path = tmp_path / "no"
    assert await Stamps().of([path, path]) == {path: ()}
