"""Emulates Hypersign: three hosts (tokens, SSI, KYC), one secret for each service, custom token headers for KYC.

Sources: docs.hypersign.id and the source of its open services (NestJS): errors with arrays of messages, the limit of
ten token requests a minute whose answer is a bare JSON string, the API's check of Origin, `expiresIn`, `tokenType`.
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

from aiohttp import web

from gateway.model import Secret
from gateway.sandbox.claims import signed
from gateway.sandbox.endpoints import event_stream
from gateway.sandbox.listener import Listener
from gateway.sandbox.multipart import Rule, UploadRefused, receive
from gateway.sandbox.refusal import Refusal, phrase
from gateway.sandbox.rules import Granted, Why
from gateway.sandbox.vendor import TOKEN, Vendor

if TYPE_CHECKING:
    from gateway.sandbox.ledger import Issued, Time

PER_MINUTE, WINDOW = 10, 60.0
SSI, KYC, KYB = "access_service_ssi", "access_service_kyc", "access_service_kyb"
_MESSAGES: dict[Why, list[str]] = {
    "missing": ["Unauthorized", "Please pass access token"],
    "unknown": ["Invalid or expired token"],
    "expired": ["Invalid or expired token"],
    "revoked": ["Token expired"],  # the session behind the token is gone
}


class Hypersign(Vendor):
    """Stands for api.entity.dashboard (tokens), api.entity (SSI) and api.cavach (KYC) of hypersign.id."""

    name: ClassVar[str] = "hypersign"
    life: ClassVar[float] = 14_400
    token_path: ClassVar[str] = "/api/v1/app/oauth"
    fields: ClassVar[tuple[str, str, str]] = ("access_token", "tokenType", "expiresIn")
    open_paths: ClassVar[frozenset[str]] = frozenset({"/api/v1/edv/state"})

    def __init__(self, clock: Time, host: str) -> None:
        self._asked: deque[float] = deque()
        self.allowed_origins: set[str] = set()
        """Origins of the app's own CORS list; a request with any other Origin gets 401."""
        super().__init__(clock, host)
        self.kyc_listener = Listener(self._api_app(self.kyc_routes()), host)

    def listeners(self) -> dict[str, Listener]:
        """Return the ports of tokens and API, and that of the KYC host."""
        return {**super().listeners(), "kyc": self.kyc_listener}

    @property
    def kyc_url(self) -> str:
        """The URL of the KYC API, without a trailing slash."""
        return self.kyc_listener.url

    def make_credentials(self) -> dict[str, Secret]:
        """Return one secret for each service, in the vendor's format: 29 hex digits, a dot, 97 hex digits."""

        def one() -> Secret:
            return Secret(f"{secrets.token_hex(15)[:29]}.{secrets.token_hex(49)[:97]}")

        return {"api_secret_key": one(), "kyc_api_secret_key": one()}

    # ------------------------------------------------------------------------------------------- the token endpoint

    async def grant(self, request: web.Request) -> Granted:
        """Check a POST with an empty body and X-Api-Secret-Key; grant_type and ExpiresIn (hours) are optional."""
        if request.method != "POST":
            raise self._nest(404, f"Cannot {request.method} {request.path}")
        self._limit()
        keys = request.headers.getall("X-Api-Secret-Key", [])
        if not keys:
            raise self._nest(401, "x-api-secret-key header is missing")
        service = self._service(Secret(keys[0]) if len(keys) == 1 else None, request.query.get("grant_type"))
        if await request.read():
            # Stricter than documented: the vendor reads no body, so a request with one is probably wrong.
            raise self._nest(400, "the request body must be empty")
        return Granted(self._life(request), service=service)

    def _limit(self) -> None:
        now = self.clock.monotonic()
        while self._asked and self._asked[0] <= now - WINDOW:
            self._asked.popleft()
        if self.switches.rate_limit and len(self._asked) >= PER_MINUTE:
            raise Refusal(429, "Too many requests. Try again later.")
        self._asked.append(now)

    def _service(self, key: Secret | None, grant_type: str | None) -> str:
        if key == self.credentials["api_secret_key"]:
            return SSI  # an SSI app ignores grant_type
        if key != self.credentials["kyc_api_secret_key"]:
            raise self._nest(401, "Access denied.")
        if grant_type not in {None, KYC, KYB}:
            raise self._nest(400, f"Choose {KYC} or {KYB} for Cavach service")
        return grant_type or KYC

    def _life(self, request: web.Request) -> float:
        hours = request.headers.get("ExpiresIn")
        if hours is None:
            return self.life
        if not hours.isdecimal() or int(hours) < 1:
            raise self._nest(400, "`expiresIn` must be a whole number greater than or equal to 1.")
        return int(hours) * 3600.0

    def make_token(self, granted: Granted, life: float) -> Issued:
        """Issue a JWT. The vendor's has no `jti`; here it makes two tokens of the same second different."""
        claims = {"appId": "sandbox", "appName": "Sandbox", "grantType": granted.service, "subdomain": "ent-5a4db0c"}
        return signed(self, granted, life, claims)

    def answer(self, issued: Issued) -> dict[str, Any]:
        """Return the answer, in camel case except for the token."""
        return {"access_token": issued.value.reveal(), "tokenType": "Bearer"}

    # ------------------------------------------------------------------------------------------------------ the APIs

    def _nest(self, status: int, *messages: str) -> Refusal:
        return Refusal(status, {"statusCode": status, "message": list(messages), "error": phrase(status)})

    def unauthorized(self, why: Why) -> Refusal:
        """Return Nest's 401."""
        return self._nest(401, *_MESSAGES[why])

    def error_body(self, status: int, message: str) -> Any:
        """Return Nest's error body, which has an array of messages."""
        return self._nest(status, message).body

    def before(self, request: web.Request) -> None:
        """Reject an Origin that is not in the app's list, with a 401 that looks like that for a bad token."""
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self.allowed_origins:
            raise self._nest(401, "Origin mismatch")

    def authenticate(self, request: web.Request) -> Issued:
        """Return the token: from Authorization, or on v2 of the KYC host from its own header, without `Bearer `."""
        if request.path.startswith("/api/v2/"):
            return self._in_header(request, "x-kyc-access-token", KYC)
        if "/status/" in request.path and "authorization" in request.query:
            return self.judge(request.query["authorization"].removeprefix("Bearer "))
        issued = super().authenticate(request)
        host = KYC if self._is_kyc(request) else SSI
        if issued.service != host:
            raise self._nest(400, "Invalid grant type")
        return issued

    def _is_kyc(self, request: web.Request) -> bool:
        name = request.transport.get_extra_info("sockname") if request.transport else None
        return name is not None and name[1] == self.kyc_listener.port

    def _in_header(self, request: web.Request, header: str, service: str) -> Issued:
        values = request.headers.getall(header, [])
        if len(values) != 1:
            raise self._nest(401, f"{header} header is missing")
        issued = self.judge(values[0])
        if issued.service != service:
            raise self._nest(400, "Invalid grant type")
        return issued

    def _user(self, request: web.Request) -> None:
        """Require that the end user's own Authorization was passed on: any bearer token that is not ours."""
        value = request.headers.get("Authorization", "")
        user = Secret(value.removeprefix("Bearer "))
        if not value.startswith("Bearer ") or not user or self.ledger.find(user) is not None:
            raise self._nest(401, "Unauthorized", "the end user's access token is missing")

    def api_routes(self) -> list[web.RouteDef]:
        """Return the endpoints of SSI."""
        return [
            web.get("/api/v1/edv/state", self.edv),
            web.get("/api/v1/did", self.dids),
            web.get("/api/v1/did/resolve/{did}", self.resolve),
            web.post("/api/v1/did/create", self.create),
            web.get("/api/v1/e-kyc/verification/{kind}/status/{session}", self.status),
        ]

    def kyc_routes(self) -> list[web.RouteDef]:
        """Return the endpoints of KYC and KYB. The status stream is on the SSI port, too, for a route of that port."""
        return [
            web.post("/api/v2/session", self.session),
            web.post("/api/v2/auth/exchange", self.exchange),
            web.post("/api/v2/documents/extract", self.extract),
            web.post("/api/v2/documents/upload", self.upload),
            web.get("/api/v1/e-kyc/verification/{kind}/status/{session}", self.status),
        ]

    async def edv(self, _request: web.Request) -> web.Response:
        """Return the vendor's health; no token is required."""
        return web.json_response({"status": 200, "isEdvLive": True})

    async def dids(self, request: web.Request) -> web.Response:
        """Return a page of DIDs; page ≥ 1, limit 1 to 100."""
        try:
            page, limit = int(request.query.get("page", "1")), int(request.query.get("limit", "10"))
        except ValueError as error:
            raise self._nest(400, "page and limit must be numbers") from error
        if page < 1 or not 1 <= limit <= 100:  # noqa: PLR2004 - the document's bound
            raise self._nest(400, "limit must be between 1 and 100")
        data = [f"did:hid:testnet:z{n:044d}" for n in range((page - 1) * limit, min(page * limit, 25))]
        return web.json_response({"totalCount": 25, "data": data})

    async def resolve(self, request: web.Request) -> web.Response:
        """Return a DID document with the id as it was sent, so that a changed `:` or `%23` would be seen."""
        did = request.raw_path.partition("?")[0].rpartition("/")[2]
        if not did.startswith("did:hid:"):
            raise self._nest(400, "Invalid did")
        return web.json_response({"didDocument": {"id": did}, "didDocumentMetadata": {}})

    async def create(self, request: web.Request) -> web.Response:
        """Create a DID; answer 201."""
        await self.json_body(request)
        return web.json_response({"did": f"did:hid:testnet:z{secrets.token_hex(22)}"}, status=201)

    async def status(self, request: web.Request) -> web.StreamResponse:
        """Send server-sent events; the token may also be in the query, as the vendor's widget sends it."""
        count, interval = int(request.query.get("count", "3")), float(request.query.get("interval", "1"))
        return await event_stream(request, count, interval, "verification")

    async def session(self, request: web.Request) -> web.Response:
        """Open a KYC session. Needs the service's token in x-kyc-access-token, and no Authorization."""
        await self.json_body(request)
        return self._success({"sessionId": secrets.token_hex(12)})

    async def exchange(self, request: web.Request) -> web.Response:
        """Needs both services' tokens in their own headers, and the end user's in Authorization."""
        self._both(request)
        await self.json_body(request)
        return self._success({"userAccessToken": secrets.token_hex(16)})

    async def extract(self, request: web.Request) -> web.Response:
        """Needs the same tokens; receives a large base64 picture."""
        self._both(request)
        body = await self.json_body(request)
        if body.get("documentType") not in {"PASSPORT", "GOVT_ID"}:
            error = {"success": False, "error": {"code": "INVALID_DOCUMENT", "message": "documentType"}}
            raise Refusal(400, error)
        return self._success({"characters": len(str(body.get("documentFront", "")))})

    async def upload(self, request: web.Request) -> web.Response:
        """Needs the same tokens; receives a multipart upload."""
        self._both(request)
        try:
            parts = await receive(request, {"file": Rule(), "documentType": Rule(False, file=False)})
        except UploadRefused as refused:
            raise self._nest(refused.status, refused.message) from refused
        return self._success({"parts": [part.as_json() for part in parts]})

    def _both(self, request: web.Request) -> None:
        request[TOKEN] = self._in_header(request, "x-kyc-access-token", KYC)
        self._in_header(request, "x-ssi-access-token", SSI)
        self._user(request)

    @staticmethod
    def _success(data: dict[str, Any]) -> web.Response:
        return web.json_response({"success": True, "message": "success", "data": data})
