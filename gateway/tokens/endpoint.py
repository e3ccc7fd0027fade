"""The recipe read backwards: the token endpoint that an app's SDK expects, answered with a pass of the gateway.

`grant.py` turns a grant into a token request and reads the answer. This module takes the request that such a grant
describes from an app, and writes the answer that the grant reads. Pure: no socket, no clock, no `async`, and no
vendor's name. It decides nothing about the client; it only finds what the app presented (RFC 6749 §2.3, §3.2, §5.1).
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import orjson

from gateway.errors import AppTokenRefused
from gateway.model import Presented, Secret
from gateway.model.http import FORM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from gateway.model import Credential, Expires, Grant, Json, Route, Upstream

    Values = Callable[[bytes], list[str]]

_MOST_FIELDS: Final = 100
"""Fields of a form."""
_SECRET: Final = "client_secret"
_ASSERTION: Final = "client_assertion"
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1"})


@dataclass(frozen=True, slots=True)
class GrantEndpoint:
    """One grant as the endpoint that its token request is for."""

    method: str
    paths: frozenset[str]
    """Paths below the route's prefix, exactly as an app sends them."""
    _names: tuple[str, ...]
    """Form fields or top-level JSON members that hold a secret in the recipe."""
    _members: tuple[tuple[str, ...], ...]
    """JSON members that hold a secret in the recipe, as paths."""
    _headers: tuple[str, ...]
    _query: tuple[str, ...]
    _username: bool
    """The recipe's Basic user name is a secret."""
    _grant_type: str | None
    _grant: Grant = field(repr=False)

    @classmethod
    def of(cls, grant: Grant, paths: Iterable[str]) -> GrantEndpoint:
        """Return the endpoint of a grant, served at `paths`."""
        request = grant.request
        form = request.form or ()
        document = request.json if isinstance(request.json, dict) else {}
        plain: dict[str, object] = {**dict(request.query), **dict(form), **document}
        grant_type = plain.get("grant_type")
        return cls(
            method=request.method,
            paths=frozenset(paths),
            _names=(_SECRET, _ASSERTION, *(name for name, value in form if isinstance(value, Secret))),
            _members=((_SECRET,), (_ASSERTION,), *_secret_members(request.json)),
            _headers=tuple(name for name, value in request.headers if isinstance(value, Secret)),
            _query=tuple(name for name, value in request.query if isinstance(value, Secret)),
            _username=request.basic is not None and isinstance(request.basic.username, Secret),
            _grant_type=grant_type if isinstance(grant_type, str) else None,
            _grant=grant,
        )

    # ------------------------------------------------------------------------------------------------------ request

    def read(self, values: Values, query: str, body: bytes) -> Presented:
        """Return what an app presents in a token request.

        Args:
            values: returns the values of a header field, by its lower-case name.
            query: the query of the request target, without the question mark.
            body: the whole body.

        Raises:
            AppTokenRefused: `invalid_request` for what cannot be read, `unsupported_grant_type` for another grant.
        """
        asked = _pairs(query, "query")
        presented = [*values(b"x-gatepass-key")]
        scheme, credentials = _authorization(values)
        if scheme == "basic":
            username, password = _basic(credentials)
            presented += _spellings(password)
            presented += _spellings(username) if self._username else ()
        elif scheme == "bearer":
            presented.append(credentials)
        for name in self._headers:
            if name.lower() != "authorization":
                presented += _header_secrets(values(name.lower().encode("latin-1")))
        presented += [asked[name] for name in self._query if name in asked]
        fields = self._fields(values, body)
        presented += fields.secrets
        grant_type = fields.grant_type if fields.grant_type is not None else asked.get("grant_type")
        if self._grant_type is not None and grant_type is not None and grant_type != self._grant_type:
            raise AppTokenRefused(
                f"The grant type of this endpoint is {self._grant_type}", error="unsupported_grant_type"
            )
        encoded = [each.encode("utf-8", "surrogateescape") for each in presented if each]
        return Presented(tuple(dict.fromkeys(encoded)), "Bearer" if scheme == "bearer" else "Basic", fields.scope)

    def _fields(self, values: Values, body: bytes) -> _Fields:
        if not body:
            return _Fields([], None, None)
        kind, charset = _media_type(values, "application/json" if self._grant.request.json is not None else FORM)
        if charset not in _CHARSETS:
            _invalid("The body's charset is not UTF-8")
        if kind == FORM:
            form = _pairs(_text(body), "body")
            secrets = [form[name] for name in self._names if name in form]
            return _Fields(secrets, form.get("grant_type"), form.get("scope"))
        if kind == "application/json" or kind.endswith("+json"):
            document = _object(body)
            members = (_member(document, path) for path in self._members)
            secrets = [member for member in members if isinstance(member, str)]
            grant_type, scope = document.get("grant_type"), document.get("scope")
            return _Fields(
                secrets, str(grant_type) if grant_type is not None else None, scope if isinstance(scope, str) else None
            )
        return _invalid(f"The body is neither a form ({FORM}) nor JSON")

    # ------------------------------------------------------------------------------------------------------- answer

    def answer(self, token: str, life: int, *, wall: float, scope: str | None = None) -> tuple[int, bytes]:
        """Return status and JSON body of a success, in the shape that the recipe reads.

        Args:
            token: what the app gets.
            life: its life in whole seconds.
            wall: the wall clock, seconds since the epoch.
            scope: the scope that was asked for, which is echoed; None where none was.
        """
        response = self._grant.response
        document: dict[str, object] = {}
        _put(document, response.token, token)
        if response.token_type is not None:
            _put(document, response.token_type, "Bearer")
        _put_life(document, response.expires, response.token, life, wall)
        if scope is not None:
            document.setdefault("scope", scope)
        return min(response.success), orjson.dumps(document)


def endpoints(route: Route, credentials: Mapping[str, Credential]) -> dict[str, GrantEndpoint]:
    """Return the token endpoints of a route's credentials, by the paths below its prefix where it serves them.

    A token URL's path is served as it is; if the vendor's API is on the same host, also relative to the upstream's base
    path. If two credentials of the route share a path, the one that is injected first is served.
    """
    served: dict[str, GrantEndpoint] = {}
    for injection in route.injections:
        for grant in credentials[injection.credential].grants[:1]:
            paths = token_paths(route.upstream, grant)
            served |= {path: GrantEndpoint.of(grant, paths) for path in paths if path not in served}
    return served


def token_paths(upstream: Upstream, grant: Grant) -> tuple[str, ...]:
    """Return the paths below a route's prefix that stand for the token URL of a grant; empty if that is a bare host."""
    url = urlsplit(grant.request.url)
    if not url.path.strip("/"):
        return ()
    port = url.port or (443 if url.scheme == "https" else 80)
    relative = url.path.removeprefix(upstream.base_path)
    if (url.hostname, port) == (upstream.host, upstream.port) and relative.startswith("/") and relative != "/":
        return tuple(dict.fromkeys((url.path, relative)))
    return (url.path,)


@dataclass(frozen=True, slots=True)
class _Fields:
    secrets: list[str]
    grant_type: str | None
    scope: str | None


def _invalid(detail: str) -> NoReturn:
    raise AppTokenRefused(detail, error="invalid_request")


def _secret_members(template: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(template, Secret):
        yield path
    elif isinstance(template, dict):
        for name, value in template.items():
            yield from _secret_members(value, (*path, name))


def _member(document: object, path: tuple[str, ...]) -> object:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _media_type(values: Values, default: str) -> tuple[str, str]:
    """Return the media type and the charset of the body, both in lower case (RFC 9110 §8.3)."""
    if values(b"content-encoding"):
        _invalid("The body is encoded (Content-Encoding); send it as it is")
    given = values(b"content-type")
    if len(given) > 1:
        _invalid("Content-Type appears more than once")
    kind, *parameters = (part.strip() for part in (given[0] if given else default).lower().split(";"))
    charsets = [
        value.strip('" ') for name, _, value in (each.partition("=") for each in parameters) if name == "charset"
    ]
    return kind, charsets[0] if charsets else "utf-8"


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return _invalid("The body is not UTF-8")


def _pairs(text: str, where: str) -> dict[str, str]:
    """Return the fields of a form; RFC 6749 §3.2: none may appear more than once."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except (ValueError, UnicodeError):
        return _invalid(f"The {where} is not a form")
    fields = dict(pairs)
    if len(fields) != len(pairs):
        _invalid(f"A parameter of the {where} appears more than once")
    return fields


def _object(body: bytes) -> Mapping[str, object]:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise ValueError
        return members

    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=once, parse_int=str, parse_float=str)
        json.dumps(document, ensure_ascii=False).encode("utf-8")  # half a surrogate pair (`"\ud800"`) is no text
    except (ValueError, RecursionError):
        return _invalid("The body is not JSON, or names a member twice")
    return document if isinstance(document, dict) else _invalid("The body is not a JSON object")


def _authorization(values: Values) -> tuple[str, str]:
    given = values(b"authorization")
    if len(given) > 1:
        _invalid("Authorization appears more than once")
    if not given:
        return "", ""
    scheme, _, credentials = given[0].replace("\t", " ").partition(" ")
    return scheme.lower(), credentials.strip()


def _basic(credentials: str) -> tuple[str, str]:
    """Return user name and password (RFC 7617 §2)."""
    try:
        text = base64.b64decode(credentials, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return _invalid("User name and password in Authorization are not valid base64")
    username, colon, password = text.partition(":")
    if not colon:
        return _invalid("User name and password in Authorization have no colon between them")
    return username, password


def _spellings(value: str) -> list[str]:
    """Return a value raw and form-decoded: RFC 6749 §2.3.1 encodes id and secret first, many libraries do not."""
    return [value, unquote_plus(value, errors="surrogateescape")]


def _header_secrets(given: list[str]) -> Iterator[str]:
    """Yield a field's value and, for a value such as `Token SECRET`, what stands behind the scheme."""
    for value in given:
        yield value
        if " " in value:
            yield value.rpartition(" ")[2]


def _put(document: dict[str, object], path: str, value: object) -> None:
    *folders, name = path.split(".")
    for folder in folders:
        inner = document.setdefault(folder, {})
        if not isinstance(inner, dict):
            return
        document = inner
    document.setdefault(name, value)


def _put_life(document: dict[str, object], expires: Expires, token_path: str, life: int, wall: float) -> None:
    if expires.kind == "in":
        _put(document, expires.path, life)
    elif expires.kind == "in_ms":
        _put(document, expires.path, life * 1000)
    elif expires.kind == "at":
        _put(document, expires.path, int(wall) + life)
    elif expires.kind == "after":
        # The vendor's answer names no life, so an SDK knows it from the vendor's document; RFC 6749 §5.1 has a name.
        folder = token_path.rpartition(".")[0]
        _put(document, f"{folder}.expires_in" if folder else "expires_in", life)
