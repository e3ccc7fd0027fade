"""A real nginx, which decodes and merges slashes as it is shipped, is never asked for what a rule denies."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from gateway.access import hash_key
from tests.kit import lenient
from tests.kit.gateway import one_route, running
from tests.kit.peers import servers
from tests.kit.wire import Message, answering, connect, get, ok, vendor
from tests.unit.test_path_readings import SPELLINGS

if TYPE_CHECKING:
    from tests.kit.gateway import Running

KEY = "gp_CANARY_client"
RULES = ["/authorization/**", "/oauth/token", "/files/*", "/r/my%20files/**", "/r/secret;v=1/**", "/x/**/private"]
SEEN_BY_NGINX = [lenient.wsgi(rule) for rule in RULES]


async def ask(it: Running, path: str) -> Message:
    app = await connect(it.address)
    await app.send(get(f"/v{path}", f"X-Gatepass-Key: {KEY}", "Connection: close"))
    got = await app.message()
    app.close()
    return got


def spellings(count: int) -> list[str]:
    random = Random(8)
    return [lenient.spelling(lenient.named_by(random.choice(RULES), random), random) for _ in range(count)]


@pytest.mark.parametrize("by", ["the route", "the client"])
async def test_nginx_never_sees_a_denied_path_however_it_is_written(by: str) -> None:
    """It answers with the path that it read; what a rule names must never be that."""
    if reason := servers.missing("nginx"):
        pytest.skip(reason)
    client: dict[str, object] = {"name": "web", "key_sha256": hash_key(KEY)}
    if by == "the client":
        client["deny"] = [f"/v{rule}" for rule in RULES]
    async with servers.server("nginx") as port:
        config = one_route(port, **({"deny": RULES} if by == "the route" else {}))
        async with running({**config, "clients": [client]}) as it:
            assert (await ask(it, "/x/ordinary%20path")).body == b"/x/ordinary path"
            refused = 0
            for path in [*SPELLINGS, *spellings(400)]:
                got = await ask(it, path)
                if got.status == 200:
                    read = got.body.decode("utf-8", "replace")
                    assert not any(lenient.glob(rule, read) for rule in SEEN_BY_NGINX), (path, read)
                refused += got.status in {400, 403}
            assert refused > 300


async def test_the_kit_would_notice_nginx_reads_such_spellings_as_denied_paths() -> None:
    """Without rules some of them arrive there, so the test above can fail."""
    if reason := servers.missing("nginx"):
        pytest.skip(reason)
    async with servers.server("nginx") as port, running(one_route(port)) as it:
        arrived = [await ask(it, path) for path in spellings(200)]
    read = [got.body.decode("utf-8", "replace") for got in arrived if got.status == 200]
    assert sum(any(lenient.glob(rule, path) for rule in SEEN_BY_NGINX) for path in read) > 20


@pytest.mark.parametrize("path", ["", ";x", "%20", ".", "/", "/more", ".json"])
@pytest.mark.parametrize("on_shutdown", [False, True])
async def test_endpoints_for_tokens_on_the_host_of_the_api_are_denied_by_themselves(
    path: str, on_shutdown: bool
) -> None:
    """Where tokens are issued and where they are revoked, whether the gateway ever revokes one or not."""
    seen: list[Message] = []
    async with vendor(answering(ok(b'{"access_token": "CANARY", "expires_in": 3600}'), seen=seen)) as upstream:
        base = f"http://127.0.0.1:{upstream.port}"
        config = one_route(upstream.port, upstream=f"{base}/api", app_tokens=False)
        config["credentials"]["key"] = {
            "grant": {
                "request": {"url": f"{base}/api/oauth/token", "form": {"grant_type": "client_credentials"}},
                "response": {"token": "access_token", "expires": {"in": "expires_in"}},
            },
            "revoke": {"url": f"{base}/API/oauth/revoke", "form": {"token": "{token}"}},
            "revoke_on_shutdown": on_shutdown,
        }
        async with running(config) as it:
            app = await connect(it.address)
            for endpoint in ("/oauth/token", "/oauth/revoke", "/oauth%2Frevoke", "/OAuth/Revoke"):
                await app.send(get(f"/v{endpoint}{path}", method="POST"))
                assert (await app.message()).status == 400, endpoint
            await app.send(get("/v/oauth/tokens"))
            assert (await app.message()).status == 200
    assert [message.target for message in seen if message.all("Via")] == [b"/api/oauth/tokens"]
