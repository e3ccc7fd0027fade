"""The grant engine: renders a token request from a recipe, and parses the answer.

Pure: no socket, no clock, no `async`. What differs between vendors is in the recipe. This module reveals secrets to
write them into requests. Of an answer it returns only the token, its lifetime and known error codes. RFC 6749 §2.3,
§4.4 and §5; RFC 6750 §2.1 for the characters of a token.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from gateway import __version__
from gateway.errors import CredentialRefused, TokenError, TokenMalformed, TokenUnavailable
from gateway.model import KIB, Secret
from gateway.model.http import FORM
from gateway.payload import scalar_text
from gateway.tokens import expiry
from gateway.tokens.failures import TokenEndpointRejected, TokenEndpointThrottled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.model import Basic, ExpirySource, GrantRequest, GrantResponse, Json, Pairs, Text

MAX_ANSWER = 64 * KIB
"""Most bytes of an answer that are read; a longer answer is unusable."""
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""RFC 7523 §2.2."""
ERROR_CODES = frozenset({
    "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
    "invalid_scope", "invalid_target", "access_denied", "slow_down", "server_error", "temporarily_unavailable",
})  # fmt: skip
"""Values of `error` that may be shown. Any other text of an answer may contain a secret."""

_TOO_MANY = 429
_UNFIT_FOR_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, repr=False)
class TokenRequest:
    """A request, ready to be sent. Its `repr` hides headers, body and query."""

    method: str
    url: str
    """Complete and encoded, query included."""
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __repr__(self) -> str:
        return f"<TokenRequest {self.method} {self.url.partition('?')[0]}>"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A token, and its lifetime in seconds from when the request was sent."""

    value: Secret
    life: float
    expiry_source: ExpirySource


# ------------------------------------------------------------------------------------------------------------ request


def render(request: GrantRequest, *, assertion: Secret | None = None, token: Secret | None = None) -> TokenRequest:
    """Return the request of a recipe.

    Args:
        request: the recipe.
        assertion: the signed client assertion, if the recipe has one.
        token: replaces `{token}` in plain values, for a vendor's revoke and identity endpoints.

    Raises:
        CredentialRefused: a header value contains a control character.
    """

    def text(value: Text) -> str:
        if isinstance(value, Secret):
            return value.reveal()
        return value.replace("{token}", token.reveal()) if token else value

    body, content_type = _body(request, text, assertion)
    headers = [(name, text(value)) for name, value in request.headers]
    if request.basic:
        headers.append(("Authorization", _basic(request.basic, text)))
    given = {name.lower() for name, _ in headers}
    defaults = (
        ("Content-Type", content_type),
        ("Accept", "application/json"),
        ("User-Agent", f"gatepass/{__version__}"),
    )
    headers += [(name, value) for name, value in defaults if value and name.lower() not in given]
    for name, value in headers:
        if _UNFIT_FOR_HEADER.search(value):
            raise CredentialRefused(reason=f"the value of header {name} contains a control character")
    return TokenRequest(request.method, _url(request, text), tuple(headers), body)


def _url(request: GrantRequest, text: Callable[[Text], str]) -> str:
    if not request.query:
        return request.url
    # %20, not +: some servers read a + in a query as a plus sign.
    query = "&".join(f"{_percent(name)}={_percent(text(value))}" for name, value in request.query)
    return f"{request.url}{'&' if '?' in request.url else '?'}{query}"


def _percent(value: str) -> str:
    return quote(value, safe="", errors="surrogateescape")


def _form(pairs: Pairs, text: Callable[[Text], str]) -> bytes:
    # RFC 6749 appendix B: UTF-8, then application/x-www-form-urlencoded.
    return "&".join(f"{_plus(name)}={_plus(text(value))}" for name, value in pairs).encode("ascii")


def _plus(value: str) -> str:
    return quote_plus(value, errors="surrogateescape")


def _body(request: GrantRequest, text: Callable[[Text], str], assertion: Secret | None) -> tuple[bytes, str]:
    proof: Pairs = ()
    if assertion is not None:
        proof = (("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion))
    if request.json is not None:
        document = _json(request.json, text)
        if isinstance(document, dict):
            document |= {name: text(value) for name, value in proof}
        return json.dumps(document, separators=(",", ":")).encode("ascii"), "application/json"
    if request.form is not None or proof:
        return _form((request.form or ()) + proof, text), FORM
    return b"", ""


def _json(template: Json, text: Callable[[Text], str]) -> Json:
    if isinstance(template, dict):
        return {name: _json(value, text) for name, value in template.items()}
    if isinstance(template, list | tuple):
        return [_json(value, text) for value in template]
    return text(template) if isinstance(template, str | Secret) else template


def _basic(basic: Basic, text: Callable[[Text], str]) -> str:
    # RFC 6749 §2.3.1 encodes id and secret before joining them (RFC 7617); some vendors' documents do not.
    username, password = text(basic.username), text(basic.password)
    if basic.encode == "form":
        username, password = _plus(username), _plus(password)
    joined = f"{username}:{password}".encode("utf-8", "surrogateescape")
    return "Basic " + base64.b64encode(joined).decode("ascii")


# ------------------------------------------------------------------------------------------------------------- answer


def parse(
    response: GrantResponse,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    wall: float,
    round_trip: float = 0.0,
) -> Parsed:
    """Return the token and lifetime of a token endpoint's answer.

    Args:
        response: how to read it.
        status: the answer's status.
        headers: its fields, a mapping that ignores the case of names.
        body: its first `MAX_ANSWER` + 1 bytes at most; more than `MAX_ANSWER` bytes mean that it was longer.
        wall: our wall clock when the request was sent.
        round_trip: seconds from the request to the answer's head.

    Raises:
        CredentialRefused: the vendor says that our credential is wrong (RFC 6749 §5.2).
        TokenUnavailable: any other error answer; `retry_after` is from the endpoint's `Retry-After`.
        TokenMalformed: a success without a usable token.
    """
    document = _document(body)
    time = expiry.AnswerTime(wall, round_trip, expiry.http_date(headers.get("Date")))
    if status not in response.success:
        raise _failure(response, status, document, expiry.retry_after(headers.get("Retry-After"), time))
    if len(body) > MAX_ANSWER:
        raise TokenMalformed(reason=f"the answer is longer than {MAX_ANSWER} bytes")
    if not isinstance(document, dict):
        raise TokenMalformed(reason=_not_an_object(body, document))
    if document.get("error"):
        raise _error_in_success(response, document)
    _check_type(response, document)
    value = _token(expiry.at_path(document, response.token), response.token)
    life, source = expiry.life_of(response.expires, document, value, fallback=response.fallback, time=time)
    return Parsed(Secret(value), life, source)


def _document(body: bytes) -> object:
    """Return the JSON value; None if it is not JSON. Numbers become floats, so no number is too long to parse."""
    if len(body) > MAX_ANSWER:
        return None
    try:
        return json.loads(body, parse_int=float, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None


def _not_an_object(body: bytes, document: object) -> str:
    if not body.strip():
        return "the answer is empty"
    if document is None:
        return "the answer is not valid JSON" if body.lstrip()[:1] in b"{[" else "the answer is not JSON"
    return "the answer is JSON, but not an object"


def _failure(response: GrantResponse, status: int, document: object, wish: float | None) -> TokenError:
    code = scalar_text(document.get("error")) if isinstance(document, dict) else None
    reason = f"HTTP {status}{_shown(response, code)}"
    if 200 <= status < 300:  # noqa: PLR2004 - the class of success
        has = "with a token" if expiry.at_path(document, response.token) else "without a token"
        listed = ", ".join(map(str, sorted(response.success)))
        reason += f" {has}, but `grant.response.success` is [{listed}]"
    if status in response.refused_statuses or code in response.refused_errors:
        return CredentialRefused(reason=reason, retry_after=wish)
    if status == _TOO_MANY:
        return TokenEndpointThrottled(reason=reason, retry_after=wish)
    if 300 <= status < 400:  # noqa: PLR2004 - the class of redirects
        return TokenEndpointRejected(reason=f"{reason}: redirects are not followed", retry_after=wish)
    if 400 <= status < 500 and status not in {408, 425}:  # noqa: PLR2004 - 408 and 425 ask for a retry
        return TokenEndpointRejected(reason=reason, retry_after=wish)
    return TokenUnavailable(reason=reason, retry_after=wish)


def _error_in_success(response: GrantResponse, document: dict[str, object]) -> TokenError:
    code = scalar_text(document["error"])
    if code in response.refused_errors:
        return CredentialRefused(reason=f"a success status with{_shown(response, code)}")
    return TokenMalformed(reason=f"a success status with an error{_shown(response, code)}")


def _shown(response: GrantResponse, code: str | None) -> str:
    return f" {code}" if code in ERROR_CODES | response.refused_errors else ""


def _check_type(response: GrantResponse, document: dict[str, object]) -> None:
    if response.token_type is None:
        return
    kind = expiry.at_path(document, response.token_type)
    if kind is None:
        return
    if not isinstance(kind, str) or kind.strip().lower() != "bearer":
        # RFC 6749 §7.1: a client must not use a token whose type it does not understand.
        raise TokenMalformed(reason=f"{response.token_type} is not bearer")


def _token(value: object, path: str) -> str:
    if value is None:
        raise TokenMalformed(reason=f"the answer has no {path}")
    if not isinstance(value, str):
        raise TokenMalformed(reason=f"{path} is not a string")
    if not value:
        raise TokenMalformed(reason=f"{path} is empty")
    if not _TOKEN.fullmatch(value):
        raise TokenMalformed(reason=f"{path} contains a character that is not allowed in a header")
    return value
