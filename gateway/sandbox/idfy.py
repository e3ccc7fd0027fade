"""Emulates IDfy (Nordic, idfy.io): the token endpoint of IdentityServer, and a scope for every path.

Sources: IDfy's "API Authentication" page, its SDKs and API introduction, and IdentityServer's source. Every error of
the token endpoint is a 400, even for wrong credentials. HTTP Basic and form credentials work, but not both together.
"""

from __future__ import annotations

import hashlib
import random
import secrets
import uuid
from typing import TYPE_CHECKING, Any, ClassVar

from aiohttp import web

from gateway.model import Secret
from gateway.sandbox.claims import signed
from gateway.sandbox.forms import BadForm, read_basic, read_form
from gateway.sandbox.multipart import UploadRefused, receive
from gateway.sandbox.refusal import Refusal, oauth_error
from gateway.sandbox.rules import Granted, Why
from gateway.sandbox.vendor import TOKEN, Vendor

if TYPE_CHECKING:
    from gateway.sandbox.ledger import Issued

SCOPES = frozenset(
    {
        *("document_read", "document_write", "document_file", "event", "identify", "jwt", "validation"),
        *("share_write", "share_read", "account_read", "account_write", "merchantsign"),
    }
)
PDF = b"%PDF-1.7\n" + random.Random(3).randbytes(200_000) + b"\n%%EOF\n"  # noqa: S311 - a document, no secret
PDF_SHA256 = hashlib.sha256(PDF).hexdigest()
FORMATS = frozenset({"pades", "native", "standard_packaging", "xades", "unsigned"})
EVENTS_LOCK = 600.0
"""Seconds for which events that were read are hidden from the next reader."""
DOCUMENTS = 7
LISTED = {
    "/signature/documents": "document_read",
    "/signature/documents/{id}": "document_write",
    "/signature/documents/{id}/{part}": "document_read",
    "/signature/documents/{id}/{part}/{partId}": "document_read",
    "/identification/session": "identify",
    "/identification/session/invalidate": "identify",
    "/identification/v2/sessions": "identify",
    "/identification/v2/sessions/{id}": "identify",
    "/notification/events/clear": "event",
    "/notification/events/handle": "event",
    "/notification/events/{id}/handle": "event",
    "/notification/webhooks": "event",
    "/notification/webhooks/{id}": "event",
    "/notification/webhooks/{id}/ping": "event",
}
"""Paths of the vendor's SDKs with a generic answer here, and the scope that each needs."""


class Idfy(Vendor):
    """Stands for api.idfy.io: token endpoint and API on one host; the credentials select test or production."""

    name: ClassVar[str] = "idfy"
    life: ClassVar[float] = 3600
    token_path: ClassVar[str] = "/oauth/connect/token"
    token_on_api: ClassVar[bool] = True

    def make_credentials(self) -> dict[str, Secret]:
        """Return client id and secret."""
        return {"client_id": Secret("t" + secrets.token_hex(16)), "client_secret": Secret(secrets.token_hex(32))}

    # ------------------------------------------------------------------------------------------- the token endpoint

    async def grant(self, request: web.Request) -> Granted:
        """Check a form that was sent by POST: grant_type, scope, and credentials by Basic or in the form."""
        if request.method != "POST":
            raise oauth_error(400, "invalid_request")
        try:
            form = await read_form(request)
        except BadForm as bad:
            raise oauth_error(400, "invalid_request") from bad
        if self._proof(request, form) != (self.credentials["client_id"], self.credentials["client_secret"]):
            raise oauth_error(400, "invalid_client")
        if form.get("grant_type") != "client_credentials":
            raise oauth_error(400, "unsupported_grant_type")
        scopes = frozenset(form.get("scope", "").split(" "))
        if not scopes <= SCOPES:  # no scope at all is one empty name, and the document says that it is required
            raise oauth_error(400, "invalid_scope")
        return Granted(self.life, scopes)

    @staticmethod
    def _proof(request: web.Request, form: dict[str, str]) -> tuple[Secret, Secret] | None:
        in_form = "client_id" in form or "client_secret" in form
        if "Authorization" in request.headers and in_form:
            raise oauth_error(400, "invalid_request")  # RFC 6749 §2.3: one method only
        if in_form:
            return Secret(form.get("client_id", "")), Secret(form.get("client_secret", ""))
        return read_basic(request)

    def make_token(self, granted: Granted, life: float) -> Issued:
        """Issue a JWT that names its scopes."""
        claims = {
            "iss": self.base_url,
            "client_id": self.credentials["client_id"].reveal(),
            "scope": sorted(granted.scopes),
        }
        return signed(self, granted, life, claims)

    def answer(self, issued: Issued) -> dict[str, Any]:
        """Return the answer as documented."""
        return {"access_token": issued.value.reveal(), "token_type": "Bearer"}

    # ------------------------------------------------------------------------------------------------------ the API

    def unauthorized(self, why: Why) -> Refusal:
        """Return a 401 with a challenge (RFC 6750 §3)."""
        challenge = "Bearer" if why == "missing" else 'Bearer error="invalid_token"'
        return Refusal(401, self.error_body(401, "Unauthorized"), {"WWW-Authenticate": challenge})

    def error_body(self, status: int, message: str) -> Any:
        """Return an error body with `code`, `message` and `errors`."""
        return {"code": f"error_{status}", "message": message, "errors": []}

    def decorate(self, response: web.StreamResponse) -> None:
        """Add the headers that every answer has."""
        response.headers["X-Idfy-Environment"] = "test"
        response.headers["RequestId"] = str(uuid.uuid4())

    def _need(self, request: web.Request, scope: str) -> None:
        if scope not in request[TOKEN].scopes:
            raise Refusal(403, self.error_body(403, f"The token lacks the scope {scope}"))

    def api_routes(self) -> list[web.RouteDef]:
        """Return the endpoints for signature documents, their files, events, and uploads to a bucket."""
        self._locked_until = 0.0
        self._documents: dict[str, dict[str, Any]] = {}
        return [
            web.get("/signature/documents/summary", self.summary),
            web.get("/signature/documents/{id}", self.document),
            web.get("/signature/documents/{id}/status", self.document),
            web.get("/signature/documents/{id}/files", self.files),
            web.post("/signature/documents", self.create),
            web.get("/notification/events/peek", self.peek),
            web.get("/notification/events", self.events),
            web.post("/share/buckets/{id}/upload/{file}", self.share),
            *(web.route("*", path, self.listed) for path in LISTED),
        ]

    async def listed(self, request: web.Request) -> web.Response:
        """Answer a path of the vendor's SDKs generically: with what was requested, and for which id."""
        resource = request.match_info.route.resource
        self._need(request, LISTED[resource.canonical if resource is not None else ""])
        return web.json_response({"path": request.path, "method": request.method, **request.match_info})

    async def summary(self, request: web.Request) -> web.Response:
        """Return a page of documents; like the vendor's, `links.next` is an absolute address."""
        self._need(request, "document_read")
        try:
            limit, offset = int(request.query.get("limit", "2")), int(request.query.get("offset", "0"))
        except ValueError as error:
            raise Refusal(400, self.error_body(400, "limit and offset are numbers")) from error
        rows = [{"documentId": str(uuid.UUID(int=n)), "title": f"Document {n}"} for n in range(offset, DOCUMENTS)][
            :limit
        ]
        following = offset + limit
        link = f"{self.base_url}/signature/documents/summary?limit={limit}&offset={following}"
        links = {"next": link} if following < DOCUMENTS else {}
        return web.json_response({"offset": offset, "limit": limit, "size": DOCUMENTS, "links": links, "data": rows})

    async def document(self, request: web.Request) -> web.Response:
        """Return one document."""
        self._need(request, "document_read")
        return web.json_response({"documentId": request.match_info["id"], "status": {"documentStatus": "unsigned"}})

    async def files(self, request: web.Request) -> web.Response:
        """Return the signed file: a PDF with a known hash."""
        self._need(request, "document_file")
        if request.query.get("fileFormat", "unsigned") not in FORMATS:
            raise Refusal(400, self.error_body(400, "unknown fileFormat"))
        headers = {"Content-Disposition": 'attachment; filename="document.pdf"'}
        return web.Response(body=PDF, content_type="application/pdf", headers=headers)

    async def create(self, request: web.Request) -> web.Response:
        """Create a document; the same externalId gives the same document."""
        self._need(request, "document_write")
        body = await self.json_body(request)
        if not isinstance(body.get("title"), str):
            error = {**self.error_body(400, "Invalid model"), "errors": [{"field": "title", "message": "required"}]}
            raise Refusal(400, error)
        fresh = {"documentId": str(uuid.uuid4()), "title": body["title"]}
        external = body.get("externalId")
        document = self._documents.setdefault(str(external), fresh) if external else fresh
        return web.json_response(document, status=201)

    async def peek(self, request: web.Request) -> web.Response:
        """Return events without locking them."""
        self._need(request, "event")
        return web.json_response(self._events())

    async def events(self, request: web.Request) -> web.Response:
        """Return events and lock them for ten minutes: a GET that must not be sent twice."""
        self._need(request, "event")
        now = self.clock.monotonic()
        if now < self._locked_until:
            return web.json_response([])
        self._locked_until = now + EVENTS_LOCK
        return web.json_response(self._events())

    @staticmethod
    def _events() -> list[dict[str, Any]]:
        return [{"id": str(uuid.UUID(int=n)), "type": "document_signed"} for n in range(3)]

    async def share(self, request: web.Request) -> web.Response:
        """Receive a file for a bucket."""
        self._need(request, "share_write")
        try:
            parts = await receive(request, None)
        except UploadRefused as refused:
            raise Refusal(refused.status, self.error_body(refused.status, refused.message)) from refused
        self.counters.bytes_received += sum(part.size for part in parts)
        return web.json_response({"parts": [part.as_json() for part in parts]})
