"""A route is chosen by its prefix, or by the host name that the app calls: for SDKs that lose a prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.access import hash_key
from gateway.config import load
from gateway.errors import ConfigError
from gateway.proxy.routing import host_of
from tests.kit.gateway import one_route, running
from tests.kit.wire import Message, answering, connect, ok, vendor

if TYPE_CHECKING:
    from pathlib import Path

HOSTS = ["v.gatepass.internal", "Other.Internal."]
KEY = "gp_CANARY-hosts"


@pytest.mark.parametrize(
    ("host", "path", "reached"),
    [
        ("v.gatepass.internal", "/api/x?y=1", "/base/api/x?y=1"),
        ("v.gatepass.internal", "/v/api/x?y=1", "/base/api/x?y=1"),
        ("v.gatepass.internal", "/vx", "/base/vx"),
        ("v.gatepass.internal", "/w/x", "/base/w/x"),
        ("v.gatepass.internal", "/", "/base/"),
        ("V.GATEPASS.internal:8080", "/x", "/base/x"),
        ("v.gatepass.internal.", "/x", "/base/x"),
        ("other.internal", "/x", "/base/x"),
        ("elsewhere.internal", "/v/x", "/base/x"),
    ],
)
async def test_the_host_selects_the_route_and_the_prefix_is_optional(host: str, path: str, reached: str) -> None:
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream:
        config = one_route(upstream.port, hosts=HOSTS, upstream=f"http://127.0.0.1:{upstream.port}/base")
        config["routes"]["w"] = {"credential": "key", "upstream": "http://127.0.0.1:9"}
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert (await app.message()).status == 200
    assert seen[0].target.decode() == reached


@pytest.mark.parametrize("host", ["x.internal", "v.gatepass.internal.evil", "127.0.0.1", "[::1]:80"])
async def test_another_host_needs_the_prefix_and_the_404_says_what_may_be_wrong(host: str) -> None:
    async with running(one_route(9, hosts=HOSTS)) as it:
        app = await connect(it.address)
        await app.send(f"GET /api/x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = await app.message()
        assert answer.status == 404
        assert b"prefix" in answer.body


async def test_rules_see_the_path_with_its_prefix_however_it_was_called() -> None:
    client: dict[str, Any] = {
        "name": "web",
        "key_sha256": hash_key(KEY),
        "allow": ["GET /v/open/**"],
        "deny": ["/v/open/shut"],
    }
    async with vendor(answering(ok())) as upstream:
        config = one_route(upstream.port, hosts=HOSTS, deny=["/never"]) | {"clients": [client]}
        async with running(config) as it:
            app = await connect(it.address)
            for path, status in {
                "/open/x": 200,
                "/v/open/x": 200,
                "/open/shut": 403,
                "/v/open/shut": 403,
                "/closed": 403,
                "/never": 403,
            }.items():
                await app.send(f"GET {path} HTTP/1.1\r\nHost: {HOSTS[0]}\r\nX-Gatepass-Key: {KEY}\r\n\r\n".encode())
                assert (await app.message()).status == status, path


@pytest.mark.parametrize(
    ("fields", "host"),
    [
        ([], ""),
        (["a", "a"], ""),
        (["A.b"], "a.b"),
        (["a.b."], "a.b"),
        (["a:1"], "a"),
        (["a:"], "a"),
        (["[::1]"], "[::1]"),
        (["[::1]:80"], "[::1]"),
    ],
)
def test_a_host_is_read_without_case_port_and_final_dot(fields: list[str], host: str) -> None:
    assert host_of(fields) == host


def test_one_host_selects_one_route(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "credentials: {k: {static: {token: CANARY}}}\n"
        "routes:\n"
        "  a: {credential: k, upstream: 'https://a.example', hosts: [one.internal]}\n"
        "  b: {credential: k, upstream: 'https://b.example', hosts: [ONE.internal.]}\n"
    )
    with pytest.raises(ConfigError, match=r"c\.yaml:4: routes\.b\.hosts\[0\].*already a host of route a"):
        load([tmp_path / "c.yaml"], environ={})
