"""The token always arrives, and once, whatever the app sends; what is not the vendor's business does not."""

from __future__ import annotations

import pytest

from tests.kit.gateway import CANARY, one_route, running
from tests.kit.wire import Message, answering, connect, get, ok, vendor

TOKEN = f"Bearer {CANARY}".encode()
ATTEMPTS = {
    "its own": ["Authorization: Bearer mine"],
    "repeated": ["Authorization: Bearer mine", "Authorization: Bearer theirs"],
    "lower case": ["authorization: Bearer mine"],
    "odd case": ["aUTHORIZATION: Bearer mine"],
    "upper case": ["AUTHORIZATION: Basic bWluZQ=="],
    "empty": ["Authorization:"],
    "spaces": ["Authorization:   Bearer   mine  "],
    "tab": ["Authorization:\tBearer\tmine"],
    "high bytes": ["Authorization: Bearer \xff\xfe\x80"],
    "long": [f"Authorization: Bearer {'x' * 7000}"],
    "nominated": ["Connection: authorization"],
    "nominated in odd case": ["Connection: AuthoriZation", "Authorization: mine"],
    "nominated with others": ["Connection: keep-alive, Authorization , close-not, te"],
    "nominated twice": ["Connection: authorization", "Connection: authorization"],
    "nominated with a tab": ["Connection:\tauthorization\t"],
    "every field nominated": ["Connection: host, content-length, transfer-encoding, via, x-request-id, authorization"],
    "as a trailer name": ["Trailer: Authorization", "TE: trailers"],
    "as proxy": ["Proxy-Authorization: Bearer mine"],
}


@pytest.mark.parametrize("name", ATTEMPTS)
async def test_the_token_arrives_once_whatever_the_app_sends(name: str) -> None:
    """Connection-nominated fields go first, then the token is put in: nothing that a client says can strip it."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", *ATTEMPTS[name]))
        assert (await app.message()).status == 200
    assert [value for key, value in seen[0].headers if b"uthoriz" in key.lower()] == [TOKEN]
    assert seen[0].one("Host") == f"127.0.0.1:{upstream.port}".encode()


ALIASES = ["X_Api_Key", "x-api_key", "X_API-KEY", "X-Api-Key", "x-api-key", "X-API-KEY"]


@pytest.mark.parametrize("alias", ALIASES)
async def test_a_look_alike_of_any_injected_field_is_dropped(alias: str) -> None:
    """Servers behind CGI and WSGI read an underscore as a hyphen: the app's value would arrive beside ours."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream:
        config = one_route(upstream.port, inject=[{"header": "X-Api-Key", "credential": "key", "format": "{token}"}])
        del config["routes"]["v"]["credential"]
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(get("/v/a", f"{alias}: evil"))
            await app.message()
    assert [value for key, value in seen[0].headers if b"api" in key.lower()] == [CANARY.encode()]


STRIPPED = {
    "Cookie": "a=b",
    "Origin": "https://app.example",
    "Referer": "https://app.example/x",
    "Forwarded": "for=1.2.3.4",
    "X-Forwarded-For": "1.2.3.4",
    "X-Forwarded-Host": "app.example",
    "X-Forwarded-Anything": "1",
    "X-Real-IP": "1.2.3.4",
}


@pytest.mark.parametrize("name", STRIPPED)
async def test_a_stripped_field_passes_where_the_route_says_so(name: str) -> None:
    """And on no other route; `pass_headers` names it."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream:
        config = one_route(upstream.port, pass_headers=[name])
        config["routes"]["plain"] = one_route(upstream.port)["routes"]["v"]
        async with running(config) as it:
            app = await connect(it.address)
            for path in ("/v/a", "/plain/a"):
                await app.send(get(path, f"{name}: {STRIPPED[name]}"))
                assert (await app.message()).status == 200
    assert seen[0].all(name) == [STRIPPED[name].encode()]
    assert seen[1].all(name) == []


async def test_strip_headers_names_what_else_does_not_go_up() -> None:
    """In any case, and with underscores for hyphens."""
    seen: list[Message] = []
    async with (
        vendor(answering(ok(), seen=seen)) as upstream,
        running(one_route(upstream.port, strip_headers=["X-Internal-User"])) as it,
    ):
        app = await connect(it.address)
        await app.send(get("/v/a", "X-Internal-User: 7", "x-internal-user: 8", "X_Internal_User: 9", "X-Other: 1"))
        await app.message()
    assert [name for name, _ in seen[0].headers if b"nternal" in name] == []
    assert seen[0].one("X-Other") == b"1"


async def test_a_fixed_origin_replaces_the_apps() -> None:
    """For vendors that check it."""
    seen: list[Message] = []
    async with (
        vendor(answering(ok(), seen=seen)) as upstream,
        running(one_route(upstream.port, origin="https://us.example")) as it,
    ):
        app = await connect(it.address)
        await app.send(get("/v/a", "Origin: https://app.example", "origin: null"))
        await app.message()
    assert seen[0].all("Origin") == [b"https://us.example"]


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("x-forwarded", "X-Forwarded-For", b"127.0.0.1"),
        ("rfc7239", "Forwarded", b'for=127.0.0.1;host="gatepass"'),
        ("off", "Forwarded", None),
    ],
)
async def test_the_vendor_is_told_who_called_only_where_the_route_says_so(
    kind: str, field: str, value: bytes | None
) -> None:
    """With the address that we saw, never with what the app claims."""
    seen: list[Message] = []
    async with (
        vendor(answering(ok(), seen=seen)) as upstream,
        running(one_route(upstream.port, forwarded=kind)) as it,
    ):
        app = await connect(it.address)
        await app.send(get("/v/a", "X-Forwarded-For: 6.6.6.6", "Forwarded: for=6.6.6.6"))
        await app.message()
    assert seen[0].all(field) == ([value] if value else [])
    assert not [value for _, value in seen[0].headers if b"6.6.6.6" in value]


async def test_the_apps_own_authorization_passes_where_the_route_says_so() -> None:
    """Then the token travels in a field of its own."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream:
        config = one_route(
            upstream.port,
            authorization="pass",
            inject=[{"header": "x-kyc-access-token", "credential": "key", "format": "{token}"}],
        )
        del config["routes"]["v"]["credential"]
        async with running(config) as it:
            app = await connect(it.address)
            await app.send(get("/v/a", "Authorization: Bearer end-user", "Connection: authorization-x"))
            await app.message()
    assert seen[0].one("Authorization") == b"Bearer end-user"
    assert seen[0].one("x-kyc-access-token") == CANARY.encode()


@pytest.mark.parametrize("name", ["X-Gatepass-Key", "x-gatepass-key", "X_Gatepass_Key"])
async def test_the_gateways_key_never_reaches_a_vendor(name: str) -> None:
    """Nor does anything that looks like it."""
    seen: list[Message] = []
    async with vendor(answering(ok(), seen=seen)) as upstream, running(one_route(upstream.port)) as it:
        app = await connect(it.address)
        await app.send(get("/v/a", f"{name}: gp_CANARY"))
        await app.message()
    assert [key for key, value in seen[0].headers if b"gp_" in value or b"atepass" in key] == []
