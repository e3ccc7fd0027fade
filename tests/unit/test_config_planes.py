"""`planes` in a configuration: what it becomes, and its mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from gateway.model import AskPlane, Planes, PushPlane, SocketFile
from tests.kit.configuration import loaded, problems

BASE = """\
credentials: {{a: {{static: {{token: CANARY}}}}}}
routes: {{a: {{credential: a, upstream: 'https://api.example.com'}}}}
{access}planes: {{{planes}}}
"""
SOCKET = "listen: 'unix:/run/x.sock'"
PUSH = "push: {e: {kind: envoy-sds, directory: /run/sds, credentials: [a]}}"
EDGE = "edge: {routes: [a], request: path, uid: 33}"


def config(planes: str, access: str = "access: open\n") -> str:
    return BASE.format(planes=planes, access=access)


def test_both_ways_become_nouns(tmp_path: Path) -> None:
    text = config(f"{SOCKET}, mode: '0600', ask: {{{EDGE}}}, {PUSH}")
    assert loaded(tmp_path, text).planes == Planes(
        listen=SocketFile(Path("/run/x.sock"), 0o600),
        ask=(AskPlane("edge", frozenset({"a"}), "path", uid=33),),
        push=(PushPlane("e", "envoy-sds", Path("/run/sds"), ("a",)),),
    )


def test_without_the_key_there_are_none(tmp_path: Path) -> None:
    text = "\n".join(line for line in config("").splitlines() if not line.startswith("planes"))
    assert loaded(tmp_path, text).planes is None


MISTAKES = {
    "nothing": ("", "planes: has neither `ask` nor `push`: no proxy would get a token"),
    "an unknown route": (
        f"{SOCKET}, ask: {{edge: {{routes: [b], request: path, uid: 33}}}}",
        "planes.ask.edge.routes[0]: there is no route 'b'; there are: a",
    ),
    "no route": (
        f"{SOCKET}, ask: {{edge: {{routes: [], request: path, uid: 33}}}}",
        "planes.ask.edge.routes: is empty: the proxy would get no token",
    ),
    "no source of the request": (
        f"{SOCKET}, ask: {{edge: {{routes: [a], uid: 33}}}}",
        "planes.ask.edge.request: is missing",
    ),
    "an unknown source": (
        f"{SOCKET}, ask: {{edge: {{routes: [a], request: any, uid: 33}}}}",
        "planes.ask.edge.request: must be x-forwarded, x-original or path",
    ),
    "an unknown credential": (
        "push: {e: {kind: envoy-sds, directory: /run/sds, credentials: [b]}}",
        "planes.push.e.credentials[0]: there is no credential 'b'; there are: a",
    ),
    "a relative folder": (
        "push: {e: {kind: envoy-sds, directory: sds, credentials: [a]}}",
        "planes.push.e.directory: must be an absolute path, as /run/gatepass/…",
    ),
    "one folder for two": (
        PUSH.replace("}}", "}, f: {kind: envoy-sds, directory: /run/sds, credentials: [a]}}"),
        "planes.push.f.directory: is already the folder of e",
    ),
    "asked nowhere": (f"ask: {{{EDGE}}}", "planes.ask: needs `planes.listen`, where these proxies connect"),
    "nobody asks": (
        f"{SOCKET}, {PUSH}",
        "planes.listen: nobody may connect there: add `planes.ask`, or `uid` or `certificates` in `planes.push`",
    ),
    "reported nowhere": (
        PUSH.replace("}}", ", uid: 33}}"),
        "planes.push.e: needs `planes.listen`, where this proxy reports refused tokens",
    ),
    "a certificate of a pushed plane on a socket": (
        f"{SOCKET}, {PUSH.replace('}}', ', certificates: [dns:e]}}')}",
        "planes.push.e.certificates: is for an address with TLS; on a Unix socket, set `uid`",
    ),
    "a relative socket": (
        f"listen: 'unix:x.sock', ask: {{{EDGE}}}",
        "planes.listen: must be an absolute path, as /run/gatepass/…",
    ),
    "a socket with a long path": (
        f"listen: 'unix:/{'x' * 107}', ask: {{{EDGE}}}",
        "planes.listen: the path of a Unix socket has at most 107 bytes",
    ),
    "neither socket nor address": (
        f"listen: somewhere, ask: {{{EDGE}}}",
        "planes.listen: must be unix:/run/gatepass/planes.sock, or host:port",
    ),
    "a mode that is a number": (
        f"{SOCKET}, mode: 660, ask: {{{EDGE}}}",
        'planes.mode: must be octal digits in quotes, as "0660"',
    ),
    "no user": (
        f"{SOCKET}, ask: {{edge: {{routes: [a], request: path}}}}",
        "planes.ask.edge: needs `uid`, the user that the proxy runs as",
    ),
    "a user by name": (
        f"{SOCKET}, ask: {{edge: {{routes: [a], request: path, uid: www-data}}}}",
        "planes.ask.edge.uid: must be the number of a user, as `id -u www-data` prints it",
    ),
    "a certificate on a socket": (
        f"{SOCKET}, ask: {{edge: {{routes: [a], request: path, certificates: ['dns:edge']}}}}",
        "planes.ask.edge.certificates: is for an address with TLS; on a Unix socket, set `uid`",
    ),
    "one user for two": (
        f"{SOCKET}, ask: {{{EDGE}, other: {{routes: [a], request: path, uid: 33}}}}",
        "planes.ask.other.uid: also identifies edge: give both routes to one of them",
    ),
    "an address without TLS": (
        "listen: '127.0.0.1:8081', ask: {edge: {routes: [a], request: path, certificates: ['dns:edge']}}",
        "planes.listen: a token must not cross a network in plain text: set `planes.tls`, or listen on a Unix socket",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("planes", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_line_and_its_key(planes: str, expected: str, tmp_path: Path) -> None:
    assert problems(tmp_path, config(planes)) == [f"config.yaml:4: {expected}"]


PAIR = "certificate: DIR/cert.pem, key: DIR/key.pem"
TLS = f"tls: {{{PAIR}, client_ca: DIR/cert.pem}}"
ANY = "ask: {edge: {routes: [a], request: path, certificates: ['dns:e']}}"
WITH_TLS = {
    "no authorities": (
        f"listen: ':0', tls: {{{PAIR}}}, {ANY}",
        "planes.tls: needs `client_ca`: proxies are authenticated by certificates",
    ),
    "no certificate": (
        f"listen: ':0', {TLS}, ask: {{edge: {{routes: [a], request: path}}}}",
        "planes.ask.edge: needs `certificates`, by which it is authenticated",
    ),
    "a user": (
        f"listen: ':0', {TLS}, ask: {{{EDGE}}}",
        "planes.ask.edge.uid: works only on a Unix socket: set `certificates`",
    ),
    "the data port's address": (
        f"listen: '127.0.0.1:8080', {TLS}, {ANY}",
        "planes.listen: is the address of another port; give it a port of its own",
    ),
    "TLS on a socket": (
        f"{SOCKET}, {TLS}, ask: {{{EDGE}}}",
        "planes.tls: is for an address; `planes.listen` is a Unix socket",
    ),
}


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    made = trustme.CA().issue_cert("localhost")
    made.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    made.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    return tmp_path


@pytest.mark.parametrize(("planes", "expected"), WITH_TLS.values(), ids=WITH_TLS)
def test_a_mistake_with_tls_is_named_too(planes: str, expected: str, pair: Path) -> None:
    assert problems(pair, config(planes.replace("DIR", str(pair)))) == [f"config.yaml:4: {expected}"]


def test_with_tls_authorities_and_names_a_proxy_may_ask_on_an_address(pair: Path) -> None:
    planes = loaded(pair, config(f"listen: ':0', {TLS}, {ANY}".replace("DIR", str(pair)))).planes
    assert planes is not None
    assert planes.tls is not None
    assert planes.tls.client_ca == pair / "cert.pem"


def test_a_gateway_without_clients_answers_no_proxy(tmp_path: Path) -> None:
    """It serves programs on this machine that call directly, and what a proxy forwards is not direct."""
    [line] = problems(tmp_path, config(f"{SOCKET}, ask: {{{EDGE}}}", access=""))
    assert line.startswith("config.yaml:3: planes.ask: without clients, only programs on this machine may call")


def test_only_the_named_files_of_tls_are_watched_and_secret(pair: Path) -> None:
    it = loaded(pair, config(f"listen: ':0', {TLS}, {ANY}".replace("DIR", str(pair))))
    assert {pair / "cert.pem", pair / "key.pem"} <= set(it.watched_files)
    assert it.secret_files == (pair / "key.pem",)
