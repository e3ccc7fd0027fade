"""An emulated vendor: a token port and an API port, with the vendor's rules between them.

Knows the life of a request at a vendor (count, fault, authenticate, answer) and the switches; what a vendor demands and
how it says no stands in the four modules that carry a vendor's name. Their documents are the source; where the
sandbox is stricter than a document, the line says so.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from abc import ABC, abstractmethod
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aiohttp import web

from gateway.model import Secret
from gateway.sandbox import api_faults, token_faults
from gateway.sandbox.endpoints import Endpoints
from gateway.sandbox.issuing import Granted, issue, write_expiry
from gateway.sandbox.ledger import Counters, Issued, Ledger, State, Time
from gateway.sandbox.listener import Listener
from gateway.sandbox.refusal import Refusal
from gateway.sandbox.switches import Switches

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Why = Literal["missing", "unknown", "expired", "revoked"]
TOKEN: web.RequestKey[Issued] = web.RequestKey("token", Issued)
MAX_JSON = 32 * 1024 * 1024


class Vendor(ABC):
    """Common to all: ports, books, switches. Subclasses say what the vendor demands and answers."""

    name: ClassVar[str]
    life: ClassVar[float]
    """The vendor's own life of a token, seconds."""
    token_path: ClassVar[str]
    token_on_api: ClassVar[bool] = False
    """The API's host also serves the token endpoint, as the vendor's does."""
    fields: ClassVar[tuple[str, str, str]] = ("access_token", "token_type", "expires_in")
    open_paths: ClassVar[frozenset[str]] = frozenset()
    """Paths of the API that ask for no token."""

    def __init__(self, clock: Time, host: str) -> None:
        self.clock = clock
        self.switches = Switches()
        self.counters = Counters()
        self.ledger = Ledger(clock)
        self.signing_key = Secret(secrets.token_hex(32))
        self.credentials: dict[str, Secret] = self.make_credentials()
        """What a client must configure, by the names of the vendor's document. Replace a value to rotate it."""
        self.control_url = ""
        self.token_listener = Listener(self._token_app(), host)
        self.api_listener = Listener(self._api_app(self.api_routes()), host)

    # ------------------------------------------------------------------------------------- what a vendor must say

    @abstractmethod
    def make_credentials(self) -> dict[str, Secret]:
        """Return fresh random credentials."""

    @abstractmethod
    async def grant(self, request: web.Request) -> Granted:
        """Judge a token request. Raises Refusal."""

    @abstractmethod
    def make_token(self, granted: Granted, life: float) -> Issued:
        """Make the token, its claims included."""

    @abstractmethod
    def answer(self, issued: Issued) -> dict[str, Any]:
        """Return the token endpoint's answer without its expiry field."""

    @abstractmethod
    def unauthorized(self, why: Why) -> Refusal:
        """Return the API's 401."""

    @abstractmethod
    def error_body(self, status: int, message: str) -> Any:
        """Return the body of any other error of the API."""

    @abstractmethod
    def api_routes(self) -> list[web.RouteDef]:
        """Return the vendor's own endpoints."""

    # -------------------------------------------------------------------------------------------------- addresses

    @property
    def base_url(self) -> str:
        """The API, without a trailing slash."""
        return self.api_listener.url

    @property
    def token_url(self) -> str:
        """The token endpoint, whole."""
        return self.token_listener.url + self.token_path

    def overlay(self) -> dict[str, Any]:
        """Return what a configuration's credential for this vendor must say to come here: addresses only."""
        return {"grant": {"request": {"url": self.token_url}}}

    def listeners(self) -> dict[str, Listener]:
        """Return every port of this vendor by its role."""
        return {"token": self.token_listener, "api": self.api_listener}

    # ------------------------------------------------------------------------------------------------ the controls

    async def set(self, **changes: Any) -> Switches:
        """Change switches, all or none. Raises pydantic.ValidationError on an unknown name or a wrong value."""
        self.switches = Switches.model_validate({**self.switches.model_dump(), **changes})
        if self.switches.token_fault == "refuse":
            self.token_listener.refuse()
        else:
            await self.token_listener.accept()
        return self.switches

    def revoke(self, which: Literal["all", "newest"] = "all") -> list[str]:
        """Kill live tokens at once; return their fingerprints."""
        return self.ledger.revoke(which)

    def reset_counters(self) -> None:
        """Count from zero again."""
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
        """Serve one token request: think, fail if told to, judge, issue, travel, answer."""
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

    def now(self) -> float:
        """The vendor's own wall clock."""
        return self.clock.wall() + self.switches.clock_offset

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

    def before(self, request: web.Request) -> None:  # noqa: B027 - a hook; most vendors need none
        """Look at an API request before anything else (limits, Origin). May raise Refusal."""

    def after(self, status: int) -> None:  # noqa: B027 - a hook
        """Look at an answer's status, the API's or a refusal of the token endpoint."""

    def decorate(self, response: web.StreamResponse) -> None:  # noqa: B027 - a hook
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
            raise Refusal(400, self.error_body(400, "the body is no JSON")) from error
        if not isinstance(body, dict):
            raise Refusal(400, self.error_body(400, "the body is no JSON object"))
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
        if self.switches.clock_offset:
            response.headers["Date"] = formatdate(self.now(), usegmt=True)

    async def _fields(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Sandbox-Vendor"] = self.name
        issued = request.get(TOKEN)
        if issued is not None:
            response.headers["X-Sandbox-Token"] = issued.fingerprint
        self.decorate(response)
