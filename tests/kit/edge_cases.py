"""What every plane that asks must do, whichever proxy it is: the tests of `tests/behaviour/test_edge_*.py`."""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.kit.edge_vendor import EdgeVendor, edge_vendor
from tests.kit.endpoint import Answer, TokenEndpoint
from tests.kit.gateway import CANARY, Running, running
from tests.kit.planes import WEB, client, fetching
from tests.kit.served import until
from tests.kit.wire import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.kit.edges import Edge

BODY = os.urandom(3 * 2**20)
OWN = {"Authorization": f"Bearer {CANARY}-of-the-app"}
"""What an app might send, and no vendor may get."""
FAKED = {"X-Gatepass-Generation": "1-00000000", "X-Gatepass-Refused": "1-00000000"}
RULES = {"X-Forwarded-Uri": "/idfy/x", "X-Original-URI": "/idfy/x", "X-Forwarded-Method": "GET"}


@dataclass
class Scene:
    """A plane with a gateway and a vendor."""

    edge: Edge
    gateway: Running
    vendor: EdgeVendor
    endpoint: TokenEndpoint
    session: aiohttp.ClientSession

    def revoke(self) -> None:
        """Let the vendor refuse every token that was issued so far."""
        refused = {f"Bearer {token}" for token in self.endpoint.issued}
        self.vendor.good = lambda sent: sent.startswith("Bearer ") and sent not in refused

    async def call(self, path: str = "/idfy/x", method: str = "GET", **more: Any) -> tuple[int, Any]:
        """Call as an app with its key; return the status and the fields of the answer."""
        headers = {"X-Gatepass-Key": WEB, **OWN, **more.pop("headers", {})}
        url = f"http://127.0.0.1:{self.edge.port}{path}"
        async with self.session.request(method, url, headers=headers, **more) as answer:
            said = (await answer.read()).decode("latin-1") + str(answer.headers)
            assert not any(token in said for token in self.endpoint.issued), "an app got the vendor's token"
            return answer.status, answer.headers

    def check(self) -> None:
        """Whatever has reached the vendor had one of our tokens, and nothing that is not for it."""
        for each in self.vendor.seen:
            assert each.fields.getall("Authorization") == [each.fields["Authorization"]], each
            assert each.fields["Authorization"].removeprefix("Bearer ") in self.endpoint.issued, each
            assert WEB not in str(each.fields.values()), each
            ours = {name.lower() for name in each.fields if name.lower().startswith("x-gatepass")}
            assert ours <= self.edge.passes, each


@asynccontextmanager
async def scene(edge: Edge, *, app: dict[str, Any] | None = None, **more: Any) -> AsyncIterator[Scene]:
    """Run a gateway and a vendor for the plane."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with TokenEndpoint() as endpoint, aiohttp.ClientSession(timeout=timeout) as session:
        for key, value in more.pop("endpoint", {}).items():
            setattr(endpoint, key, value)
        config = edge.config({}, clients=[app or client()], **more)
        config["credentials"] = {"idfy": fetching(config, endpoint)["credentials"]["key"]}
        async with (
            edge_vendor(edge.vendor, lambda sent: sent.startswith("Bearer ")) as vendor,
            running(config) as gateway,
        ):
            it = Scene(edge, gateway, vendor, endpoint, session)
            yield it
            it.check()


class EdgeCases:
    """The cases; a subclass is collected with the fixture `edge` of its file."""

    async def test_a_get_is_forwarded_with_the_token_and_without_fields_that_are_not_for_the_vendor(
        self, edge: Edge
    ) -> None:
        async with scene(edge) as it:
            assert (await it.call("/idfy/a%2Fb?q=%20x", headers=FAKED))[0] == 200
            assert it.vendor.seen[0].target in {"/a%2Fb?q=%20x", "/a/b?q=%20x"}

    async def test_a_large_post_arrives_whole(self, edge: Edge) -> None:
        async with scene(edge) as it:
            assert (await it.call(method="POST", data=io.BytesIO(BODY)))[0] == 200
            assert it.vendor.seen[0].digest == hashlib.sha256(BODY).hexdigest()

    async def test_events_are_streamed(self, edge: Edge) -> None:
        async with scene(edge) as it:
            url, headers = f"http://127.0.0.1:{edge.port}/idfy/events", {"X-Gatepass-Key": WEB}
            async with it.session.get(url, headers=headers) as answer:
                assert await answer.content.readuntil(b"\n\n") == b"data: one\n\n"
                it.vendor.go_on.set()
                assert await answer.content.readuntil(b"\n\n") == b"data: two\n\n"

    async def test_a_websocket_is_opened_with_the_token(self, edge: Edge) -> None:
        async with scene(edge) as it:
            url, headers = f"http://127.0.0.1:{edge.port}/idfy/socket", {"X-Gatepass-Key": WEB, **OWN}
            async with it.session.ws_connect(url, headers=headers) as socket:
                await socket.send_str("hello")
                assert await socket.receive_str(timeout=PATIENCE) == "echo hello"

    async def test_without_a_valid_key_the_app_gets_401_and_nothing_reaches_the_vendor(self, edge: Edge) -> None:
        async with scene(edge) as it:
            for key in ("gp_CANARY-wrong", ""):
                assert (await it.call(headers={"X-Gatepass-Key": key}))[0] == 401
            assert not it.vendor.seen

    async def test_rules_apply_to_the_path_that_the_app_sent(self, edge: Edge) -> None:
        """An app that names another path in a header field changes nothing."""
        async with scene(edge, app=client(deny=["POST /idfy/forbidden"])) as it:
            assert (await it.call("/idfy/forbidden", "POST", headers=RULES))[0] == 403
            assert (await it.call("/idfy/no", headers=RULES))[0] == 400
            assert not it.vendor.seen
            assert (await it.call("/idfy/forbidden"))[0] == 403  # the vendor's own answer
            assert len(it.vendor.seen) == 1

    async def test_a_call_of_a_spent_budget_gets_429_with_retry_after(self, edge: Edge) -> None:
        async with scene(edge, app=client(budgets=[{"route": "idfy", "per": "day", "hard": 1}])) as it:
            assert (await it.call())[0] == 200
            status, fields = await it.call()
            assert (status, int(fields["Retry-After"]) > 0) == (429, True)
            assert len(it.vendor.seen) == 1

    async def test_an_app_s_real_address_is_checked_and_not_one_that_it_names(self, edge: Edge) -> None:
        made_up = IPv4Network("10.9.9.9/32")
        told = {"X-Forwarded-For": "10.9.9.9"}
        others = map(str, IPv4Network("0.0.0.0/0").address_exclude(made_up))
        async with scene(edge, app=client(addresses=[*others])) as it:
            assert (await it.call(headers=told))[0] == 200
        async with scene(edge, app=client(addresses=[str(made_up)])) as it:
            assert (await it.call(headers=told))[0] == 403

    async def test_without_a_token_the_app_gets_503_and_retry_after(self, edge: Edge) -> None:
        async with scene(edge, endpoint={"always": Answer(status=500)}) as it:
            status, fields = await it.call()
            assert (status, int(fields["Retry-After"]) > 0) == (503, True)
            assert not it.vendor.seen

    async def test_the_proxy_waits_for_a_slow_answer_of_gatepass(self, edge: Edge) -> None:
        async with scene(edge, endpoint={"latency": 0.7}) as it:
            assert (await it.call())[0] == 200

    async def test_nothing_is_forwarded_while_gatepass_is_stopped(self, edge: Edge) -> None:
        async with scene(edge) as it:
            await it.gateway.gateway.stop()
            assert (await it.call())[0] in {500, 502, 503}
            assert not it.vendor.seen
        async with scene(edge) as it:
            assert (await it.call())[0] == 200

    async def test_a_revoked_token_is_replaced_at_once_if_the_proxy_can_ask_again(self, edge: Edge) -> None:
        """Otherwise the app gets the vendor's 401, and the next request has the new token."""
        for method in ("GET", "POST"):
            async with scene(edge) as it:
                assert (await it.call())[0] == 200
                it.revoke()
                assert (await it.call(method=method))[0] == (200 if method in edge.replays else 401)
                await until(lambda: len(it.endpoint.issued) > 1)
                assert (await it.call(method=method))[0] == 200
                assert len(it.endpoint.issued) == 2
                assert len(it.vendor.seen) == (4 if method in edge.replays else 3), method

    async def test_a_large_post_is_sent_once_more_with_its_whole_body(self, edge: Edge) -> None:
        async with scene(edge) as it:
            assert (await it.call())[0] == 200
            it.revoke()
            status, _ = await it.call(method="POST", data=io.BytesIO(BODY))
            await until(lambda: len(it.endpoint.issued) > 1)
            if "POST" not in edge.replays:
                assert status == 401
                status, _ = await it.call(method="POST", data=io.BytesIO(BODY))
            assert status == 200
            digests = [each.digest for each in it.vendor.seen if each.method == "POST" and each.digest]
            assert digests == [hashlib.sha256(BODY).hexdigest()]

    async def test_if_the_vendor_refuses_every_token_the_app_gets_its_401(self, edge: Edge) -> None:
        async with scene(edge) as it:
            it.vendor.good = lambda _: False
            assert (await it.call())[0] == 401
            assert len(it.vendor.seen) <= 2
