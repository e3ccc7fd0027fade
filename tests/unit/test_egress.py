"""Which servers are reached through a proxy, what CONNECT says, and what a configuration may say about it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from gateway.addresses import AddressRefused, Networks
from gateway.cli import main
from gateway.egress import check_target, connect_request, open_tunnel, proxy_for
from gateway.model import Egress, Secret
from gateway.observe import redact, register_all
from tests.kit.configuration import loaded, problems

if TYPE_CHECKING:
    from pathlib import Path

PROXY = Egress("http", "proxy.internal", 3128)


@pytest.mark.parametrize(
    ("host", "no_proxy", "proxied"),
    [
        ("api.vendor.example", (), True),
        ("api.vendor.example", ("vendor.example",), False),
        ("vendor.example", ("vendor.example",), False),
        ("vendor.example.", ("vendor.example",), False),
        ("VENDOR.example", ("vendor.example",), False),
        ("notvendor.example", ("vendor.example",), True),
        ("vendor.example.evil.test", ("vendor.example",), True),
        ("10.1.2.3", (), True),
        ("10.1.2.3", ("10.0.0.0/8",), False),
        ("11.1.2.3", ("10.0.0.0/8",), True),
        ("fd00::1", ("fd00::/8",), False),
        ("10.example", ("10.0.0.0/8",), True),
        ("api.vendor.example", ("other.example", "192.0.2.0/24", "vendor.example"), False),
        ("localhost", (), False),
        ("localhost.", (), False),
        ("a.localhost", (), False),
        ("127.0.0.1", (), False),
        ("127.9.9.9", (), False),
        ("::1", (), False),
        ("::ffff:127.0.0.1", (), False),
    ],
)
def test_a_server_is_reached_through_the_proxy_unless_it_is_named_or_this_machine(
    host: str, no_proxy: tuple[str, ...], proxied: bool
) -> None:
    way = Egress("http", "proxy.internal", 3128, no_proxy=no_proxy)
    assert proxy_for(way, host) is (way if proxied else None)
    assert proxy_for(None, host) is None


@pytest.mark.parametrize(
    ("host", "allowed", "kind"),
    [
        ("api.vendor.example", [], None),
        ("metadata.google.internal", [], None),
        ("93.184.216.34", [], None),
        ("10.1.2.3", [], None),
        ("169.254.169.254", [], "a link-local address"),
        ("169.254.169.254", ["169.254.169.254/32"], None),
        ("::ffff:169.254.169.254", [], "a link-local address"),
        ("168.63.129.16", [], "a metadata service"),
        ("64:ff9b::7f00:1", [], "a loopback address"),
        ("0.0.0.0", [], "an unspecified address"),
    ],
)
def test_a_literal_address_where_nothing_goes_is_not_asked_of_a_proxy_either(
    host: str, allowed: list[str], kind: str | None
) -> None:
    if kind is None:
        check_target(host, Networks(allowed))
    else:
        with pytest.raises(AddressRefused, match=kind):
            check_target(host, Networks(allowed))


@pytest.mark.parametrize(
    ("way", "host", "lines"),
    [
        (PROXY, "vendor.example", [b"CONNECT vendor.example:443 HTTP/1.1", b"Host: vendor.example:443"]),
        (PROXY, "2001:db8::1", [b"CONNECT [2001:db8::1]:443 HTTP/1.1", b"Host: [2001:db8::1]:443"]),
        (
            Egress("http", "proxy.internal", 3128, "user", Secret("CANARY pä:ss")),
            "vendor.example",
            [
                b"CONNECT vendor.example:443 HTTP/1.1",
                b"Host: vendor.example:443",
                b"Proxy-Authorization: Basic dXNlcjpDQU5BUlkgcMOkOnNz",
            ],
        ),
    ],
    ids=["a name", "IPv6", "a login in UTF-8 (RFC 7617 §2.1)"],
)
def test_connect_names_the_server_and_carries_the_login(way: Egress, host: str, lines: list[bytes]) -> None:
    assert connect_request(way, host, 443) == b"\r\n".join([*lines, b"", b""])


def test_a_proxy_s_password_is_not_printed() -> None:
    assert "CANARY" not in repr(Egress("http", "proxy.internal", 3128, "user", Secret("CANARY-password")))


# ------------------------------------------------------------------------------------------------------- configuration

ROUTE = """
credentials: {key: {static: {token: CANARY-key}}}
routes: {v: {credential: key, upstream: "https://vendor.example"}}
"""


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('{proxy: "ftp://proxy.internal:3128"}', "must be http://host:port or https://host:port, or `direct`"),
        ('{proxy: "proxy.internal:3128"}', "must be http://host:port"),
        ('{proxy: "socks5://proxy.internal:1080"}', "must be http://host:port"),
        ('{proxy: "http://user:CANARY@proxy.internal:3128"}', "use `username` and `password`"),
        ('{proxy: "http://proxy.internal:3128/path"}', "must have no path"),
        ('{proxy: "http://proxy.internal:0"}', "must be http://host:port"),
        ('{proxy: "http://proxy.internal:99999"}', "is no URL"),
        ('{proxy: "http://pro xy:3128"}', "must be http://host:port"),
        ('{proxy: "http://proxy.internal:3128", username: user}', "go together"),
        ('{proxy: "http://proxy.internal:3128", password: CANARY}', "go together"),
        ('{proxy: "http://proxy.internal:3128", username: "a:b", password: CANARY}', "holds a colon"),
        ('{proxy: "http://proxy.internal:3128", no_proxy: ["10.0.0.1/8"]}', "host name"),
        ('{proxy: "http://proxy.internal:3128", no_proxy: ["http://a"]}', "host name"),
        ("{proxy: direct, no_proxy: [a.example]}", "stands alone"),
        ("{no_proxy: [a.example]}", "proxy"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_without_the_secret(keys: str, message: str, tmp_path: Path) -> None:
    found = problems(tmp_path, f"egress: {keys}\n{ROUTE}")
    assert len(found) == 1
    assert message in found[0]
    assert found[0].startswith("config.yaml:1: egress")
    assert "CANARY" not in found[0]


def test_a_certificate_authority_needs_an_https_proxy(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    found = problems(tmp_path, f'egress: {{proxy: "http://p:1", ca_file: {tmp_path / "ca.pem"}}}\n{ROUTE}')
    assert "needs an https:// proxy" in found[0]


def test_a_section_of_a_route_or_credential_takes_the_general_one_s_place(tmp_path: Path) -> None:
    grant = '{request: {url: "https://auth.example/token", form: {a: b}}}'
    config = loaded(
        tmp_path,
        f"""
        egress:
          proxy: http://proxy.internal
          username: ${{PROXY_USER}}
          password: ${{PROXY_PASSWORD}}
          no_proxy: ["*.Corp.example", .near.example, 10.0.0.0/8]
        issuers: {{corp: {{issuer: x, audience: [us], jwks_url: "https://login.example/keys"}}}}
        credentials:
          general: {{grant: {grant}}}
          own: {{grant: {grant}, egress: {{proxy: "https://other.internal:8443"}}}}
          near: {{grant: {grant}, egress: {{proxy: direct}}}}
        routes:
          general: {{credential: general, upstream: "https://vendor.example"}}
          own: {{credential: own, upstream: "https://vendor.example", egress: {{proxy: "http://o.internal:1"}}}}
          near: {{credential: near, upstream: "https://vendor.example", egress: {{proxy: direct}}}}
        """,
        PROXY_USER="gatepass",
        PROXY_PASSWORD="CANARY-password",
    )
    general = Egress(
        "http",
        "proxy.internal",
        3128,
        "gatepass",
        Secret("CANARY-password"),
        ("corp.example", "near.example", "10.0.0.0/8"),
    )
    ways: dict[str, Any] = {route.name: route.upstream.egress for route in config.routes}
    assert ways == {"general": general, "own": Egress("http", "o.internal", 1), "near": None}
    fetched = {name: each.grants[0].request.egress for name, each in config.credentials.items()}
    assert fetched == {"general": general, "own": Egress("https", "other.internal", 8443), "near": None}
    assert [issuer.egress for issuer in config.issuers] == [general]


@pytest.mark.parametrize("written", ['"${PASSWORD}"', "CANARY-password", '"x${PASSWORD}"', "1234567"])
@pytest.mark.parametrize("place", ["", "credential", "route"])
def test_a_proxy_s_password_is_shown_nowhere(place: str, written: str, tmp_path: Path) -> None:
    section = f"egress: {{proxy: 'http://p.internal:1', username: me, password: {written}}}"
    grant = 'grant: {request: {url: "https://auth.example/token", form: {grant_type: x}}}'
    path = tmp_path / "config.yaml"
    path.write_text(
        f"{'' if place else section}\n"
        f"credentials: {{k: {{{grant}, {section if place == 'credential' else ''}}}}}\n"
        f"routes: {{v: {{credential: k, upstream: 'https://v.example', {section if place == 'route' else ''}}}}}\n"
    )
    done = CliRunner().invoke(main, ["check", "--show", "--offline", "-c", str(path)], env={"PASSWORD": "CANARY-env"})
    shown = done.output
    assert "username: me" in shown or done.exit_code
    assert "CANARY" not in shown
    assert "1234567" not in shown


def test_a_proxy_s_password_is_redacted_wherever_it_would_be_printed(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "egress: {proxy: 'http://p.internal:1', username: me, password: '${PASSWORD}'}" + ROUTE,
        PASSWORD="CANARY-of-the-proxy",
    )
    register_all(config)
    assert "CANARY" not in str(redact({"said": "the proxy said CANARY-of-the-proxy"}))
    assert "CANARY" not in repr(config)


BEFORE = [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.0 102 \r\n\r\n"]


@pytest.mark.parametrize("before", BEFORE, ids=["none", "one", "several"])
@pytest.mark.parametrize("size", [1, 7, 1000], ids=["byte by byte", "in pieces", "whole"])
async def test_answers_before_the_final_one_are_skipped(before: bytes, size: int) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    opening = asyncio.create_task(open_tunnel(ours, Egress("http", "proxy.internal", 3128), None, "v.example", 443))
    answer = before + b"HTTP/1.1 200 OK\r\n\r\n"
    for at in range(0, len(answer), size):
        await loop.sock_sendall(theirs, answer[at : at + size])
        await asyncio.sleep(0)
    transport = await asyncio.wait_for(opening, 5)
    transport.abort()
    theirs.close()
