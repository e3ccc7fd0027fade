"""What is in a plane's folder, and when: the test controls time and tokens, and the file system is real."""

from __future__ import annotations

import asyncio
import errno
import json
import math
import os
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from gateway.errors import TokenUnavailable
from gateway.model import PushPlane, Secret, Token
from gateway.observe import Metrics
from gateway.planes import push as push_module
from gateway.planes import sds
from gateway.planes.folder import Folder
from gateway.planes.push import LOOK, Push
from gateway.planes.refusals import NEW, PROVEN, report
from gateway.planes.round import GONE_AFTER
from tests.kit.clock import FakeClock
from tests.kit.metrics import sample

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HOLD = 5.0


def names(folder: Path) -> list[str]:
    """Every name in a folder."""
    return sorted(entry.name for entry in folder.iterdir())


class HandTokens:
    """Tokens that the test sets: of all credentials, and of one as `model.Tokens`."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.by_name: dict[str, Token] = {}
        self.next: Token | None = None
        """What a fetch returns; None if it fails."""
        self.is_limited = False
        self.calls: list[str] = []

    def issue(self, value: str, life: float = 3600.0, name: str = "acme") -> Token:
        secret, now = Secret(f"CANARY-{value}"), self.clock.monotonic()
        return Token(secret, name, now, now + life, "in", secret.fingerprint)

    def put(self, value: str, life: float = 3600.0, name: str = "acme") -> Token:
        token = self.by_name[name] = self.issue(value, life, name)
        return token

    def held(self, name: str) -> Token | None:
        token = self.by_name.get(name)
        return token if token is not None and token.expires_at > self.clock.monotonic() else None

    def tokens(self, name: str) -> HandTokens:
        assert name == "acme"
        return self

    def current(self) -> Token | None:
        return self.held("acme")

    async def get(self) -> Token:
        token = self.current()
        if token is None:
            raise TokenUnavailable(reason="down")
        return token

    def accepted(self, token: Token) -> None:
        del token
        self.calls.append("accepted")

    async def refused(self, token: Token) -> Token | None:
        if self.is_limited:
            return None
        self.calls.append("refused")
        if self.by_name.get("acme") is token:
            del self.by_name["acme"]
            if self.next is not None:
                self.by_name["acme"] = self.next
        return self.next

    def discard(self, token: Token) -> None:
        raise NotImplementedError


class Bench:
    """One plane to which one process after the other pushes tokens."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.tokens = HandTokens(self.clock)
        self.metrics = Metrics(wall=self.clock.wall)
        self.folder = folder
        self.pushes: list[Push] = []

    @property
    def push(self) -> Push:
        return self.pushes[-1]

    def plane(self, *credentials: str) -> PushPlane:
        return PushPlane("edge", "envoy-sds", self.folder, credentials or ("acme",))

    async def start(self, *credentials: str) -> Push:
        push = Push(self.plane(*credentials), tokens=self.tokens, clock=self.clock, metrics=self.metrics, hold=HOLD)
        push.start()
        self.pushes.append(push)
        await self.rest()
        return push

    async def rest(self) -> None:
        """Wait until all rounds that are due have ended."""
        await self.clock.settle()
        await self.clock.until(lambda: all(push.is_at_rest for push in self.pushes))

    async def change(self) -> None:
        self.push.wake()
        await self.rest()

    async def later(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        while (timer := self.clock.next_timer) is not None and self.clock.monotonic() + timer <= end:
            await self.clock.advance(timer)
            await self.rest()
        await self.clock.advance(end - self.clock.monotonic())

    async def suspended(self, seconds: float) -> None:
        """Advance the clock while nothing runs."""
        self.clock._now += seconds
        await self.change()

    def value(self, credential: str = "acme") -> str:
        """The token in a file; empty if it was withdrawn."""
        shown = json.loads((self.folder / f"{credential}.json").read_bytes())
        return str(shown["resources"][0]["generic_secret"]["secret"]["inline_string"]).removeprefix("CANARY-")

    def metric(self, name: str, **labels: str) -> float | None:
        return sample(self.metrics, f"gatepass_plane_{name}", {"plane": "edge", **labels})


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "sds")
    yield made
    for push in made.pushes:
        push.release()
        if push._task is not None:
            await push._task


# ------------------------------------------------------------------------------------------------------ a token's life


async def test_the_file_has_each_token_as_soon_as_it_is_in_memory(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    assert bench.value() == "one"
    bench.tokens.put("two")
    await bench.change()
    assert bench.value() == "two"
    assert bench.metric("pushes_total", outcome="token") == 2


async def test_a_token_is_withdrawn_at_its_end_and_not_before(bench: Bench) -> None:
    bench.tokens.put("one", life=100)
    await bench.start()
    await bench.later(99)
    assert bench.value() == "one"
    await bench.later(1)
    assert bench.value() == ""
    assert bench.metric("token_pushed", credential="acme") == 0


async def test_before_the_first_token_the_file_holds_an_empty_secret(bench: Bench) -> None:
    await bench.start()
    assert bench.value() == ""


async def test_a_refused_token_stays_while_the_next_one_is_fetched(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    del bench.tokens.by_name["acme"]
    await bench.change()
    await bench.later(HOLD - 0.1)
    assert bench.value() == "one"
    bench.tokens.put("two")
    await bench.change()
    assert bench.value() == "two"
    await bench.later(HOLD)
    assert bench.value() == "two"


async def test_a_refused_token_is_withdrawn_if_no_other_one_comes(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    del bench.tokens.by_name["acme"]
    await bench.change()
    await bench.later(HOLD)
    assert bench.value() == ""


async def test_a_refused_token_is_withdrawn_when_it_expires(bench: Bench) -> None:
    bench.tokens.put("one", life=2)
    await bench.start()
    del bench.tokens.by_name["acme"]
    await bench.change()
    await bench.later(2)
    assert bench.value() == ""


async def test_a_token_whose_end_changes_is_still_withdrawn_at_its_end(bench: Bench) -> None:
    """An endpoint may return the same token again with an earlier end."""
    bench.tokens.put("one", life=1000)
    await bench.start()
    bench.tokens.put("one", life=50)
    await bench.change()
    await bench.later(50)
    assert bench.value() == ""


async def test_a_static_key_is_never_withdrawn_while_the_gateway_runs(bench: Bench) -> None:
    bench.tokens.put("key", life=math.inf)
    await bench.start()
    await bench.suspended(1e6)
    assert bench.value() == "key"


async def test_tokens_are_withdrawn_when_the_gateway_stops(bench: Bench) -> None:
    bench.tokens.put("one")
    push = await bench.start()
    await push.stop(withdraw=True)
    assert bench.value() == ""
    assert bench.metric("push_confirmed_timestamp_seconds", credential="acme") is None


async def test_each_credential_has_its_file(bench: Bench) -> None:
    bench.tokens.put("one")
    bench.tokens.put("two", name="other")
    await bench.start("acme", "other")
    assert (bench.value("acme"), bench.value("other")) == ("one", "two")


# ------------------------------------------------------------------------------------------ processes before and after


async def crashed(bench: Bench) -> None:
    """Leave the folder as a killed process does."""
    bench.push._stopping = True
    await bench.change()
    bench.tokens.by_name.clear()


async def test_after_a_crash_the_old_token_stays_until_the_first_one_is_fetched(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    await crashed(bench)
    await bench.start()
    assert bench.value() == "one"
    bench.tokens.put("two")
    await bench.change()
    assert bench.value() == "two"


async def test_after_a_crash_the_old_token_is_withdrawn_at_its_end(bench: Bench) -> None:
    bench.tokens.put("one", life=100)
    await bench.start()
    await crashed(bench)
    await bench.start()
    await bench.later(99)
    assert bench.value() == "one"
    await bench.later(1)
    assert bench.value() == ""


async def test_after_a_crash_a_token_that_has_expired_is_withdrawn_at_once(bench: Bench) -> None:
    bench.tokens.put("one", life=100)
    await bench.start()
    await crashed(bench)
    await bench.later(200)
    await bench.start()
    assert bench.value() == ""


async def test_an_old_token_does_not_survive_the_stop_of_a_process_that_has_none(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    await crashed(bench)
    push = await bench.start()
    await push.stop(withdraw=True)
    assert bench.value() == ""


async def test_a_successor_takes_over_without_a_gap(bench: Bench) -> None:
    bench.tokens.put("one")
    first = await bench.start()
    successor = await bench.start()
    assert successor.state == "standby"
    bench.tokens.put("two")
    successor.wake()
    await bench.rest()
    assert bench.value() == "one", "the predecessor writes until it gives up the folder"
    first.release()
    await bench.later(1)
    assert (successor.state, bench.value()) == ("ok", "two")
    await first.stop(withdraw=False)
    assert bench.value() == "two"


async def test_a_process_that_stands_by_withdraws_nothing_when_it_stops(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    second = await bench.start()
    await second.stop(withdraw=True)
    assert bench.value() == "one"


async def test_a_process_that_stands_by_has_no_series_in_the_metrics(bench: Bench) -> None:
    other = Folder(bench.folder)
    assert other.open()
    await bench.start()
    assert bench.metric("push_confirmed_timestamp_seconds", credential="acme") is None
    other.close()
    await bench.later(1)
    assert bench.metric("push_confirmed_timestamp_seconds", credential="acme") is not None


# ----------------------------------------------------------------------------------------------------------- reloading


async def test_a_credential_that_left_is_withdrawn_first_and_its_file_removed_later(bench: Bench) -> None:
    bench.tokens.put("one")
    bench.tokens.put("two", name="other")
    push = await bench.start("acme", "other")
    push.use(bench.plane("acme"), HOLD)
    await bench.rest()
    assert (bench.value("acme"), bench.value("other")) == ("one", "")
    await bench.later(GONE_AFTER + LOOK)
    assert names(bench.folder) == ["acme.json"]
    assert bench.metric("push_confirmed_timestamp_seconds", credential="other") is None


async def test_files_that_an_earlier_configuration_left_are_withdrawn_and_removed(bench: Bench) -> None:
    await bench.start("gone")
    bench.folder.joinpath("gone.json").write_bytes(sds.document("gone", bench.tokens.issue("old"), 2e9))
    await crashed(bench)
    await bench.start("acme")
    assert bench.value("gone") == ""
    await bench.later(GONE_AFTER + LOOK)
    assert names(bench.folder) == ["acme.json"]


async def test_a_credential_that_comes_back_before_its_file_is_removed_keeps_it(bench: Bench) -> None:
    bench.tokens.put("two", name="other")
    push = await bench.start("acme", "other")
    push.use(bench.plane("acme"), HOLD)
    await bench.rest()
    push.use(bench.plane("acme", "other"), HOLD)
    await bench.later(GONE_AFTER + LOOK)
    assert bench.value("other") == "two"


async def test_other_files_in_the_folder_stay(bench: Bench) -> None:
    await bench.start()
    (bench.folder / "theirs.json").write_text("{}")
    (bench.folder / "notes.txt").write_text("theirs")
    await bench.later(60)
    assert names(bench.folder) == ["acme.json", "notes.txt", "theirs.json"]


# ------------------------------------------------------------------------------------------------------------- failures


async def test_a_file_that_is_not_ours_is_reported_and_the_other_files_are_written(bench: Bench) -> None:
    bench.folder.mkdir(0o750)
    (bench.folder / "acme.json").write_text("theirs")
    bench.tokens.put("one")
    bench.tokens.put("two", name="other")
    with capture_logs() as logs:
        await bench.start("acme", "other")
        await bench.later(30)
    failed = [event for event in logs if event["event"] == "push_failed"]
    assert [event["credential"] for event in failed] == ["acme"], "one event for one reason"
    assert "was not written by Gatepass" in failed[0]["reason"]
    assert (bench.value("other"), bench.push.state) == ("two", "failing")
    assert (bench.metric("pushes_total", outcome="failed") or 0) > 3


async def test_a_push_recovers_by_itself_and_logs_it(bench: Bench) -> None:
    bench.folder.mkdir(0o755)
    bench.tokens.put("one")
    with capture_logs() as logs:
        await bench.start()
        before = bench.metric("push_confirmed_timestamp_seconds", credential="acme")
        await bench.later(60)
        assert bench.metric("push_confirmed_timestamp_seconds", credential="acme") == before
        bench.folder.chmod(0o750)
        await bench.later(LOOK)
    assert (bench.value(), bench.push.state, bench.push.problems) == ("one", "ok", [])
    events = [event["event"] for event in logs]
    assert events == ["push_failed", "push_recovered", "token_pushed"]


async def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "full")


class Disk:
    """A file system on which creating files fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.room = 0
        """How many files may still be created."""
        self._number, self._open, self._unlink = number, os.open, os.unlink
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "unlink", self.unlink)

    def open(self, path: Any, flags: int, *args: Any, **names: Any) -> int:
        if flags & os.O_CREAT and str(path).endswith(".new"):
            if self.room < 1:
                raise OSError(self._number, os.strerror(self._number))
            self.room -= 1
        return self._open(path, flags, *args, **names)

    def unlink(self, path: Any, **names: Any) -> None:
        self._unlink(path, **names)
        self.room += 1


async def test_a_token_is_withdrawn_even_on_a_full_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.tokens.put("one", life=100)
    await bench.start()
    Disk(monkeypatch, errno.ENOSPC)
    await bench.later(100)
    assert bench.value() == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
async def test_a_push_that_fails_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    disk = Disk(monkeypatch, number)
    bench.tokens.put("one")
    await bench.start()
    assert bench.push.problems == [os.strerror(number).lower()]
    disk.room = 1
    await bench.later(LOOK)
    assert bench.value() == "one"


async def test_a_file_that_somebody_removed_comes_back(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    (bench.folder / "acme.json").unlink()
    await bench.later(LOOK)
    assert bench.value() == "one"


async def test_a_folder_that_was_removed_or_replaced_comes_back(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    bench.folder.rename(bench.folder.with_name("old"))
    await bench.later(LOOK)
    assert bench.value() == "one"


async def test_a_refused_token_is_not_written_again(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    del bench.tokens.by_name["acme"]
    (bench.folder / "acme.json").unlink()
    await bench.change()
    assert not (bench.folder / "acme.json").exists()


async def test_the_age_of_a_push_stays_low_while_nothing_changes(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    await bench.later(100)
    confirmed = bench.metric("push_confirmed_timestamp_seconds", credential="acme")
    assert confirmed is not None
    assert bench.clock.wall() - confirmed <= LOOK
    assert bench.metric("pushes_total", outcome="token") == 1


async def test_a_defect_is_logged_and_does_not_end_the_push(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.tokens.put("one")
    with capture_logs() as logs, monkeypatch.context() as broken:
        broken.setattr(push_module, "job", lambda *_, **__: 1 / 0)
        await bench.start()
    await bench.later(LOOK)
    assert bench.value() == "one"
    assert "push_crashed" in [event["event"] for event in logs]


# -------------------------------------------------------------------------------------------------------------- reports


async def reported(bench: Bench, value: str) -> str:
    """Report a token, and advance the clock until the report is answered."""
    answer = asyncio.ensure_future(
        report(bench.push, bench.tokens, "acme", f"Bearer CANARY-{value}".encode() if value else b"")
    )
    await bench.rest()
    bench.push.wake()
    await bench.rest()
    await bench.later(0.2)
    if not answer.done():
        await bench.later(HOLD)
    return await answer


async def test_a_reported_token_is_replaced_before_the_answer(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    bench.tokens.next = bench.tokens.issue("two")
    assert await reported(bench, "one") == "replaced"
    assert bench.value() == "two"


async def test_a_late_report_about_an_older_token_invalidates_nothing(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    bench.tokens.put("two")
    await bench.change()
    assert await reported(bench, "one") == "known"
    assert (bench.tokens.calls, bench.value()) == ([], "two")


async def test_a_report_without_a_value_is_about_the_token_in_use(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    await bench.later(NEW)
    bench.tokens.next = bench.tokens.issue("two")
    assert await reported(bench, "") == "replaced"
    assert bench.value() == "two"


async def test_a_report_without_a_value_is_not_about_a_token_that_is_new(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    await bench.later(100)
    bench.tokens.put("two")
    await bench.change()
    assert await reported(bench, "") == "known"
    assert (bench.tokens.calls, bench.value()) == ([], "two")


async def test_an_answer_about_a_new_token_waits_until_the_next_report_is_about_it(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    answer = asyncio.ensure_future(report(bench.push, bench.tokens, "acme", b""))
    await bench.later(NEW - 0.01)
    assert not answer.done()
    await bench.later(1)
    assert await answer == "known"
    bench.tokens.next = bench.tokens.issue("two")
    assert await reported(bench, "") == "replaced"


async def test_a_report_without_a_value_waits_for_the_token_that_is_fetched(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    await bench.later(100)
    del bench.tokens.by_name["acme"]
    await bench.change()
    bench.tokens.put("two")
    assert await reported(bench, "") == "known"
    assert (bench.tokens.calls, bench.value()) == ([], "two")


async def test_a_report_about_a_value_that_was_not_pushed_is_unknown(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    assert await reported(bench, "the apps own") == "unknown"
    assert bench.tokens.calls == []


async def test_a_report_that_may_not_cause_a_fetch_changes_nothing(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    bench.tokens.is_limited = True
    assert await reported(bench, "one") == "limited"
    assert bench.value() == "one"


async def test_without_another_token_the_refused_one_is_withdrawn_at_once(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    assert await reported(bench, "one") == "unavailable"
    await bench.rest()
    assert bench.value() == ""


async def test_a_token_that_was_not_reported_for_a_while_counts_as_accepted(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    await bench.later(PROVEN)
    bench.tokens.next = bench.tokens.issue("two")
    await reported(bench, "one")
    assert bench.tokens.calls == ["accepted", "refused"]


async def test_a_token_that_was_reported_at_once_never_counts_as_accepted(bench: Bench) -> None:
    bench.tokens.put("one")
    await bench.start()
    bench.tokens.is_limited = True
    await reported(bench, "one")
    await bench.later(PROVEN)
    bench.tokens.is_limited, bench.tokens.next = False, bench.tokens.issue("two")
    await reported(bench, "one")
    assert bench.tokens.calls == ["refused"]
