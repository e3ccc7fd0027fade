"""The vendors' own SDKs and common OAuth libraries, unmodified: only the base URL and the credentials are ours."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from gateway.access import hash_key, passes
from tests.kit.configuration import ROOT
from tests.kit.emulation import emulated, warm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.sandbox import Sandbox
    from tests.kit.gateway import Running

APPS = Path(__file__).parents[1] / "sdks"
KEY = "gp_CANARY-sdk_key/+%"
CLIENTS = [{"name": "web", "key_sha256": hash_key(KEY)}]
PLAIN = {
    "idfy_sdk_app.py": "idfy-sdk",
    "authlib_app.py": "Authlib",
    "httpx_auth_app.py": "httpx-auth",
    "idfy_sdk_app.js": "@idfy/sdk",
    "simple_oauth2_app.js": "simple-oauth2",
    "openid_client_app.js": "openid-client",
}
TLS = {"requests_oauthlib_app.py": "requests-oauthlib", "msal_app.py": "MSAL"}
"""These insist on https."""
LIFE, PAUSE = 6, "7.2"
"""Seconds; libraries round the end of a pass to whole seconds, so the pause is longer by more than one."""


def command(app: str) -> list[str]:
    """Return how an app is run; skip where its packages are not installed."""
    if app.endswith(".py"):
        return [sys.executable, "-W", "ignore", str(APPS / app)]
    node = shutil.which("node")
    if node is None or not (APPS / "node_modules").is_dir():
        pytest.skip("Node or its packages are not installed (npm ci --prefix tests/sdks)")
    return [node, str(APPS / app)]


async def run(app: str, base: str, **environ: str) -> list[dict[str, Any]]:
    """Run an app to its end; return what it printed."""
    environ |= {"PATH": os.environ["PATH"], "BASE": base, "TOKEN_URL": f"{base}/oauth/connect/token", "KEY": KEY}
    done = await asyncio.to_thread(
        subprocess.run, command(app), env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@asynccontextmanager
async def stage(**top: object) -> AsyncIterator[tuple[Running, Sandbox]]:
    async with emulated(None, {"clients": CLIENTS, **top}) as (it, sandbox):
        await warm(it)
        yield it, sandbox
        assert KEY not in it.log


def check(it: Running, sandbox: Sandbox, done: dict[str, list[dict[str, Any]]]) -> None:
    """Each app wrote, read, and did so again with a second pass; the vendor saw one token request in all."""
    assert done == {name: [{"read": True}, {"read": True}] for name in done}
    assert it.metric("gatepass_app_tokens_total", route="idfy", client="web", outcome="issued") >= 2 * len(done)
    assert sandbox.vendors["idfy"].counters.token_requests == 1
    assert sandbox.vendors["idfy"].counters.api_401s == 0


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".py", ".js"], ids=["Python", "Node"])
async def test_sdks_fetch_write_read_and_fetch_again(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "LIFE", LIFE)
    apps = {app: name for app, name in PLAIN.items() if app.endswith(suffix)}
    async with stage() as (it, sandbox):
        done = await asyncio.gather(*(run(app, f"{it.url}/idfy", PAUSE=PAUSE) for app in apps))
        check(it, sandbox, dict(zip(apps.values(), done, strict=True)))


@pytest.mark.slow
async def test_libraries_that_insist_on_https_work_with_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(passes, "LIFE", LIFE)
    authority = trustme.CA()
    ours = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    async with stage(tls=tls) as (it, sandbox):
        base = it.url.replace("http:", "https:") + "/idfy"
        done = await asyncio.gather(
            *(run(app, base, PAUSE=PAUSE, REQUESTS_CA_BUNDLE=str(tmp_path / "ca.pem")) for app in TLS)
        )
        check(it, sandbox, dict(zip(TLS.values(), done, strict=True)))


@pytest.mark.parametrize("app", [*PLAIN, *TLS], ids=[*PLAIN.values(), *TLS.values()])
def test_each_package_has_its_lines_in_the_page_for_app_developers(app: str) -> None:
    """What an app developer copies is what runs here."""
    page = (ROOT / "docs" / "apps.md").read_text()
    assert {**PLAIN, **TLS}[app] in page
