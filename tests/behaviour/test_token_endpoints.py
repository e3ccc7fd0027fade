"""Token endpoints on real sockets, well-behaved and not: what is sent, what is made of it, what never happens."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import json
import time
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.addresses import Networks
from gateway.clock import SystemClock
from gateway.errors import CredentialRefused, TokenError, TokenMalformed, TokenUnavailable
from gateway.model import Assertion, ClientCertificate, Credential, Expires, GrantRequest, Logs, Secret
from gateway.observe import Metrics, close_logging, configure_logging
from gateway.resolver import Resolver
from gateway.tokens import TokenSet, fetch_once, probe_once
from gateway.tokens.failures import NoDescriptor
from gateway.tokens.grant import MAX_ANSWER, TokenRequest
from gateway.tokens.sender import Sender
from tests.kit.endpoint import Answer, TokenEndpoint, json_answer
from tests.kit.metrics import scraped
from tests.kit.process import serving
from tests.kit.recipes import SECRET, config, credential
from tests.kit.signing import pem
from tests.kit.stall import unless_stalled
from tests.kit.wire import Peer, answering, connect, get, ok, vendor

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as served:
        yield served


async def once(one: Credential) -> Any:
    return await fetch_once(one, clock=SystemClock())


async def failure(one: Credential) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await once(one)
    assert "CANARY" not in f"{caught.value!r} {caught.value.reason} {caught.value.detail}"
    return caught.value


# -------------------------------------------------------------------------------------------------------- what is sent


async def test_a_token_request_is_exactly_what_the_recipe_says(endpoint: TokenEndpoint) -> None:
    await once(credential(endpoint.url))
    body = b"grant_type=client_credentials&client_id=client-1&client_secret=" + SECRET.encode()
    names = [name for name, _ in endpoint.requests[0].headers]
    assert endpoint.requests[0].body == body
    assert names == ["Host", "Content-Type", "Accept", "User-Agent", "Content-Length", "Connection"]


async def test_an_empty_post_says_that_it_is_empty(endpoint: TokenEndpoint) -> None:
    await once(credential(endpoint.url, request={"form": None}))
    request = endpoint.requests[0]
    assert (request.body, request.header("Content-Length"), request.header("Content-Type")) == (b"", "0", None)


async def test_a_proxy_in_the_environment_gets_no_secret(
    endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with TokenEndpoint() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        await once(credential(endpoint.url))
        assert (endpoint.count, proxy.count) == (1, 0)


async def test_a_cookie_of_the_endpoint_never_comes_back(endpoint: TokenEndpoint) -> None:
    endpoint.life = 0.5
    answer = endpoint.fresh()
    endpoint.script.append(replace(answer, headers=(*answer.headers, ("Set-Cookie", "CANARY=1; Path=/"))))
    tokens = TokenSet(config(credential(endpoint.url)), clock=SystemClock(), metrics=Metrics())
    await tokens.start()
    await eventually(lambda: endpoint.count >= 3)
    await tokens.stop()
    assert {request.header("Cookie") for request in endpoint.requests} == {None}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(endpoint: TokenEndpoint, status: int) -> None:
    async with TokenEndpoint() as elsewhere:
        endpoint.always = Answer(status, headers=(("Location", elsewhere.url),))
        error = await failure(credential(endpoint.url))
        assert (elsewhere.count, endpoint.count) == (0, 1)
    assert isinstance(error, TokenUnavailable)
    assert "not followed" in error.reason


# -------------------------------------------------------------------------------------------------- what is made of it


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        pytest.param(Answer(body=b"<html>CANARY</html>"), TokenMalformed, "not JSON", id="HTML with 200"),
        pytest.param(Answer(), TokenMalformed, "empty", id="empty 200"),
        pytest.param(Answer(body=b'{"access_token":"CANARY'), TokenMalformed, "not valid JSON", id="JSON cut off"),
        pytest.param(Answer(body=b" " * (MAX_ANSWER + 1)), TokenMalformed, "longer", id="64 KiB and one"),
        pytest.param(Answer(body=b"{" * 5_000_000), TokenMalformed, "longer", id="megabytes"),
        pytest.param(json_answer({"error": "CANARY"}), TokenMalformed, "error", id="error in a 200"),
        pytest.param(json_answer({"access_token": "CANARY\r\nX: 1"}), TokenMalformed, "character", id="CR LF"),
        pytest.param(json_answer({"access_token": "CANARY", "token_type": "MAC"}), TokenMalformed, "bearer", id="MAC"),
        pytest.param(Answer(fault="close"), TokenUnavailable, "closed", id="closed without an answer"),
        pytest.param(Answer(fault="reset"), TokenUnavailable, "", id="reset"),
        pytest.param(Answer(body=b'{"acc', fault="truncate"), TokenUnavailable, "ended early", id="body broke off"),
        pytest.param(json_answer({"error": "invalid_client"}, 400), CredentialRefused, "HTTP 400", id="refused by 400"),
        pytest.param(json_answer({"error": "invalid_client"}, 401), CredentialRefused, "HTTP 401", id="refused by 401"),
        pytest.param(json_answer({"error": "invalid_client"}, 403), CredentialRefused, "HTTP 403", id="refused by 403"),
        pytest.param(Answer(500, b"CANARY"), TokenUnavailable, "HTTP 500", id="500"),
    ],
)
async def test_each_bad_answer_has_its_error_and_shows_nothing(
    endpoint: TokenEndpoint, answer: Answer, kind: type[TokenError], words: str
) -> None:
    endpoint.always = answer
    error = await failure(credential(endpoint.url))
    assert isinstance(error, kind)
    assert words in error.reason


async def test_an_answer_that_is_not_http_is_malformed() -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-CANARY\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        error = await failure(credential(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
    assert isinstance(error, TokenMalformed | TokenUnavailable)


async def test_an_endpoint_without_tls_behind_a_url_with_https_fails_in_the_handshake() -> None:
    async def speak_first(peer: Peer) -> None:
        await peer.send(ok())
        await peer.at_end()

    async with vendor(speak_first) as plain:
        error = await failure(credential(f"https://127.0.0.1:{plain.port}/token"))
    assert isinstance(error, TokenUnavailable)
    assert error.reason.endswith("TLS: the handshake with the token endpoint failed")
    assert not plain.failures


async def test_an_endpoint_that_refuses_connections_is_unavailable(endpoint: TokenEndpoint) -> None:
    await endpoint.shut()
    error = await failure(credential(endpoint.url))
    assert error.reason.endswith("the token endpoint cannot be reached (connection refused)")
    assert error.reason.startswith(f"127.0.0.1:{endpoint.port}: ")


async def sent(sender: Sender, url: str, *headers: tuple[str, str]) -> TokenUnavailable:
    """Send a token request as it is; return its failure."""
    try:
        with pytest.raises(TokenUnavailable) as caught:
            await sender.send(TokenRequest("POST", url, headers, b""), tls=None, within=5.0)
    finally:
        await sender.close()
    return caught.value


async def test_an_endpoint_that_cannot_be_reached_for_lack_of_a_descriptor_has_not_failed() -> None:
    def no_file(*_: object, **__: object) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    sender = Sender(SystemClock(), Networks(), Resolver(getaddrinfo=no_file))
    error = await sent(sender, "http://login.example/token")
    assert isinstance(error, NoDescriptor)
    assert error.reason == "no file descriptor is left, raise the limit of open files"


async def test_a_failure_of_the_library_without_words_of_ours_is_named_by_its_type_only(
    endpoint: TokenEndpoint,
) -> None:
    error = await sent(Sender(SystemClock(), Networks(["127.0.0.0/8"])), endpoint.url, ("X-Key", "CANARY\r\nX: y"))
    assert error.reason == "the request failed (ValueError)"
    assert not endpoint.requests


@unless_stalled
async def test_an_endpoint_that_never_answers_is_given_up() -> None:
    async with TokenEndpoint() as endpoint:
        endpoint.always = Answer(fault="hang")
        before = time.monotonic()
        error = await failure(credential(endpoint.url, timeout=0.2))
        assert "no answer within 0.2 s" in error.reason
        assert time.monotonic() - before < 1.0


@unless_stalled
async def test_the_vendors_clock_is_measured_and_never_trusted() -> None:
    async with TokenEndpoint() as endpoint:
        date = format_datetime(datetime.fromtimestamp(time.time() + 300, UTC), usegmt=True)
        answer = endpoint.fresh()
        endpoint.always = replace(answer, headers=(*answer.headers, ("Date", date)))
        token, facts = await once(credential(endpoint.url))
        assert facts.skew == pytest.approx(300, abs=2)
        assert token.life == pytest.approx(3600)


@unless_stalled
async def test_life_counts_from_before_the_request_left() -> None:
    async with TokenEndpoint() as endpoint:
        endpoint.latency = 0.3
        before = time.monotonic()
        token, _ = await once(credential(endpoint.url))
        assert token.fetched_at - before < 0.2
        assert token.expires_at == pytest.approx(token.fetched_at + 3600)


# --------------------------------------------------------------------------------------- client authentication and TLS


KEYS = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "PS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


GOOD = json.dumps({"access_token": "CANARY-token", "expires_in": 600}).encode()
REFUSED = json.dumps({"error": "invalid_client"}).encode()


@pytest.mark.parametrize(
    ("packed", "coding"),
    [
        (gzip.compress, "gzip"), (zlib.compress, "deflate"), (gzip.compress, "identity"), (bytes, "gzip"),
        (lambda body: b"\xef\xbb\xbf" + body, "identity"),
    ],
    ids=["gzip", "deflate", "gzip without a label", "plain that says it is gzip", "a BOM"],
)  # fmt: skip
@pytest.mark.parametrize("label", ["application/json", "text/html"])
async def test_an_answer_is_read_whatever_its_coding_and_type(
    endpoint: TokenEndpoint, packed: Callable[[bytes], bytes], coding: str, label: str
) -> None:
    fields = (("Content-Encoding", coding), ("Content-Type", label))
    endpoint.always = Answer(200, packed(GOOD), fields)
    token, _ = await once(credential(endpoint.url))
    assert token.value.reveal() == "CANARY-token"
    endpoint.always = Answer(400, packed(REFUSED), fields)
    assert isinstance(await failure(credential(endpoint.url)), CredentialRefused)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip"])
async def test_an_answer_in_a_coding_that_cannot_be_undone_is_unusable(endpoint: TokenEndpoint, coding: str) -> None:
    endpoint.always = Answer(200, b"\x1f\x8b\xff\xff CANARY", (("Content-Encoding", coding),))
    assert isinstance(await failure(credential(endpoint.url)), TokenMalformed)


async def test_an_answer_that_unpacks_to_more_than_is_read_is_too_long(endpoint: TokenEndpoint) -> None:
    endpoint.always = Answer(200, gzip.compress(GOOD + b" " * 10_000_000), (("Content-Encoding", "gzip"),))
    error = await failure(credential(endpoint.url))
    assert "longer than 65536 bytes" in error.reason


LARGE_HEADS = {
    "a long Content-Security-Policy": (("Content-Security-Policy", "default-src " + "x" * 40_000),),
    "many fields": tuple((f"X-{n}", "y") for n in range(150)),
    "many cookies": tuple(("Set-Cookie", f"c{n}={'z' * 200}") for n in range(120)),
}


@pytest.mark.parametrize("fields", LARGE_HEADS.values(), ids=LARGE_HEADS)
async def test_a_large_head_is_read_within_the_bounds_of_the_data_plane(
    endpoint: TokenEndpoint, fields: tuple[tuple[str, str], ...]
) -> None:
    endpoint.always = Answer(200, GOOD, fields)
    token, _ = await once(credential(endpoint.url))
    assert token.value.reveal() == "CANARY-token"


@pytest.mark.parametrize(
    "fields", [(("X", "y" * 70_000),), tuple((f"X-{n}", "y") for n in range(300))], ids=["a field", "fields"]
)
async def test_a_head_beyond_those_bounds_is_not_valid(
    endpoint: TokenEndpoint, fields: tuple[tuple[str, str], ...]
) -> None:
    endpoint.always = Answer(200, GOOD, fields)
    assert isinstance(await failure(credential(endpoint.url)), TokenMalformed)


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_client_assertion_is_signed_afresh_for_every_attempt(endpoint: TokenEndpoint, algorithm: Any) -> None:
    key: Any = KEYS[algorithm]()
    assertion = Assertion(pem(key), algorithm, "client-1", "https://issuer.example", key_id="kid-1")
    one = credential(endpoint.url, request={"form": (("client_id", "client-1"),), "assertion": assertion})
    endpoint.script.append(Answer(503))
    await failure(one)
    await once(one)
    sent = [request.form["client_assertion"] for request in endpoint.requests]
    claims = [
        jwt.decode(text, key.public_key(), algorithms=[algorithm], audience="https://issuer.example") for text in sent
    ]
    assert claims[0]["jti"] != claims[1]["jti"]
    assert claims[0]["iss"] == claims[0]["sub"] == "client-1"
    assert claims[0]["exp"] - claims[0]["iat"] == 60
    assert jwt.get_unverified_header(sent[0])["kid"] == "kid-1"


@pytest.mark.parametrize("key", ["CANARY no key", pem(KEYS["ES256"]()).reveal()], ids=["no key", "another kind of key"])
async def test_a_key_that_cannot_sign_is_refused_without_a_request(endpoint: TokenEndpoint, key: str) -> None:
    assertion = Assertion(Secret(key), "RS256", "client-1", "https://issuer.example")
    error = await failure(credential(endpoint.url, request={"assertion": assertion}))
    assert isinstance(error, CredentialRefused)
    assert endpoint.count == 0


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    import ssl as tls

    context = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_an_untrusted_endpoint_sees_no_request(server_tls: ssl.SSLContext) -> None:
    async with TokenEndpoint(tls=server_tls) as endpoint:
        error = await failure(credential(endpoint.url))
        assert "certificate is not trusted" in error.reason
        assert endpoint.count == 0


async def test_a_private_authority_is_trusted_when_it_is_named(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    async with TokenEndpoint(tls=server_tls) as endpoint:
        token, _ = await once(credential(endpoint.url, request={"ca_file": ca_file}))
        assert token.value.reveal() == endpoint.issued[0]


async def test_a_gateway_that_serves_trusts_the_systems_authorities(server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """`serve` imports aiohttp without them, so that a start does not read them twice for nothing."""
    async with (
        vendor(answering(ok(b"hello"))) as upstream,
        TokenEndpoint(tls=server_tls) as endpoint,
    ):
        grant = {
            "request": {"url": endpoint.url, "form": {"grant_type": "client_credentials"}},
            "response": {"token": "access_token", "expires": {"in": "expires_in"}},
        }
        acme = {
            "credentials": {"acme": {"grant": grant}},
            "routes": {"v": {"credential": "acme", "upstream": f"http://127.0.0.1:{upstream.port}"}},
        }
        for trusted, status in ((str(ca_file), 200), ("/dev/null", 503)):
            async with serving(acme, SSL_CERT_FILE=trusted, SSL_CERT_DIR="/dev/null") as gateway:
                app = await connect(gateway.address)
                await app.send(get("/v/a"))
                assert (await app.message()).status == status
                app.close()


async def test_mutual_tls_shows_the_client_certificate(
    server_tls: ssl.SSLContext, authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    """RFC 8705: the certificate authenticates, the client id is still sent."""
    server_tls.verify_mode = 2  # type: ignore[assignment]
    authority.configure_trust(server_tls)
    mine = authority.issue_cert("client-1.example")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "me.pem")
    mine.private_key_pem.write_to_path(tmp_path / "me.key")
    certificate = ClientCertificate(tmp_path / "me.pem", tmp_path / "me.key", "00")
    request = {"ca_file": ca_file, "client_certificate": certificate, "form": (("client_id", "client-1"),)}
    async with TokenEndpoint(tls=server_tls) as endpoint:
        await once(credential(endpoint.url, request=request))
        assert "client-1.example" in json.dumps(endpoint.requests[0].peer_certificate)
        await failure(credential(endpoint.url, request={"ca_file": ca_file}))
        assert endpoint.count == 1


async def test_a_missing_certificate_file_is_named(endpoint: TokenEndpoint, tmp_path: Path) -> None:
    error = await failure(credential(endpoint.url, request={"ca_file": tmp_path / "none.pem"}))
    assert isinstance(error, CredentialRefused)
    assert "certificate authority" in error.reason


# ---------------------------------------------------------------------------------------------- probe, revoke, secrets


async def test_a_token_that_is_expired_when_it_arrives_is_no_token(endpoint: TokenEndpoint) -> None:
    endpoint.always = Answer(200, b'{"access_token": "CANARY-short", "expires_in": 0.000001}')
    with pytest.raises(TokenUnavailable) as refusal:
        await once(credential(endpoint.url))
    assert refusal.value.reason == "the token expired before it arrived"


async def test_a_credential_without_an_identity_endpoint_is_not_probed(endpoint: TokenEndpoint) -> None:
    one = credential(endpoint.url)
    token, _ = await once(one)
    with pytest.raises(TokenUnavailable) as refusal:
        await probe_once(one, token)
    assert refusal.value.reason == "the credential has no identity endpoint"


async def test_a_probe_shows_the_token_and_returns_only_the_status(endpoint: TokenEndpoint) -> None:
    async with TokenEndpoint() as whoami:
        whoami.always = Answer(200, b'{"appSecret": "CANARY"}')
        probe = GrantRequest(whoami.url, method="GET", headers=(("Authorization", "Bearer {token}"),))
        one = credential(endpoint.url, probe=probe)
        token, _ = await once(one)
        assert await probe_once(one, token) == 200
        assert whoami.requests[0].method == "GET"
        assert whoami.requests[0].header("Authorization") == f"Bearer {endpoint.issued[0]}"


async def test_check_tries_the_next_secret_when_the_first_is_refused(endpoint: TokenEndpoint) -> None:
    endpoint.script.append(json_answer({"error": "invalid_client"}, 401))
    _, facts = await once(credential(endpoint.url, next_secret="CANARY-next"))
    assert facts.secret == "next"
    assert endpoint.requests[1].form["client_secret"] == "CANARY-next"


async def test_a_static_key_is_fetched_from_nowhere() -> None:
    token, facts = await once(Credential("ledger", static=Secret("CANARY-key")))
    assert (token.value.reveal(), facts.state, token.expires_at) == ("CANARY-key", "static", float("inf"))


async def eventually(condition: Any, within: float = 30.0) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        await asyncio.sleep(0.005)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logging(Logs(format="json", level="debug"), stream)
    yield stream
    close_logging()


@pytest.mark.slow
async def test_no_log_line_and_no_metric_holds_a_secret_a_token_or_a_body(
    endpoint: TokenEndpoint, log: io.StringIO
) -> None:
    endpoint.script.extend(
        [Answer(500, b"CANARY-body"), Answer(200, b"CANARY-html"), json_answer({"error": "CANARY"}, 400)]
    )
    metrics = Metrics()
    tokens = TokenSet(config(credential(endpoint.url)), clock=SystemClock(), metrics=metrics)
    await tokens.start()
    await eventually(lambda: tokens.tokens("acme").current())
    token = await tokens.tokens("acme").get()
    await tokens.tokens("acme").refused(token)
    await tokens.stop()
    close_logging()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert {line["event"] for line in lines} >= {"token_fetched", "token_fetch_failed", "token_invalidated"}
    assert "CANARY" not in log.getvalue() + scraped(metrics) + repr(tokens.status())
    assert 'outcome="malformed"' in scraped(metrics)


async def test_an_expiry_by_another_name_works_end_to_end(endpoint: TokenEndpoint) -> None:
    endpoint.always = json_answer({"data": {"accessToken": "CANARY-x", "expiresAt": "2999-01-01T00:00:00Z"}}, 201)
    one = credential(endpoint.url)
    response = replace(
        one.grants[0].response,
        token="data.accessToken",
        expires=Expires("at", "data.expiresAt"),
        success=frozenset({201}),
    )
    token, _ = await once(replace(one, grants=(replace(one.grants[0], response=response),)))
    assert (token.expiry_source, token.life) == ("at", pytest.approx(86_400))
