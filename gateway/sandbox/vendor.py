"""An emulated vendor on its sockets: a token port and an API port.

Handles each request in the same order: count, fault, authenticate, answer. What a vendor requires and how it rejects is
in `rules.py` and in the four modules that are named after vendors.
"""

from __future__ import annotations

import asyncio
import json
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Literal

from aiohttp import web

from gateway.model import Secret
from gateway.sandbox import api_faults, token_faults
from gateway.sandbox.endpoints import Endpoints
from gateway.sandbox.issuing import issue, write_expiry
from gateway.sandbox.ledger import Counters, Issued, State, Time
from gateway.sandbox.listener import Listener
from gateway.sandbox.refusal import Refusal
from gateway.sandbox.rules import VendorRules
from gateway.sandbox.switches import Switches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TOKEN: web.RequestKey[Issued] = web.RequestKey("token", Issued)
MAX_JSON = 32 * 1024 * 1024


class Vendor(VendorRules):
    """A vendor on two ports: token endpoint and API."""

    def __init__(self, clock: Time, host: str) -> None:
        super().__init__(clock)
        self.control_url = ""
        self.token_listener = Listener(self._token_app(), host)
        self.api_listener = Listener(self._api_app(self.api_routes()), host)

    # -------------------------------------------------------------------------------------------------- addresses

    @property
    def base_url(self) -> str:
        """The API, without a trailing slash."""
        return self.api_listener.url

    @property
    def token_url(self) -> str:
        """The token endpoint's URL."""
        return self.token_listener.url + self.token_path

    def overlay(self) -> dict[str, Any]:
        """Return the keys of a credential that uses this vendor: addresses only."""
        return {"grant": {"request": {"url": self.token_url}}}

    def listeners(self) -> dict[str, Listener]:
        """Return the vendor's ports by role."""
        return {"token": self.token_listener, "api": self.api_listener}

    # ------------------------------------------------------------------------------------------------ the controls

    async def set(self, **changes: Any) -> Switches:
        """Change switches, all or none. Raises pydantic.ValidationError for an unknown name or a wrong value."""
        self.switches = Switches.model_validate({**self.switches.model_dump(), **changes})
        if self.switches.token_fault == "refuse":
            self.token_listener.refuse()
        else:
            await self.token_listener.accept()
        return self.switches

    def revoke(self, which: Literal["all", "newest"] = "all") -> list[str]:
        """Revoke valid tokens; return their fingerprints."""
        return self.ledger.revoke(which)

    def reset_counters(self) -> None:
        """Set all counters to zero."""
        self.counters = Counters()

    async def start(self) -> None:
        """Open all ports."""
        for listener in self.listeners().values():
            await listener.start()

    async def stop(self) -> None:
        """Close all ports."""
        for listener in self.listeners().values():
            await listener.stop()

    # ------------------------------------------------------------------------------------------- the token endpoint

    async def token(self, request: web.Request) -> web.StreamResponse:
        """Serve one token request: wait for `latency`, fault, check, issue, wait for `travel`, answer."""
        self.counters.token_requests += 1
        self.counters.token_request_times.append(self.clock.monotonic())
        await asyncio.sleep(self.switches.latency)
        broken = await token_faults.instead(request, self.switches)
        if broken is not None:
            return broken
        issued, left = issue(self, await self.grant(request))
        answer = self.answer(issued)
        write_expiry(answer, self.fields[2], left, self.switches.expires_in)
        await asyncio.sleep(self.switches.travel)
        headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}
        return await token_faults.bent(request, self.switches.token_fault, answer, self.fields[:2], headers)

    # ------------------------------------------------------------------------------------------------------ the API

    def authenticate(self, request: web.Request) -> Issued:
        """Return the live token that the request carries. Raises Refusal."""
        values = request.headers.getall("Authorization", [])
        if len(values) != 1 or not values[0].startswith("Bearer "):
            raise self.unauthorized("missing")
        return self.judge(values[0].removeprefix("Bearer "))

    def judge(self, value: str) -> Issued:
        """Return the live token with this value. Raises Refusal."""
        issued = self.ledger.find(Secret(value))
        if issued is None:
            raise self.unauthorized("unknown")
        state: State = self.ledger.state(issued)
        if state != "live":
            raise self.unauthorized(state)
        issued.uses += 1
        return issued

    def before(self, request: web.Request) -> None:
        """Check an API request before anything else (limits, Origin). May raise Refusal."""

    def after(self, status: int) -> None:
        """Record the status of an answer of the API, or of a refusal of the token endpoint."""

    def decorate(self, response: web.StreamResponse) -> None:
        """Add the vendor's own fields to an answer of the API."""

    async def _api(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.counters.api_requests += 1
        response = await self._served(request, handler)
        self.counters.api_401s += response.status == web.HTTPUnauthorized.status_code
        self.after(response.status)
        return response

    async def _served(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        fault = self.switches.api_fault
        try:
            await asyncio.sleep(self.switches.api_latency)
            broken = await api_faults.instead(request, fault)
            if broken is not None:
                return broken
            self.before(request)
            if request.path not in self.open_paths:
                request[TOKEN] = self.authenticate(request)
            if fault.isdigit():
                raise self._switched(int(fault))
            return await handler(request)
        except Refusal as refusal:
            return refusal.response()
        except web.HTTPException as error:
            allow = {name: value for name, value in error.headers.items() if name == "Allow"}
            return Refusal(error.status, self.error_body(error.status, error.reason), allow).response()

    def _switched(self, status: int) -> Refusal:
        if status == web.HTTPUnauthorized.status_code:
            return self.unauthorized("revoked")
        retry = {"Retry-After": self.switches.retry_after} if self.switches.retry_after else {}
        return Refusal(
            status, self.error_body(status, "switched on in the sandbox"), retry if status in {429, 503} else {}
        )

    async def json_body(self, request: web.Request) -> dict[str, Any]:
        """Return the request's JSON object. Raises Refusal with 415 or 400."""
        if request.content_type != "application/json":
            raise Refusal(415, self.error_body(415, "expected application/json"))
        try:
            body = json.loads(await request.read())
        except ValueError as error:
            raise Refusal(400, self.error_body(400, "the body is not JSON")) from error
        if not isinstance(body, dict):
            raise Refusal(400, self.error_body(400, "the body is not a JSON object"))
        return body

    # ------------------------------------------------------------------------------------------------ applications

    def _token_app(self) -> web.Application:
        app = web.Application(middlewares=[self._token_middleware()])
        app.add_routes([web.route("*", self.token_path, self.token), web.route("*", "/elsewhere", self._elsewhere)])
        app.on_response_prepare.append(self._date)
        return app

    def _api_app(self, routes: list[web.RouteDef]) -> web.Application:
        @web.middleware
        async def api(request: web.Request, handler: Handler) -> web.StreamResponse:
            if self.token_on_api and request.path == self.token_path:
                return await self._refusable(request, self.token)
            return await self._api(request, handler)

        app = web.Application(middlewares=[api], client_max_size=MAX_JSON)
        app.add_routes([*routes, *Endpoints(self).routes()])
        app.on_response_prepare.extend([self._date, self._fields])
        return app

    def _token_middleware(self) -> Any:
        @web.middleware
        async def token(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._refusable(request, handler)

        return token

    async def _refusable(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            self.after(refusal.status)
            return refusal.response()

    async def _elsewhere(self, _request: web.Request) -> web.Response:
        self.counters.redirects_followed += 1
        return web.json_response({"access_token": "followed-a-redirect", "expires_in": 3600, "token_type": "Bearer"})

    async def _date(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = formatdate(self.now(), usegmt=True)

    async def _fields(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Sandbox-Vendor"] = self.name
        issued = request.get(TOKEN)
        if issued is not None:
            response.headers["X-Sandbox-Token"] = issued.fingerprint
        self.decorate(response)
