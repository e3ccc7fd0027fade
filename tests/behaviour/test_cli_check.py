"""`check`, `token` and `health` against real sockets: each command is a process of its own, as a person starts it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

ROOT = Path(__file__).parents[2]
TOKEN = "CANARY-token-0123456789"
SECRET = "CANARY-secret-0123456789"
CONFIG = """\
listen: 127.0.0.1:0
admin: 127.0.0.1:0
credentials:
  acme:
    grant:
      request:
        method: POST
        url: {url}/token
        form: {{grant_type: client_credentials, client_id: app, client_secret: "${{ACME_SECRET}}"}}
      response: {{token: access_token, expires: {{in: expires_in}}}}
    probe: {{method: GET, url: "{url}/whoami", headers: {{Authorization: "Bearer {{token}}"}}}}
  ledger: {{static: {{token: CANARY-static-key}}}}
routes:
  acme: {{credential: acme, upstream: "{url}"}}
  ledger: {{credential: ledger, upstream: "{url}"}}
"""


@dataclass
class Vendor:
    """A token endpoint and an identity endpoint whose answers a test chooses."""

    grant: tuple[int, Any] = (200, {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 1800})
    whoami: int = 200
    asked: int = 0
    shown: str | None = None

    async def token(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["client_secret"] == SECRET
        self.asked += 1
        status, body = self.grant
        return web.json_response(body, status=status)

    async def identity(self, request: web.Request) -> web.Response:
        self.shown = request.headers.get("Authorization")
        return web.json_response({"name": "CANARY-whoami"}, status=self.whoami)


Gatepass = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
async def gatepass(vendor: Vendor, tmp_path: Path) -> AsyncIterator[Gatepass]:
    """Run a command with a configuration of that vendor; gives status, stdout and stderr, searched for secrets."""
    app = web.Application()
    app.router.add_post("/token", vendor.token)
    app.router.add_get("/whoami", vendor.identity)
    async with TestServer(app) as server:
        config = tmp_path / "config.yaml"
        config.write_text(CONFIG.format(url=str(server.make_url("")).rstrip("/")), encoding="utf-8")

        async def run(*args: str) -> tuple[int, str, str]:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway", *args, "-c", str(config),
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT, env={"ACME_SECRET": SECRET},
            )  # fmt: skip
            out, err = await asyncio.wait_for(child.communicate(), 120)
            assert b"CANARY" not in out + err
            return child.returncode or 0, out.decode(), err.decode()

        yield run


def row(shown: str, name: str) -> list[str]:
    """Return the cells of one credential's row."""
    return next(line.split() for line in shown.splitlines() if line.startswith(name))


async def test_check_really_fetches_and_shows_life_source_and_fingerprint(gatepass: Gatepass, vendor: Vendor) -> None:
    status, out, err = await gatepass("check")
    assert (status, vendor.asked) == (0, 1), err
    name, state, life, unit, source, *_, fingerprint = row(out, "acme")
    assert (name, state, life, unit, source) == ("acme", "valid", "1800", "s", "in")
    assert len(fingerprint) == 8
    assert row(out, "ledger")[1] == "static"


async def test_check_offline_calls_nobody(gatepass: Gatepass, vendor: Vendor) -> None:
    status, out, err = await gatepass("check", "--offline")
    assert (status, out, vendor.asked) == (0, "", 0)
    assert "2 routes, 2 credentials, 0 clients" in err


@pytest.mark.parametrize(
    ("grant", "code", "reason"),
    [
        pytest.param((401, {"error": "invalid_client"}), "credential_refused", "invalid_client", id="refused"),
        pytest.param((200, {"access_token": ""}), "token_malformed", "acme:", id="malformed"),
        pytest.param((503, {}), "token_unavailable", "503", id="down"),
    ],
)
async def test_check_gives_the_reason_and_fails(
    gatepass: Gatepass, vendor: Vendor, grant: tuple[int, Any], code: str, reason: str
) -> None:
    vendor.grant = grant
    status, out, _ = await gatepass("check")
    assert status == 1
    assert row(out, "acme")[1] == code
    assert reason in out.partition("acme:")[1] + out.partition("acme:")[2]
    assert row(out, "ledger")[1] == "static"


GOOD = {"access_token": TOKEN, "token_type": "Bearer"}


@pytest.mark.parametrize(
    ("grant", "status", "said"),
    [
        pytest.param((201, GOOD), 1, "HTTP 201 with a token, but `grant.response.success` is [200]", id="status"),
        pytest.param((202, {}), 1, "HTTP 202 without a token, but `grant.response.success` is [200]", id="no token"),
        pytest.param(
            (200, GOOD),
            0,
            "acme: the answer has no usable lifetime at `expires_in` (`grant.response.expires`); the fallback of 300 s",
            id="no lifetime",
        ),
        pytest.param(
            (200, {**GOOD, "expires_in": "soon"}), 0, "no usable lifetime at `expires_in`", id="unusable lifetime"
        ),
    ],
)
async def test_check_names_where_the_real_answer_contradicts_the_recipe(
    gatepass: Gatepass, vendor: Vendor, grant: tuple[int, Any], status: int, said: str
) -> None:
    vendor.grant = grant
    ended, out, err = await gatepass("check")
    assert said in out
    assert ended == status, err


async def test_check_says_nothing_where_the_answer_is_as_expected(gatepass: Gatepass, vendor: Vendor) -> None:
    _, out, _ = await gatepass("check")
    assert vendor.asked == 1
    assert "acme:" not in out


@pytest.mark.parametrize(("whoami", "status"), [(200, 0), (403, 1)])
async def test_probe_shows_only_the_status_of_the_identity_endpoint(
    gatepass: Gatepass, vendor: Vendor, whoami: int, status: int
) -> None:
    vendor.whoami = whoami
    ended, out, _ = await gatepass("token", "acme", "--probe")
    assert (ended, vendor.shown) == (status, f"Bearer {TOKEN}")
    assert row(out, "acme")[-1] == str(whoami)


async def test_token_tries_only_the_one_that_is_named(gatepass: Gatepass, vendor: Vendor) -> None:
    status, out, _ = await gatepass("token", "ledger")
    assert (status, vendor.asked) == (0, 0)
    assert "acme" not in out


@pytest.mark.parametrize(("answer", "status"), [(200, 0), (503, 1)])
async def test_health_says_what_the_admin_port_says(answer: int, status: int) -> None:
    async def ready(_: web.Request) -> web.Response:
        return web.json_response({"state": "made-up"}, status=answer)

    app = web.Application()
    app.router.add_get("/readyz", ready)
    async with TestServer(app) as server:
        command = (sys.executable, "-m", "gateway", "health", "--ready", "--url", str(server.make_url("")))
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, cwd=ROOT)
        out, err = await asyncio.wait_for(child.communicate(), 120)
    assert child.returncode == status, err
    assert b"made-up" in (err if status else out)
