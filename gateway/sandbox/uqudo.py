"""Emulates Uqudo: form credentials at a separate host, JWS tokens, images in both directions.

Sources: docs.uqudo.com, "Authorisation API", "Scan", "Face", "Info", "Lookup". Its error bodies are not documented;
those here are Spring's, because its answers look like Spring's. Clients must not depend on them.
"""

from __future__ import annotations

import hashlib
import random
import uuid
from typing import TYPE_CHECKING, Any, ClassVar

import jwt
from aiohttp import web

from gateway.model import MIB, Secret
from gateway.sandbox.claims import signed
from gateway.sandbox.forms import BadForm, read_form
from gateway.sandbox.multipart import Rule, UploadRefused, receive
from gateway.sandbox.refusal import Refusal, oauth_error, phrase
from gateway.sandbox.rules import Granted, Why
from gateway.sandbox.vendor import Vendor

if TYPE_CHECKING:
    from gateway.sandbox.ledger import Issued

SCOPES = frozenset({"KYC_SCAN_API", "KYC_INFO_SDK", "KYC_SCAN_SDK", "KYC_EVENT_SDK"})
IMAGE = b"\xff\xd8\xff\xe0" + random.Random(4).randbytes(300_000) + b"\xff\xd9"  # noqa: S311 - a picture, no secret
IMAGE_SHA256 = hashlib.sha256(IMAGE).hexdigest()
_PICTURE = frozenset({"image/jpeg", "image/png", "application/pdf"})
_SIDE = Rule(max_bytes=5 * MIB, types=_PICTURE)
_PHOTO = Rule(max_bytes=5 * MIB, types=frozenset({"image/jpeg", "image/png"}))


class Uqudo(Vendor):
    """Stands for auth.uqudo.io and id.uqudo.io."""

    name: ClassVar[str] = "uqudo"
    life: ClassVar[float] = 1859  # documented 1800, observed 1859
    token_path: ClassVar[str] = "/api/oauth/token"

    def make_credentials(self) -> dict[str, Secret]:
        """Return client id and secret."""
        return {"client_id": Secret(str(uuid.uuid4())), "client_secret": Secret(uuid.uuid4().hex + uuid.uuid4().hex)}

    async def grant(self, request: web.Request) -> Granted:
        """Check a form with grant_type, client_id and client_secret, which must be sent by POST."""
        self._check_method(request)
        try:
            form = await read_form(request)
        except BadForm as bad:
            raise Refusal(bad.status, self.error_body(bad.status, bad.message)) from bad
        if "Authorization" in request.headers:
            # Stricter than documented: RFC 6749 §2.3 forbids two methods, and the document names only the form.
            raise oauth_error(400, "invalid_request", "client credentials belong in the form only")
        if "grant_type" not in form:
            raise oauth_error(400, "invalid_request", "Missing grant type")
        if form["grant_type"] != "client_credentials":
            raise oauth_error(400, "unsupported_grant_type", f"Unsupported grant type: {form['grant_type']}")
        mine = {name: Secret(form.get(name, "")) for name in self.credentials}
        if mine != self.credentials:
            raise oauth_error(401, "invalid_client", "Bad client credentials")
        return Granted(self.life, SCOPES)

    def _check_method(self, request: web.Request) -> None:
        if request.method != "POST":
            raise Refusal(
                405, self.error_body(405, f"Request method '{request.method}' not supported"), {"Allow": "POST"}
            )
        if request.query_string:
            raise oauth_error(400, "invalid_request", "parameters belong in the form, not in the query")

    def make_token(self, granted: Granted, life: float) -> Issued:
        """Issue a JWS with the claims that the vendor's tokens have."""
        client = self.credentials["client_id"].reveal()
        claims = {"aud": "kyc", "client_id": client, "iss": "uqudo", "sub": client, "scope": sorted(granted.scopes)}
        return signed(self, granted, life, {**claims, "nbf": int(self.now())})

    def answer(self, issued: Issued) -> dict[str, Any]:
        """Return the answer with lower-case `bearer`, `scope` and `jti`, as documented."""
        jti = jwt.decode(issued.value.reveal(), options={"verify_signature": False})["jti"]
        scope = " ".join(sorted(issued.scopes))
        return {"access_token": issued.value.reveal(), "token_type": "bearer", "scope": scope, "jti": jti}

    def unauthorized(self, why: Why) -> Refusal:
        """Return a 401. The scheme must be written `Bearer`, whatever token_type says."""
        if why == "missing":
            description = "Full authentication is required to access this resource"
            return Refusal(401, {"error": "unauthorized", "error_description": description})
        return Refusal(
            401,
            {"error": "invalid_token", "error_description": "Access token expired or unknown"},
            {"WWW-Authenticate": 'Bearer realm="uqudo", error="invalid_token"'},
        )

    def error_body(self, status: int, message: str) -> Any:
        """Return Spring's default error body."""
        return {"status": status, "error": phrase(status), "message": message}

    def api_routes(self) -> list[web.RouteDef]:
        """Return endpoints of docs.uqudo.com with bodies of every kind."""
        return [
            web.post("/api/v1/scan", self.scan),
            web.post("/api/v1/face", self.face),
            web.post("/api/v1/face/match", self.match),
            web.get("/api/v1/info", self.info),
            web.get("/api/v1/info/{session}", self.info),
            web.delete("/api/v1/info/{session}", self.purge),
            web.get("/api/v1/info/img/{id}", self.image),
            web.post("/api/v2/id/lookup/{country}/{kind}", self.lookup),
        ]

    async def scan(self, request: web.Request) -> web.Response:
        """Receive two sides of a document, as JPEG, PNG or PDF of at most 5 MB each."""
        parts = await self._upload(request, {"front": _SIDE, "back": Rule(False, _SIDE.max_bytes, _SIDE.types)})
        return web.json_response({"documentType": "GENERIC_ID", "parts": parts})

    async def face(self, request: web.Request) -> web.Response:
        """Receive a portrait; answer 201 with a session."""
        parts = await self._upload(request, {"idPhoto": _PHOTO})
        return web.json_response({"sessionId": str(uuid.uuid4()), "parts": parts}, status=201)

    async def _upload(self, request: web.Request, rules: dict[str, Rule]) -> list[dict[str, object]]:
        try:
            parts = await receive(request, rules)
        except UploadRefused as refused:
            raise Refusal(refused.status, self.error_body(refused.status, refused.message)) from refused
        self.counters.bytes_received += sum(part.size for part in parts)
        return [part.as_json() for part in parts]

    async def match(self, request: web.Request) -> web.Response:
        """Receive two base64 pictures in JSON (up to 13.4 MB)."""
        body = await self.json_body(request)
        if not isinstance(body.get("sourceImage"), str) or not isinstance(body.get("targetImage"), str):
            raise Refusal(400, self.error_body(400, "sourceImage and targetImage are required"))
        return web.json_response({"match": body["sourceImage"] == body["targetImage"], "matchLevel": 4})

    async def info(self, request: web.Request) -> web.Response:
        """Return a session's result as `application/jwt`: a JWS, not JSON. The path or a header names the session."""
        session = request.match_info.get("session") or request.headers.get("UQ-Session-ID")
        if not session:
            raise Refusal(400, self.error_body(400, "UQ-Session-ID is missing"))
        claims = {"jti": session, "iss": "https://id.uqudo.io", "data": {"documents": []}}
        return web.Response(
            text=jwt.encode(claims, self.signing_key.reveal(), algorithm="HS256"), content_type="application/jwt"
        )

    async def purge(self, _request: web.Request) -> web.Response:
        """Delete a session."""
        return web.Response(status=204)

    async def image(self, request: web.Request) -> web.Response:
        """Return a JPEG with a known hash for any id; `gone` stands for an ended session."""
        if request.match_info["id"] == "gone":
            raise Refusal(404, self.error_body(404, "Image not found"))
        return web.Response(body=IMAGE, content_type="image/jpeg")

    async def lookup(self, request: web.Request) -> web.Response:
        """Return an entry of a government's register. The real one may take 35 s: `api_latency` 36, `api_fault` 503."""
        await self.json_body(request)
        return web.json_response({"country": request.match_info["country"], "verified": True})
