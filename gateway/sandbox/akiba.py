"""Emulates Akiba: like its platform (Fusio), or exactly like Akiba's own document (switch `literal`).

Sources: Akiba's "Authentication" page (revoke, whoami, the three form fields), and Fusio's documentation and source
(path of the token endpoint, HTTP Basic, errors, limits). Tokens are opaque; a refresh revokes the old token at once.
"""

from __future__ import annotations

import secrets
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

from aiohttp import web

from gateway.model import Secret
from gateway.sandbox.claims import opaque
from gateway.sandbox.forms import BadForm, read_basic, read_form
from gateway.sandbox.multipart import Rule, UploadRefused, receive
from gateway.sandbox.refusal import Refusal, oauth_error
from gateway.sandbox.rules import Granted, Why
from gateway.sandbox.vendor import TOKEN, Vendor

if TYPE_CHECKING:
    from gateway.sandbox.ledger import Issued

SCOPES = frozenset({"authorization", "bankstatement", "insyts"})
HOURLY = 3600
BAN_AFTER, BAN_WINDOW, BAN_TIME = 32, 120.0, 300.0
_BANNED = "Your IP has sent to many requests please try again later"
_REALM = 'Bearer realm="Fusio"'
_MESSAGES: dict[Why, str] = {
    "missing": "Missing authorization header",
    "unknown": "Invalid access token",
    "expired": "Invalid access token",
    "revoked": "Invalid access token",
}


class Akiba(Vendor):
    """Stands for api.akibaone.com, with token endpoint and API on one host."""

    name: ClassVar[str] = "akiba"
    life: ClassVar[float] = 172_800  # Fusio's default; the 3600 of Akiba's page is oauth.com's sample
    token_path: ClassVar[str] = "/authorization/token"
    token_on_api: ClassVar[bool] = True

    def make_credentials(self) -> dict[str, Secret]:
        """Return the three fields of Akiba's page. Id and secret are also the platform's app key and secret."""
        return {
            "client_id": Secret(str(uuid.uuid4())),
            "client_secret": Secret(secrets.token_hex(32)),
            "client_credential": Secret(secrets.token_hex(16)),
        }

    def overlay(self) -> dict[str, Any]:
        """Return the addresses, including those that `check --probe` and `revoke_on_shutdown` call."""
        below = self.base_url + "/authorization/"
        return {**super().overlay(), "probe": {"url": below + "whoami"}, "revoke": {"url": below + "revoke"}}

    # ------------------------------------------------------------------------------------------- the token endpoint

    async def grant(self, request: web.Request) -> Granted:
        """Check a form that was sent by POST, and the client: by HTTP Basic, or in literal mode by three fields."""
        if request.method != "POST":
            raise Refusal(405, self.error_body(405, "Given request method is not supported"), {"Allow": "POST"})
        if self._banned():
            raise oauth_error(400, "invalid_request", _BANNED)
        try:
            form = await read_form(request)
        except BadForm as bad:
            raise oauth_error(400, "invalid_request", bad.message) from bad
        if self.switches.literal:
            self._prove_by_form(form)
        else:
            self._prove_by_basic(request)
        return self._granted(form)

    def _prove_by_form(self, form: dict[str, str]) -> None:
        missing = [name for name in self.credentials if name not in form]
        if missing:
            raise oauth_error(400, "invalid_request", f"missing: {', '.join(missing)}")
        if any(Secret(form[name]) != value for name, value in self.credentials.items()):
            raise self._unknown_client()

    def _prove_by_basic(self, request: web.Request) -> None:
        basic = read_basic(request)
        if basic is None:
            raise oauth_error(400, "invalid_request", "Credentials not available")
        if basic != (self.credentials["client_id"], self.credentials["client_secret"]):
            raise self._unknown_client()

    @staticmethod
    def _unknown_client() -> Refusal:
        return oauth_error(401, "invalid_client", "Unknown credentials", {"WWW-Authenticate": "Bearer"})

    def _granted(self, form: dict[str, str]) -> Granted:
        kind = form.get("grant_type", "client_credentials" if self.switches.literal else "")
        if kind == "refresh_token":
            old = self.ledger.refreshed_by(Secret(form.get("refresh_token", "")))
            if old is None or old.revoked:
                raise oauth_error(400, "invalid_request", "Invalid refresh token")
            return Granted(self.life, old.scopes, replaces=old)
        if kind != "client_credentials":
            raise oauth_error(400, "unsupported_grant_type", "Provided an invalid grant type")
        wanted = frozenset(filter(None, form.get("scope", "").replace(" ", ",").split(",")))
        if wanted and not wanted & SCOPES:
            raise oauth_error(400, "invalid_scope", "No valid scope given")
        return Granted(self.life, (wanted & SCOPES) or SCOPES)

    def make_token(self, granted: Granted, life: float) -> Issued:
        """Issue an opaque token, with a refresh token."""
        issued = opaque(self, granted, life)
        issued.refresh = Secret(secrets.token_hex(32))
        return issued

    def answer(self, issued: Issued) -> dict[str, Any]:
        """Return the answer; like the platform, it joins scopes with commas."""
        return {
            "access_token": issued.value.reveal(),
            "token_type": "bearer",
            "refresh_token": issued.refresh.reveal() if issued.refresh else "",
            "scope": ",".join(sorted(issued.scopes)),
        }

    # ------------------------------------------------------------------------------------------------------ the API

    def unauthorized(self, why: Why) -> Refusal:
        """Return the platform's 401."""
        return Refusal(401, self.error_body(401, _MESSAGES[why]), {"WWW-Authenticate": _REALM})

    def error_body(self, status: int, message: str) -> Any:  # noqa: ARG002 - the body does not show the status
        """Return the platform's error body, whose title is the same for every status."""
        return {"success": False, "title": "Internal Server Error", "message": message}

    def before(self, request: web.Request) -> None:  # noqa: ARG002 - all requests count alike
        """Check the ban first, then the hourly limit."""
        if self._banned():
            raise Refusal(403, self.error_body(403, _BANNED))
        hour = self.clock.monotonic() - 3600
        while self._seen and self._seen[0] < hour:
            self._seen.popleft()
        if self.switches.rate_limit and len(self._seen) >= HOURLY:
            raise Refusal(429, self.error_body(429, "Rate limit exceeded"), {"Retry-After": "900"})
        self._seen.append(self.clock.monotonic())

    def after(self, status: int) -> None:
        """Count errors, which cause the ban."""
        if 400 <= status < 500:  # noqa: PLR2004 - a class of statuses
            self._errors.append(self.clock.monotonic())

    def decorate(self, response: web.StreamResponse) -> None:
        """Add the headers of the hourly limit."""
        response.headers["RateLimit-Limit"] = str(HOURLY)
        response.headers["RateLimit-Remaining"] = str(max(0, HOURLY - len(self._seen)))

    def _banned(self) -> bool:
        now = self.clock.monotonic()
        while self._errors and self._errors[0] < now - BAN_WINDOW:
            self._errors.popleft()
        if len(self._errors) > BAN_AFTER:
            self._banned_until = now + BAN_TIME
            self._errors.clear()
        return self.switches.ip_ban and now < self._banned_until

    def api_routes(self) -> list[web.RouteDef]:
        """Return the endpoints whose path is documented, and one that no scope allows."""
        self._seen: deque[float] = deque()
        self._errors: deque[float] = deque()
        self._banned_until = 0.0
        return [
            web.get("/authorization/whoami", self.whoami),
            web.post("/authorization/revoke", self.revoke_token),
            web.post("/api/bankstatement/upload", self.upload),
            web.post("/api/bankstatement/affordability", self.affordability),
            web.post("/insyts/gettransactions", self.transactions),
            web.post("/api/out-of-scope", self.out_of_scope),
        ]

    async def whoami(self, _request: web.Request) -> web.Response:
        """Return the user object. The real one contains the app's secret, so a gateway should deny this path."""
        return web.json_response({"id": 1, "status": 1, "name": "sandbox", "scopes": sorted(SCOPES), "apps": []})

    async def revoke_token(self, request: web.Request) -> web.Response:
        """Revoke the token of the request."""
        request[TOKEN].revoked = True
        return web.json_response({"success": True})

    async def upload(self, request: web.Request) -> web.Response:
        """Receive a bank statement; answer with a task."""
        types = frozenset({"application/pdf", "image/png"})
        try:
            parts = await receive(request, {"file": Rule(types=types), "clientId": Rule(False, file=False)})
        except UploadRefused as refused:
            raise Refusal(refused.status, self.error_body(refused.status, refused.message)) from refused
        self.counters.bytes_received += sum(part.size for part in parts)
        return web.json_response({"task_id": str(uuid.uuid4()), "parts": [part.as_json() for part in parts]})

    async def affordability(self, request: web.Request) -> web.Response:
        """Return the score of an uploaded statement."""
        if "task_id" not in await self.json_body(request):
            raise Refusal(400, self.error_body(400, "task_id is required"))
        return web.json_response({"version": "1.0", "score": 712, "tier": "B", "explanations": [], "metrics": {}})

    async def transactions(self, request: web.Request) -> web.Response:
        """Answer a read that is sent by POST."""
        body = await self.json_body(request)
        row = {"clientId": body.get("clientId"), "amount": -120.5, "description": "Groceries"}
        return web.json_response({"transaction": [row]})

    async def out_of_scope(self, _request: web.Request) -> web.Response:
        """Reject a missing scope as the platform does: with 401, not 403."""
        message = "Access to this operation is not in the scope of the provided token"
        raise Refusal(401, self.error_body(401, message), {"WWW-Authenticate": _REALM})
