"""Every mistake is named with file, line and key, in one voice, and all of them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config import load
from gateway.errors import ConfigError
from tests.kit.configuration import problems, written

if TYPE_CHECKING:
    from pathlib import Path

ROUTE = "routes: {a: {credential: a, upstream: 'https://api.example.com'}}\n"
KEY = "0" * 64


def static(extra: str = "", route: str = ROUTE) -> str:
    return f"credentials: {{a: {{static: {{token: t}}}}}}\n{route}{extra}"


def grant(request: str, response: str = "{}") -> str:
    return f"credentials: {{a: {{grant: {{request: {request}, response: {response}}}}}}}\n{ROUTE}"


def route(keys: str) -> str:
    return f"credentials: {{a: {{static: {{token: t}}}}}}\nroutes: {{a: {{{keys}}}}}\n"


URL = "url: 'https://auth.example.com/token'"
UP = "credential: a, upstream: 'https://h.example'"

ALWAYS_REFUSED = ": a request for such a path is always refused"
TABLE = {
    "unknown key": (
        route(UP + ", timeout: 3"),
        "config.yaml:2: routes.a.timeout: unknown key; did you mean timeouts?",
    ),
    "a pattern for paths that are always refused": (
        route(UP + ", deny: [/a//b]"),
        f"config.yaml:2: routes.a.deny: holds an empty segment (`//`) in one of its readings{ALWAYS_REFUSED}",
    ),
    "an allowed pattern with a double encoding": (
        route(UP + ", allow: ['/a%252f']"),
        f"config.yaml:2: routes.a.allow: holds a double encoding{ALWAYS_REFUSED}",
    ),
    "unknown key far from any": (static("zzzz: 1"), "config.yaml:3: zzzz: unknown key"),
    "unknown key deep down": (
        grant(f"{{{URL}, haeders: {{}}}}"),
        "config.yaml:1: credentials.a.grant.request.haeders: unknown key; did you mean headers?",
    ),
    "unknown parameter of a profile": (
        f"credentials: {{a: {{profile: uqudo, client_id: i, client_secret: s, client_sceret: s}}}}\n{ROUTE}",
        "config.yaml:1: credentials.a.client_sceret: unknown key; did you mean client_secret?",
    ),
    "unknown profile": (
        f"credentials: {{a: {{profile: uquod}}}}\n{ROUTE}",
        "config.yaml:1: credentials.a.profile: no such profile; did you mean uqudo?",
    ),
    "profile from a variable": (
        f"credentials: {{a: {{profile: '${{HOME}}'}}}}\n{ROUTE}",
        "config.yaml:1: credentials.a.profile: must be a profile's name, written out",
    ),
    "missing parameter": (
        f"credentials: {{a: {{profile: uqudo, client_id: i}}}}\n{ROUTE}",
        "config.yaml:1: credentials.a.client_secret: is missing: client secret, from the same page",
    ),
    "empty parameter": (
        f"credentials: {{a: {{profile: uqudo, client_id: i, client_secret: '${{X:-}}'}}}}\n{ROUTE}",
        "config.yaml:1: credentials.a.client_secret: is missing: client secret, from the same page",
    ),
    "parameter that nothing uses": (
        "credentials: {a: {profile: uqudo, client_id: i, client_secret: s, "
        "grant: {request: {form: {client_secret: null}}}}}\n" + ROUTE,
        "config.yaml:1: credentials.a.client_secret: is given, but nothing uses it",
    ),
    "missing variable": (
        f"credentials: {{a: {{static: {{token: '${{NOPE}}'}}}}}}\n{ROUTE}",
        "config.yaml:1: credentials.a.static.token: environment variable NOPE is not set (needed by route a)",
    ),
    "missing file": (
        f"credentials: {{a: {{static: {{token: '${{file:/no/such}}'}}}}}}\n{ROUTE}",
        (
            "config.yaml:1: credentials.a.static.token: file /no/such cannot be read: no such file or directory "
            "(needed by route a)"
        ),
    ),
    "open brace": (
        f"credentials: {{a: {{static: {{token: '${{NOPE'}}}}}}\n{ROUTE}",
        (
            "config.yaml:1: credentials.a.static.token: a `${` has no `}`; write `$${` for the characters themselves "
            "(needed by route a)"
        ),
    ),
    "a file without a name": (
        f"credentials: {{a: {{static: {{token: '${{file:}}'}}}}}}\n{ROUTE}",
        (
            "config.yaml:1: credentials.a.static.token: `${…}` takes NAME, NAME:-default, file:/path or command:/path "
            "(needed by route a)"
        ),
    ),
    "shell syntax that is not ours": (
        f"credentials: {{a: {{static: {{token: '${{NOPE:?no}}'}}}}}}\n{ROUTE}",
        (
            "config.yaml:1: credentials.a.static.token: `${…}` takes NAME, NAME:-default, file:/path or command:/path "
            "(needed by route a)"
        ),
    ),
    "two recipes": (
        f"credentials: {{a: {{static: {{token: t}}, grant: {{request: {{{URL}}}}}}}}}\n{ROUTE}",
        "config.yaml:1: credentials.a: has both `static` and a grant (its own or a profile's); keep one",
    ),
    "no recipe": (
        f"credentials: {{a: {{keep_warm: used}}}}\n{ROUTE}",
        "config.yaml:1: credentials.a: needs one of `profile`, `grant` and `static`",
    ),
    "empty static key": (
        f"credentials: {{a: {{static: {{token: ''}}}}}}\n{ROUTE}",
        "config.yaml:1: credentials.a.static.token: is empty",
    ),
    "second key beside a static token": (
        f"credentials: {{a: {{static: {{token: t, url: u}}}}}}\n{ROUTE}",
        "config.yaml:1: credentials.a.static.url: unknown key",
    ),
    "next beside a static token": (
        f"credentials: {{a: {{static: {{token: t}}, next: {{static: {{token: u}}}}}}}}\n{ROUTE}",
        "config.yaml:1: credentials.a.next: a static key has no rotation: replace it",
    ),
    "two places for a life": (
        grant(f"{{{URL}}}", "{expires: {in: a, after: 3}}"),
        (
            "config.yaml:1: credentials.a.grant.response.expires: needs exactly one of in, in_ms, at, jwt, after; "
            "set the others to null"
        ),
    ),
    "no place for a life": (
        grant(f"{{{URL}}}", "{expires: {fallback: 3m}}"),
        (
            "config.yaml:1: credentials.a.grant.response.expires: needs exactly one of in, in_ms, at, jwt, after; "
            "set the others to null"
        ),
    ),
    "two bodies": (
        grant(f"{{{URL}, form: {{a: b}}, json: {{}}}}"),
        (
            "config.yaml:1: credentials.a.grant.request: has both `form` and `json`; set the one that "
            "you do not want to null"
        ),
    ),
    "body of a GET": (
        grant(f"{{{URL}, method: GET, form: {{a: b}}}}"),
        "config.yaml:1: credentials.a.grant.request: a GET has no body: use `query`, or `method: POST`",
    ),
    "two authorizations": (
        grant(f"{{{URL}, basic: {{username: u, password: p}}, headers: {{authorization: x}}}}"),
        "config.yaml:1: credentials.a.grant.request: has both `basic` and a header Authorization",
    ),
    "colon in a raw user name": (
        grant(f"{{{URL}, basic: {{username: 'u:v', password: p, encode: raw}}}}"),
        (
            "config.yaml:1: credentials.a.grant.request.basic: username holds a colon, which `encode: raw` cannot send"
            "; use `encode: form`"
        ),
    ),
    "header name": (
        grant(f"{{{URL}, headers: {{'X Y': a}}}}"),
        "config.yaml:1: credentials.a.grant.request.headers: 'X Y' is no header name",
    ),
    "header value": (
        grant(f'{{{URL}, headers: {{X: "a\\r\\nY: b"}}}}'),
        (
            "config.yaml:1: credentials.a.grant.request.headers: X: is no header value: only visible ASCII, "
            "with spaces inside"
        ),
    ),
    "framing header": (
        grant(f"{{{URL}, headers: {{Content-Length: 3}}}}"),
        "config.yaml:1: credentials.a.grant.request.headers: Content-Length is written by the gateway itself",
    ),
    "number where text is meant": (
        grant(f"{{{URL}, form: {{a: 1.50}}}}"),
        "config.yaml:1: credentials.a.grant.request.form: a: must be text; put it in quotes",
    ),
    "token URL without TLS": (
        grant("{url: 'http://auth.example.com/token'}"),
        (
            "config.yaml:1: credentials.a.grant.request.url: must be https:// (http:// is only for loopback, "
            "private addresses and local names)"
        ),
    ),
    "upstream without TLS": (
        route("credential: a, upstream: 'http://api.example.com'"),
        (
            "config.yaml:2: routes.a.upstream: must be https:// (http:// is only for loopback, private "
            "addresses and local names)"
        ),
    ),
    "no route": (
        "credentials: {a: {static: {token: t}}}",
        "config.yaml:1: routes: is missing: there is nothing to serve",
    ),
    "empty routes": (static(route="routes: {}\n"), "config.yaml:2: routes: is empty: there is nothing to serve"),
    "route without a token": (
        route("upstream: 'https://h.example'"),
        "config.yaml:2: routes.a: needs exactly one of `credential` and `inject`",
    ),
    "route with an empty list of tokens": (
        route("upstream: 'https://h.example', inject: []"),
        "config.yaml:2: routes.a: `inject` is empty: every route needs a token",
    ),
    "both ways to inject": (
        route(UP + ", inject: [{credential: a}]"),
        "config.yaml:2: routes.a: needs exactly one of `credential` and `inject`",
    ),
    "route without upstream": (route("credential: a"), "config.yaml:2: routes.a.upstream: is missing"),
    "unknown credential": (
        route("credential: zz, upstream: 'https://h.example'"),
        "config.yaml:2: routes.a.credential: there is no credential 'zz'; there are: a",
    ),
    "unknown credential in a list": (
        route("upstream: 'https://h.example', inject: [{credential: aa}]"),
        "config.yaml:2: routes.a.inject[0].credential: there is no credential 'aa'; did you mean a?",
    ),
    "hop-by-hop injection": (
        route("upstream: 'https://h.example', inject: [{header: Connection, credential: a}]"),
        (
            "config.yaml:2: routes.a.inject[0]: the header Connection cannot be injected: "
            "it belongs to the connection or to the message"
        ),
    ),
    "format without a token": (
        route(UP + ", format: 'Bearer'"),
        "config.yaml:2: routes.a: format must hold {token} once",
    ),
    "control character in a format": (
        route(UP + ', format: "{token}\\r\\nX: y"'),
        "config.yaml:2: routes.a.format: holds a control character",
    ),
    "one header twice": (
        route("upstream: 'https://h.example', inject: [{header: X-A, credential: a}, {header: x-a, credential: a}]"),
        "config.yaml:2: routes.a: `inject` writes one header twice",
    ),
    "two authors of Authorization": (
        route(UP + ", authorization: pass"),
        (
            "config.yaml:2: routes.a: `authorization: pass` and a token in Authorization exclude each "
            "other; name another `header`"
        ),
    ),
    "passing Authorization as a header": (
        route(UP + ", pass_headers: [Authorization]"),
        "config.yaml:2: routes.a: `pass_headers` cannot name authorization; use `authorization: pass`",
    ),
    "passing the gateway key": (
        route(UP + ", pass_headers: [X-Gatepass-Key]"),
        "config.yaml:2: routes.a: `pass_headers` cannot name x-gatepass-key",
    ),
    "trailing slash": (
        route(UP + ", prefix: /a/"),
        "config.yaml:2: routes.a.prefix: must be a path as /name: no slash at the end, no dot segments, no escapes",
    ),
    "dot segment": (
        route(UP + ", prefix: /a/../b"),
        "config.yaml:2: routes.a.prefix: must be a path as /name: no slash at the end, no dot segments, no escapes",
    ),
    "two routes with one prefix": (
        f"credentials: {{a: {{static: {{token: t}}}}}}\nroutes:\n  a: {{{UP}}}\n  b: {{{UP}, prefix: /a}}\n",
        "config.yaml:4: routes.b.prefix: is already the prefix of route a",
    ),
    "tunnel method": (
        route(UP + ", methods: [CONNECT]"),
        "config.yaml:2: routes.a: `methods` cannot name CONNECT",
    ),
    "sign without values": (
        route(UP + ", refusal_signs: [{status: 403, path: code}]"),
        "config.yaml:2: routes.a.refusal_signs[0]: `path` and `values` go together",
    ),
    "time-out of nothing": (
        route(UP + ", timeouts: {connect: 0}"),
        "config.yaml:2: routes.a.timeouts.connect: must be longer than zero",
    ),
    "one of a few words": (static("logs: {format: xml}"), "config.yaml:3: logs.format: must be auto, json or console"),
    "mapping expected": (static("limits: [1]"), "config.yaml:3: limits: must be a mapping: {key: value}"),
    "list expected": (static("clients: {a: b}"), "config.yaml:3: clients: must be a list: [a, b]"),
    "public port without clients": (
        static("listen: 0.0.0.0:80"),
        (
            "config.yaml:3: listen: is not loopback, and there are no clients: add `clients` (`gatepass keys new NAME` "
            "makes a key), or set `access: open`"
        ),
    ),
    "one address for both ports": (
        static("admin: 127.0.0.1:8080"),
        "config.yaml:3: admin: is the address of `listen`; give it a port of its own",
    ),
    "client without a key": (
        static("clients: [{name: a}]"),
        (
            "config.yaml:3: clients[0]: needs one of key_sha256, keys_sha256, keys, jwt, certificates (`gatepass keys "
            "new NAME` prints a hash)"
        ),
    ),
    "key that is no hash": (
        static("clients: [{name: a, key_sha256: abc}]"),
        (
            "config.yaml:3: clients[0].key_sha256: must be the 64 hex digits of a SHA-256; `gatepass keys "
            "new NAME` prints one"
        ),
    ),
    "two clients of one name": (
        static(f"clients: [{{name: a, key_sha256: '{KEY}'}}, {{name: a, key_sha256: '{'1' * 64}'}}]"),
        "config.yaml:3: clients[1].name: is already the name of clients[0]",
    ),
    "two clients with one key": (
        static(f"clients: [{{name: a, key_sha256: '{KEY}'}}, {{name: b, keys_sha256: ['{KEY}']}}]"),
        "config.yaml:3: clients[1].keys_sha256: contains a key of clients[0]",
    ),
    "client of an unknown route": (
        static(f"clients: [{{name: a, key_sha256: '{KEY}', routes: [aa]}}]"),
        "config.yaml:3: clients[0].routes[0]: there is no route 'aa'; did you mean a?",
    ),
    "revoking without knowing how": (
        f"credentials: {{a: {{revoke_on_shutdown: true, grant: {{request: {{{URL}}}}}}}}}\n{ROUTE}",
        "config.yaml:1: credentials.a: `revoke_on_shutdown` needs `revoke`: the request that revokes the token",
    ),
    "key that cannot sign": (
        grant(f"{{{URL}, form: {{}}, assertion: {{key: x, algorithm: ES256, issuer: i, audience: a}}}}"),
        (
            "config.yaml:1: credentials.a.grant.request.assertion: key is no private key (PEM, without "
            "passphrase) for ES256"
        ),
    ),
    "authority that is not there": (
        grant(f"{{{URL}, ca_file: /no/such.pem}}"),
        "config.yaml:1: credentials.a.grant.request.ca_file: the file cannot be read: no such file or directory",
    ),
    "name with a slash": (
        static(route=f"routes: {{'a/b': {{{UP}}}}}\n"),
        (
            "config.yaml:2: routes.a/b: must be a name: letters, digits, `.`, `_` and `-`, at most 64; "
            "the first is a letter or a digit"
        ),
    ),
}


@pytest.mark.parametrize(("text", "expected"), TABLE.values(), ids=TABLE)
def test_a_mistake_is_named_with_its_line_and_its_key(text: str, expected: str, tmp_path: Path) -> None:
    assert problems(tmp_path, text, HOME="/x") == [expected]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
    listen: nowhere
    credentials:
      idfy: {profile: idfy, client_id: "${A}", client_secret: "${B}", scope: s}
    routes:
      idfy: {credential: idfy, timeout: 3}
      uqudo: {credential: uqudo}
    """
    assert [line.split(":")[1] for line in problems(tmp_path, text)] == ["1", "3", "3", "5", "6"]


def test_a_broken_credential_does_not_blame_its_route(tmp_path: Path) -> None:
    text = "credentials: {u: {profile: uqudo, client_id: i, client_secret: '${X}'}}\nroutes: {u: {credential: u}}\n"
    assert len(problems(tmp_path, text)) == 1


def test_a_mistake_in_the_second_file_names_the_second_file(tmp_path: Path) -> None:
    first = written(tmp_path, static(), "first.yaml")
    second = written(tmp_path, "\nroutes: {a: {timeout: 1}}\n", "second.yaml")
    with pytest.raises(ConfigError) as caught:
        load([first, second], environ={})
    assert [str(problem) for problem in caught.value.problems] == [
        f"{second}:2: routes.a.timeout: unknown key; did you mean timeouts?"
    ]


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml: cannot be read: no such file or directory"):
        load([tmp_path / "config.yaml"], environ={})


BROKEN = {
    "syntax": ("a: [1\nb: 2\n", "config.yaml:2: "),
    "duplicate key": ("a: 1\na: 2\n", "config.yaml:2: a: is written twice (first in line 1)"),
    "anchor": ("a: &x 1\nb: *x\n", "config.yaml:1: anchors (&name) are not supported; write the value out"),
    "tag": ("a: !!python/name:os.system x\n", "config.yaml:1: tags (!name) are not supported"),
    "merge key": ("a:\n  <<: {b: 1}\n", "config.yaml:2: a.<<: merge keys (<<) are not supported; write the keys out"),
    "two documents": ("a: 1\n---\nb: 2\n", "config.yaml:2: "),
    "not a mapping": ("- a\n", "config.yaml:1: must be a mapping, with a blank after each colon: `key: value`"),
    "tab": ("a:\n\tb: 1\n", "config.yaml:2: "),
    "bottomless": ("a: " + "[" * 5000, "config.yaml:1: is nested too deeply"),
    "control character": ("a: 1\nb: \x01\n", "config.yaml:2: holds a character that YAML does not allow"),
}


@pytest.mark.parametrize(("text", "expected"), BROKEN.values(), ids=BROKEN)
def test_yaml_that_could_surprise_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    assert any(line.startswith(expected) for line in problems(tmp_path, text))
