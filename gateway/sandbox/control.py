"""The control port: shows the vendors, and changes them while they run. JSON over HTTP.

Shows fingerprints, never a token or a credential. `docs/sandbox.md` describes it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, cast

from aiohttp import web
from pydantic import ValidationError

from gateway.model import Secret
from gateway.sandbox.switches import API_FAULTS, TOKEN_FAULTS, Switches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.sandbox.vendor import Vendor


class Control:
    """Serves `/`, `/vendors`, `/vendors/{name}` and the paths below."""

    def __init__(self, vendors: Mapping[str, Vendor]) -> None:
        self._vendors = vendors
        self.started = next(iter(vendors.values())).clock.monotonic()

    def app(self) -> web.Application:
        """Return the application to listen with."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/", self.index),
                web.get("/vendors", self.show_all),
                web.patch("/vendors", self.change_all),
                web.get("/vendors/{name}", self.show),
                web.patch("/vendors/{name}", self.change),
                web.post("/vendors/{name}/revoke", self.revoke),
                web.post("/vendors/{name}/rotate", self.rotate),
                web.delete("/vendors/{name}/switches", self.restore),
                web.delete("/vendors/{name}/counters", self.reset),
            ]
        )
        return app

    async def index(self, _request: web.Request) -> web.Response:
        """Return what the control port offers: vendors, switches, faults."""
        fields = {name: field.description for name, field in Switches.model_fields.items()}
        return web.json_response(
            {
                "vendors": {name: vendor.control_url for name, vendor in self._vendors.items()},
                "switches": fields,
                "token_faults": TOKEN_FAULTS,
                "api_faults": API_FAULTS,
            }
        )

    async def show_all(self, _request: web.Request) -> web.Response:
        """Return every vendor's state."""
        return web.json_response({name: self._state(vendor) for name, vendor in self._vendors.items()})

    async def show(self, request: web.Request) -> web.Response:
        """Return one vendor's state."""
        return web.json_response(self._state(self._vendor(request)))

    async def change(self, request: web.Request) -> web.Response:
        """Change some switches of one vendor."""
        vendor = self._vendor(request)
        await self._apply([vendor], await _object(request))
        return web.json_response(self._state(vendor))

    async def change_all(self, request: web.Request) -> web.Response:
        """Change the same switches of every vendor."""
        await self._apply(self._vendors.values(), await _object(request))
        return await self.show_all(request)

    async def _apply(self, vendors: Iterable[Vendor], changes: dict[str, Any]) -> None:
        try:
            for vendor in vendors:
                await vendor.set(**changes)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
            raise _error(400, problems) from error

    async def revoke(self, request: web.Request) -> web.Response:
        """Revoke all live tokens; with {"which": "newest"} only the newest."""
        which = (await _object(request)).get("which", "all")
        if which not in {"all", "newest"}:
            raise _error(400, ["which: must be all or newest"])
        return web.json_response({"revoked": self._vendor(request).revoke(cast('Literal["all", "newest"]', which))})

    async def rotate(self, request: web.Request) -> web.Response:
        """Replace secrets, as {"client_secret": "the new one"}. Old secrets are rejected from now on."""
        vendor = self._vendor(request)
        new, there_are = await _object(request), ", ".join(vendor.credentials)
        problems = [f"{name}: unknown; the secrets are {there_are}" for name in new if name not in vendor.credentials]
        problems += [f"{name}: must be a text" for name, value in new.items() if not (isinstance(value, str) and value)]
        if problems or not new:
            raise _error(400, problems or [f"name at least one of {there_are}"])
        vendor.credentials.update({name: Secret(value) for name, value in new.items()})
        return web.json_response({"rotated": {name: Secret(value).fingerprint for name, value in new.items()}})

    async def restore(self, request: web.Request) -> web.Response:
        """Reset all switches to their defaults."""
        vendor = self._vendor(request)
        await vendor.set(**Switches().model_dump())
        return web.json_response(self._state(vendor))

    async def reset(self, request: web.Request) -> web.Response:
        """Reset all counters to zero."""
        vendor = self._vendor(request)
        vendor.reset_counters()
        return web.json_response(self._state(vendor))

    def _vendor(self, request: web.Request) -> Vendor:
        try:
            return self._vendors[request.match_info["name"]]
        except KeyError as error:
            raise _error(404, [f"unknown vendor; the vendors are {', '.join(self._vendors)}"]) from error

    def _state(self, vendor: Vendor) -> dict[str, Any]:
        now = vendor.clock.monotonic()
        tokens = [
            {"fingerprint": issued.fingerprint, "expires_in": round(issued.expires_at - now, 3), "uses": issued.uses}
            for issued in vendor.ledger.live()
        ]
        return {
            "api": vendor.base_url,
            "token_endpoint": vendor.token_url,
            "listening": {role: not listener.refusing for role, listener in vendor.listeners().items()},
            "switches": vendor.switches.model_dump(),
            "counters": vendor.counters.as_json(self.started),
            "live_tokens": tokens,
        }


async def _object(request: web.Request) -> dict[str, Any]:
    text = await request.text()
    try:
        body = json.loads(text or "{}")
    except ValueError as error:
        raise _error(400, ["the body is not JSON"]) from error
    if not isinstance(body, dict):
        raise _error(400, ["the body is not a JSON object"])
    return body


def _error(status: int, problems: list[str]) -> web.HTTPException:
    kind = web.HTTPNotFound if status == web.HTTPNotFound.status_code else web.HTTPBadRequest
    return kind(text=json.dumps({"errors": problems}), content_type="application/json")
