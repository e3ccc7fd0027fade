"""The status page in a real Chromium: it renders, follows what happens, and its button works.

Pictures at two widths are left in `$GATEPASS_ARTEFACTS`, or in the test's folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit.chromium import PROGRAM, chromium
from tests.kit.emulation import Load, ask, emulated, warm
from tests.kit.seen import ADMIN_KEY, admin_port

if TYPE_CHECKING:
    from gateway.sandbox import Sandbox
    from tests.kit.chromium import Tab
    from tests.kit.gateway import Running

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium on this machine (Debian: apt install chromium)")

STATE = "document.querySelector('#credential-{} .pill')?.textContent"
TOKEN = "document.querySelector('#credential-{} code')?.textContent"


@pytest.mark.slow
async def test_the_page_renders_follows_what_happens_fetches_and_says_when_nobody_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One browser for the whole walk: it takes a second to start."""
    monkeypatch.setattr("gateway.admin.html.REFRESH", 0.3)
    pictures = Path(os.environ.get("GATEPASS_ARTEFACTS", tmp_path))
    async with emulated() as (it, sandbox), chromium() as tab:
        await warm(it)
        async with admin_port(it) as url:
            await walk(it, sandbox, url, tab, pictures)
        await tab.until("!document.getElementById('stale').hidden")
    assert {address.split("/")[2] for address in tab.requests if address.startswith("http")} == {url[7:]}
    assert all("ERR_CONNECTION_REFUSED" in error for error in tab.errors), "the page keeps its own policy"


async def walk(it: Running, sandbox: Sandbox, url: str, tab: Tab, pictures: Path) -> None:
    async with Load(it, list(sandbox.vendors)):
        await tab.size(1100, 800)
        await tab.open(f"{url}/status")
        assert await tab.run("document.querySelectorAll('.card').length") == 4
        assert await tab.run("getComputedStyle(document.querySelector('.cards')).display") == "grid"
        assert await tab.run("document.querySelector('.left').getBoundingClientRect().width") > 10
        await tab.until("document.querySelector('#route-uqudo td').textContent > 0")

        before = await tab.run(TOKEN.format("uqudo"))
        sandbox.vendors["uqudo"].revoke()
        await ask(it, "uqudo")
        await tab.until(f"{TOKEN.format('uqudo')} !== '{before}'")

    await sandbox.vendors["idfy"].set(token_fault="500")
    sandbox.vendors["idfy"].revoke()
    await ask(it, "idfy")
    await tab.until(f"{STATE.format('idfy')} === 'unavailable'")
    assert "token endpoint is down" in await tab.run("document.querySelector('#credential-idfy').textContent")
    await tab.look(pictures / "status-wide.png", 1100, 700)
    await tab.look(pictures / "status-narrow.png", 390, 700, dark=True)
    assert await tab.run("document.documentElement.scrollWidth") <= 390, "nothing sticks out on a phone"

    await tab.size(1100, 800)
    await sandbox.vendors["idfy"].set(token_fault="none")
    await tab.run(f"document.querySelector('input[name=key]').value = '{ADMIN_KEY}'")
    await tab.run("document.querySelector('footer button').click()")
    await tab.until("document.querySelector('#credential-idfy button') !== null")
    await tab.run("document.querySelector('#credential-idfy form[action$=fetch] button').click()")
    await tab.until(f"{STATE.format('idfy')} === 'valid'")
    await tab.until("document.body.textContent.includes('idfy: a new token was fetched.')")
    assert tab.errors == [], "nothing is missing"
