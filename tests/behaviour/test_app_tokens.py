"""Apps whose SDK fetches its own token: the gateway answers in the vendor's place, and the pass opens the route."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import jwt
import pytest

from gateway.access import hash_key
from gateway.app import Gateway
from gateway.clock import SystemClock
from gateway.config import load
from gateway.proxy.exchange import UNKNOWN_AFTER
from gateway.tokens.grant import ASSERTION_TYPE
from tests.kit.emulation import emulated, warm
from tests.kit.endpoint import TokenEndpoint, json_answer
from tests.kit.signing import AUDIENCE, ISSUER, jwk, jwks, token
from tests.kit.wire import answering, connect, vendor
from tests.kit.wire import ok as http_ok

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from gateway.model import Config
    from gateway.sandbox import Sandbox
    from tests.kit.gateway import Running

KEY, OTHER = "gp_CANARY-app-key", "gp_CANARY-other-key"
CLIENTS: list[dict[str, Any]] = [
    {"name": "web", "key_sha256": hash_key(KEY)},
    {"name": "narrow", "key_sha256": hash_key(OTHER), "routes": ["uqudo"]},
]
PATHS = {
    "uqudo": "/uqudo/api/oauth/token",
    "idfy": "/idfy/oauth/connect/token",
    "akiba": "/akiba/authorization/token",
    "hypersign": "/hypersign/api/v1/app/oauth",
}
TYPE = "application/x-www-form-urlencoded"
FORM = {"grant_type": "client_credentials", "client_id": "any"}


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"any:{key}".encode()).decode()}


class App:
    """An app with an HTTP client."""

    def __init__(self, it: Running, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        self.it, self.sandbox, self.http = it, sandbox, http

    async def token(
        self, route: str = "uqudo", key: str | None = KEY, **request: Any
    ) -> tuple[int, dict[str, Any], Any]:
        """Ask for a token with Basic, unless the request says otherwise; return status, JSON and fields."""
        if key is not None and "data" not in request and "json" not in request and "headers" not in request:
            request["headers"] = basic(key)
        async with self.http.request(request.pop("method", "POST"), self.it.url + PATHS[route], **request) as answer:
            text = await answer.text()
            assert KEY not in text
            return answer.status, json.loads(text), answer.headers

    async def call(self, route: str, path: str = "/sandbox/echo", **headers: str) -> int:
        async with self.http.get(f"{self.it.url}/{route}{path}", headers=headers) as answer:
            return answer.status


@asynccontextmanager
async def app(routes: dict[str, Any] | None = None, **top: Any) -> AsyncIterator[App]:
    async with emulated(routes, {"clients": CLIENTS, **top}) as (it, sandbox), aiohttp.ClientSession() as http:
        await warm(it)
        yield App(it, sandbox, http)
        for key in (KEY, OTHER):
            assert key not in it.log, "a key in the log"


async def test_each_vendor_s_sdk_gets_a_pass_in_its_vendor_s_shape_and_reads_with_it() -> None:
    """The key as Basic password, for every vendor; the vendor's own endpoint sees only the gateway's request."""
    async with app() as it:
        for route in PATHS:
            status, body, fields = await it.token(route)
            assert status == 200, body
            assert fields["Cache-Control"] == "no-store"
            token = body["access_token"]
            assert isinstance(body.get("expires_in", body.get("expiresIn")), int)
            assert await it.call(route, Authorization=f"Bearer {token}") == 200
            assert it.sandbox.vendors[route].counters.token_requests == 1
            assert token not in it.it.log
        assert '"event":"app_token_issued"' in it.it.log.replace(": ", ":")
        assert it.it.metric("gatepass_app_tokens_total", route="uqudo", client="web", outcome="issued") == 1


@pytest.mark.parametrize(
    ("route", "request_"),
    [
        ("uqudo", {"data": FORM | {"client_secret": KEY}}),
        ("uqudo", {"json": FORM | {"client_secret": KEY}}),
        ("idfy", {"data": FORM | {"client_secret": KEY, "scope": "document_read"}}),
        ("hypersign", {"headers": {"X-Api-Secret-Key": KEY}}),
        ("akiba", {"data": FORM | {"client_credential": KEY, "client_secret": "whatever"}}),
        ("akiba", {"headers": {"X-Gatepass-Key": KEY}}),
        ("idfy", {"headers": {"Authorization": f"Bearer {KEY}"}}),
    ],
)
async def test_the_key_stands_where_the_recipe_puts_the_secret(route: str, request_: dict[str, Any]) -> None:
    async with app() as it:
        status, body, _ = await it.token(route, **request_)
        assert status == 200
        assert body.get("scope") == request_.get("data", {}).get("scope")


async def test_a_pass_opens_one_route_and_dies_with_its_client() -> None:
    async with app() as it:
        token = (await it.token("uqudo"))[1]["access_token"]
        for _ in range(2):  # verified once, then remembered, also by the connection
            assert await it.call("uqudo", Authorization=f"Bearer {token}") == 200
            assert await it.call("idfy", Authorization=f"Bearer {token}") == 401
        gateway = it.it.gateway
        from dataclasses import replace

        await gateway.reload(replace(gateway.config, clients=gateway.config.clients[1:], digest="other"))
        assert await it.call("uqudo", Authorization=f"Bearer {token}") == 401


async def test_a_wrong_key_hears_what_oauth_libraries_read_as_late_as_any_401() -> None:
    async with app() as it:
        started = time.perf_counter()
        status, body, fields = await it.token(key="gp_CANARY-nobody")
        assert time.perf_counter() - started >= UNKNOWN_AFTER - 0.001
        assert (status, body["error"]) == (401, "invalid_client")
        assert "Gatepass key as the client secret" in body["error_description"]
        assert body["message"] == body["error_description"]
        assert fields["WWW-Authenticate"].startswith("Basic ")
        assert fields["Proxy-Status"].endswith('; details="client_unknown"')
        assert (await it.token(headers={"Authorization": "Bearer nobody"}))[2]["WWW-Authenticate"].startswith("Bearer ")
        alike = {json.dumps((await it.token(key=wrong))[1]) for wrong in ("x", "gp_CANARY-nobody", "a.b.c", "")}
        assert len(alike) == 1
        assert it.it.metric("gatepass_app_tokens_total", route="uqudo", client="", outcome="invalid_client") == 6


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"data": FORM | {"grant_type": "password", "client_secret": KEY}}, "unsupported_grant_type"),
        ({"data": b"x=1", "headers": {"Content-Type": "text/plain"}}, "invalid_request"),
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, "invalid_request"),
        ({"data": b"x=" + b"a" * 70_000, "headers": {"Content-Type": TYPE}}, "invalid_request"),
        ({"data": b"a=1", "headers": {"Content-Type": TYPE + "; charset=klingon"}}, "invalid_request"),
        ({"headers": {"Authorization": "Basic %%%"}}, "invalid_request"),
        ({"data": FORM | {"client_secret": KEY}, "headers": {"X-Gatepass-Key": OTHER}}, "invalid_request"),
        ({"headers": basic(OTHER), "route": "idfy"}, "unauthorized_client"),
    ],
)  # fmt: skip
async def test_bad_requests_get_their_code_and_never_reach_a_vendor(request_: dict[str, Any], error: str) -> None:
    async with app() as it:
        route = request_.get("route", "uqudo")
        before = it.sandbox.vendors[route].counters.token_requests
        request = {name: value for name, value in request_.items() if name != "route"}
        status, body, fields = await it.token(route, key=None, **request)
        assert (status, body["error"]) == (400, error)
        assert fields["Proxy-Status"].startswith("gatepass; error=http_request_"), "not the vendor's error"
        assert it.sandbox.vendors[route].counters.token_requests == before
        assert await it.call("uqudo", **{"X-Gatepass-Key": KEY}) == 200  # the gateway goes on


async def test_a_chunked_body_and_one_that_waits_for_100_continue_are_read() -> None:
    async with app() as it:
        form = b"client_secret=" + KEY.encode()
        peer = await connect(it.it.address)
        head = b"POST /uqudo/api/oauth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        await peer.send(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(form))
        assert (await peer.head()).status == 100
        await peer.send(form)
        assert (await peer.message()).status == 200
        await peer.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n0\r\n\r\n" % (len(form), form))
        assert (await peer.message()).status == 200
        await peer.send(
            head
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + b"8000\r\n"
            + b"a" * 0x8000
            + b"\r\n"
            + b"8001\r\n"
            + b"a" * 0x8001
            + b"\r\n"
        )
        assert (await peer.message()).status == 400
        peer.reset()


@pytest.mark.parametrize(
    "spelling",
    ["/api/oauth/token/", "/api//oauth/token", "/api/oauth/%74oken", "/API/oauth/token", "/api/oauth/token;x"],
)
async def test_other_spellings_of_the_token_path_reach_nobody(spelling: str) -> None:
    async with app() as it:
        before = it.sandbox.vendors["uqudo"].counters.token_requests
        url = f"{it.it.url}/uqudo{spelling}"
        from yarl import URL

        async with it.http.post(
            URL(url, encoded=True), data=FORM | {"client_secret": KEY}, headers={"X-Gatepass-Key": KEY}
        ) as answer:
            assert answer.status in {400, 403, 404}
        counters = it.sandbox.vendors["uqudo"].counters
        assert (counters.token_requests, counters.api_requests) == (before, 0)


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/realms/x/.well-known/openid-configuration",
    ],
)
async def test_a_discovery_document_of_the_vendor_is_denied(path: str) -> None:
    async with app() as it:
        assert await it.call("uqudo", path, **{"X-Gatepass-Key": KEY}) == 400
        assert it.sandbox.vendors["uqudo"].counters.api_requests == 0


async def test_turned_off_the_endpoint_is_denied_and_a_pass_is_worth_nothing() -> None:
    async with app({"uqudo": {"app_tokens": False}}) as it:
        status, body, _ = await it.token("uqudo", headers={"X-Gatepass-Key": KEY})
        assert (status, body["code"]) == (400, "path_refused")
        assert "X-Gatepass-Key" in body["detail"]
        status, body, _ = await it.token("uqudo")
        assert (status, body["code"]) == (401, "client_unknown")
        assert "X-Gatepass-Key" in body["detail"]


async def test_rules_and_budgets_do_not_concern_the_token_path_and_rates_have_their_own_bucket() -> None:
    strict = {
        "name": "web",
        "key_sha256": hash_key(KEY),
        "allow": ["GET /uqudo/sandbox/echo"],
        "limits": [{"rate": 0.001, "burst": 2}],
        "budgets": [{"route": "uqudo", "per": "day", "hard": 1}],
    }
    async with app({"uqudo": {"methods": ["GET"]}}, clients=[strict]) as it:
        assert [(await it.token())[0] for _ in range(3)] == [200, 200, 429]
        _, token, fields = await it.token()
        assert token["error"] == "slow_down"
        assert int(fields["Retry-After"]) > 900
        assert fields["RateLimit-Policy"].startswith('"rate";q=2')
        assert fields["RateLimit"].startswith('"rate";r=0')
        key = {"X-Gatepass-Key": KEY}
        assert [await it.call("uqudo", **key) for _ in range(2)] == [200, 429]  # the budget of one was still whole


async def test_where_anybody_may_call_any_secret_is_taken() -> None:
    async with emulated(top={"access": "open"}) as (it, sandbox), aiohttp.ClientSession() as http:
        await warm(it)
        that = App(it, sandbox, http)
        status, body, _ = await that.token(key="anything")
        assert status == 200
        assert await that.call("uqudo", Authorization=f"Bearer {body['access_token']}") == 200


async def test_a_pass_and_a_key_stand_in_the_very_header_that_the_route_injects() -> None:
    """Also on a route that passes the end user's Authorization, which is then no key of ours."""
    routes = {"uqudo": {"authorization": "pass", "header": "x-kyc-access-token", "format": "Token {token}"}}
    async with app(routes) as it:
        token = (await it.token())[1]["access_token"]
        for value in (token, f"Token {token}", KEY, f"Token {KEY}"):
            # The emulated vendor wants Authorization, so its own 401 shows that the request was admitted.
            await it.call("uqudo", **{"x-kyc-access-token": value})
            assert it.it.metric("gatepass_requests_total", route="uqudo", method="GET", status="401", code="") >= 1
        assert await it.call("uqudo", **{"x-kyc-access-token": "nobody"}) == 401
        assert await it.call("uqudo", Authorization=f"Bearer {KEY}") == 401
        assert (
            it.it.metric("gatepass_requests_total", route="uqudo", method="GET", status="401", code="client_unknown")
            == 2
        )
        with_both = {"x-kyc-access-token": token, "Authorization": f"Bearer {token}"}
        assert await it.call("uqudo", **with_both) == 403  # a pass never reaches a vendor


@pytest.mark.parametrize(("trusts", "status"), [(["127.0.0.0/8"], 200), ([], 400)], ids=["trusted", "not trusted"])
async def test_a_client_behind_a_trusted_proxy_is_known_by_the_address_that_the_proxy_reports(
    trusts: list[str], status: int
) -> None:
    near = {"name": "web", "key_sha256": hash_key(KEY), "addresses": ["203.0.113.7/32"]}
    async with app(clients=[near], trusted_proxies=trusts) as it:
        assert (await it.token(headers={**basic(KEY), "X-Forwarded-For": "203.0.113.7"}))[0] == status
        assert (await it.token(headers={**basic(KEY), "X-Forwarded-For": "203.0.113.8"}))[0] == 400
        told = [event for line in it.it.log.splitlines() if (event := json.loads(line))["event"] == "request"]
    assert [event["remote"] for event in told] == (
        ["203.0.113.7", "203.0.113.8"] if trusts else ["127.0.0.1", "127.0.0.1"]
    )


async def test_a_key_that_ends_soon_gives_a_pass_that_ends_with_it() -> None:
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 100))
    clients = [{"name": "web", "keys": [{"sha256": hash_key(KEY), "expires": ends}]}]
    async with app(clients=clients) as it:
        body = (await it.token())[1]
        assert 90 <= body["expires_in"] <= 100
        claims = jwt.decode(body["access_token"], options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == body["expires_in"]


async def test_a_basic_value_as_large_as_a_jwt_is_read() -> None:
    async with app() as it:
        value = base64.b64encode(b"id:" + b"a" * 5000).decode()
        status, body, _ = await it.token(headers={"Authorization": f"Basic {value}"})
        assert (status, body["error"]) == (401, "invalid_client")


async def test_many_ask_at_once_and_the_vendor_hears_of_one() -> None:
    async with app() as it:
        answers = await asyncio.gather(*(it.token("idfy") for _ in range(50)))
        assert {status for status, _, _ in answers} == {200}
        assert len({body["access_token"] for _, body, _ in answers}) == 50
        assert it.sandbox.vendors["idfy"].counters.token_requests == 1


@pytest.mark.parametrize("where", ["basic", "client_secret", "client_assertion", "x-gatepass-key"])
async def test_a_client_known_by_jwt_sends_its_jwt_and_gets_a_pass_that_ends_with_it(where: str) -> None:
    identity = token("ec-1", algorithm="ES256", exp=time.time() + 100, iat=time.time())
    request: dict[str, Any] = {
        "basic": {"headers": basic(identity)},
        "client_secret": {"data": FORM | {"client_secret": identity}},
        "client_assertion": {"data": FORM | {"client_assertion": identity, "client_assertion_type": ASSERTION_TYPE}},
        "x-gatepass-key": {"headers": {"X-Gatepass-Key": identity}},
    }[where]
    async with vendor(answering(http_ok(jwks(jwk("ec-1"))))) as issuer:
        url = f"http://127.0.0.1:{issuer.port}/keys"
        top: dict[str, Any] = {
            "issuers": {"corp": {"issuer": ISSUER, "audience": [AUDIENCE], "jwks_url": url}},
            "clients": [{"name": "web", "jwt": [{"issuer": "corp", "claims": {"azp": "web"}}]}],
            "app_token_key": "CANARY" * 6,
        }
        async with app(**top) as it:
            status, body, _ = await it.token(**request)
            assert status == 200, body
            assert 90 <= body["expires_in"] <= 131  # the issuer's leeway of 30 s counts
            assert await it.call("uqudo", Authorization=f"Bearer {body['access_token']}") == 200
            assert identity not in it.it.log


async def test_without_a_key_of_its_own_the_gateway_gives_a_client_known_by_jwt_no_pass() -> None:
    identity = token("ec-1", algorithm="ES256", exp=time.time() + 100, iat=time.time())
    async with vendor(answering(http_ok(jwks(jwk("ec-1"))))) as issuer:
        url = f"http://127.0.0.1:{issuer.port}/keys"
        top: dict[str, Any] = {
            "issuers": {"corp": {"issuer": ISSUER, "audience": [AUDIENCE], "jwks_url": url}},
            "clients": [{"name": "web", "jwt": [{"issuer": "corp", "claims": {"azp": "web"}}]}],
        }
        async with app(**top) as it:
            status, body, _ = await it.token(headers=basic(identity))
            assert (status, body["error"]) == (400, "unauthorized_client")
            assert "app_token_key" in body["error_description"]


@asynccontextmanager
async def running_config(config: Config) -> AsyncIterator[Gateway]:
    gateway = Gateway(config, clock=SystemClock())
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


async def test_a_reload_that_replaces_the_vendor_s_secret_ends_no_pass(tmp_path: Path) -> None:
    """Not with `next_…` while both are known, and not with a new secret at once, in the same process."""
    async with TokenEndpoint() as endpoint, vendor(answering(*[http_ok()] * 4)) as upstream:
        endpoint.always = json_answer({"access_token": "CANARY-vendor-token", "expires_in": 3600})

        def config(secret: str, following: str = "null") -> Config:
            (tmp_path / "config.yaml").write_text(f"""\
listen: 127.0.0.1:0
admin: null
clients: [{{name: web, key_sha256: {hash_key(KEY)}}}]
credentials:
  v:
    grant:
      request: {{url: "{endpoint.url}", form: {{client_id: a, client_secret: "{secret}"}}}}
      response: {{expires: {{in: expires_in}}}}
    next: {following}
routes:
  v: {{credential: v, upstream: "http://127.0.0.1:{upstream.port}"}}
""")
            return load([tmp_path / "config.yaml"], environ={})

        async with running_config(config("CANARY-first-secret")) as gateway, aiohttp.ClientSession() as http:
            host, port = gateway.data_address or ("", 0)
            path = urlsplit(endpoint.url).path
            form = {"client_secret": KEY}
            async with http.post(f"http://{host}:{port}/v{path}", data=form) as answer:
                token = (await answer.json())["access_token"]
            both = "{grant: {request: {form: {client_secret: CANARY-second-secret}}}}"
            for step in (
                None,
                config("CANARY-first-secret", both),
                config("CANARY-second-secret"),
                config("CANARY-third"),
            ):
                if step is not None:
                    await gateway.reload(step)
                async with http.get(f"http://{host}:{port}/v/a", headers={"Authorization": f"Bearer {token}"}) as got:
                    assert got.status == 200, step


@pytest.mark.parametrize("authority", ["", "http://user:CANARY-password@no-host-of-ours.example", "https://CANARY:1"])
@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        pytest.param(f"client_secret={KEY}", 200, None, id="issued"),
        pytest.param("client_secret=CANARY-wrong", 401, "not a key of this gateway", id="unknown"),
        pytest.param("a=1&a=2", 400, "A parameter of the body appears more than once", id="unreadable"),
    ],
)
async def test_the_log_names_the_endpoint_and_nothing_of_the_request_s_own_target(
    authority: str, body: str, status: int, reason: str | None
) -> None:
    """Anybody may send an absolute target, with any authority."""
    path = PATHS["uqudo"].removeprefix("/uqudo")
    async with app() as it:
        peer = await connect(it.it.address)
        lines = (f"POST {authority}{PATHS['uqudo']}?CANARY=query HTTP/1.1", "Host: x", f"Content-Type: {TYPE}")
        await peer.send("\r\n".join((*lines, f"Content-Length: {len(body)}", "", body)).encode())
        got = await peer.message()
        assert got.status == status
        (event,) = [json.loads(line) for line in it.it.log.splitlines() if '"event":"request"' in line]
        assert (event["path"], event["status"], event["reason"]) == (path, status, reason)
        assert (event["bytes_in"], event["bytes_out"]) == (len(body), len(got.body))
        assert "no-host-of-ours" not in it.it.log
