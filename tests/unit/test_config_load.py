"""What a good configuration becomes: defaults, merging, variables, files, profiles, rotation."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.cli import main
from gateway.config import load, merged
from gateway.config.read.files import why
from gateway.errors import ConfigError
from gateway.model import MIB, Address, Config, Expires, Injection, RefusalSign, Secret
from tests.kit.configuration import loaded, problems, written

NOBODY = 65534
BASE = """\
credentials: {a: {static: {token: t}}}
routes: {a: {credential: a, upstream: 'https://api.example.com/v1/'}}
"""
GRANT = """\
credentials:
  a:
    grant:
      request:
        url: https://auth.example.com/token
        form: {grant_type: client_credentials, secret: "${S}"}
routes: {a: {credential: a, upstream: 'https://api.example.com'}}
"""


def test_what_is_left_out_has_its_documented_default(tmp_path: Path) -> None:
    config = loaded(tmp_path, BASE)
    (route,) = config.routes
    assert (config.listen, config.admin) == ((Address("127.0.0.1", 8080),), Address("127.0.0.1", 9090))
    assert (route.prefix, route.max_body, route.timeouts.first_byte) == ("/a", 32 * MIB, 60.0)
    assert (route.upstream.authority, route.upstream.base_path) == ("api.example.com", "/v1")
    assert route.injections == (Injection("Authorization", "a", "Bearer {token}"),)
    assert route.refusal_signs == (RefusalSign(401, explicit=False),)


def test_a_grant_without_a_response_is_read_as_rfc_6749_says(tmp_path: Path) -> None:
    response = loaded(tmp_path, GRANT, S="CANARY").credentials["a"].grants[0].response
    assert (response.token, response.expires, response.token_type) == (
        "access_token",
        Expires("in", "expires_in"),
        "token_type",
    )


def test_a_header_of_its_own_carries_the_bare_token(tmp_path: Path) -> None:
    config = loaded(tmp_path, BASE.replace("{credential: a,", "{credential: a, header: X-Key,"))
    assert config.routes[0].injections == (Injection("X-Key", "a", "{token}"),)


def test_no_client_on_loopback_means_that_anyone_here_may_call(tmp_path: Path) -> None:
    assert loaded(tmp_path, BASE).access == "open"


def test_clients_on_loopback_are_still_asked_for_their_key(tmp_path: Path) -> None:
    config = loaded(tmp_path, BASE + f"clients: [{{name: x, key_sha256: '{'A' * 64}'}}]")
    assert config.access == "clients"
    assert config.clients[0].keys_sha256 == ("a" * 64,)


def test_a_public_port_is_open_only_when_the_file_says_so(tmp_path: Path) -> None:
    assert problems(tmp_path, BASE + "listen: 0.0.0.0:8080")
    assert loaded(tmp_path, BASE + "listen: 0.0.0.0:8080\naccess: open").access == "open"


def test_null_switches_the_admin_port_off_and_lifts_the_body_limit(tmp_path: Path) -> None:
    config = loaded(tmp_path, BASE.replace("{credential: a,", "{credential: a, max_body: null,") + "admin: null")
    assert config.admin is None
    assert config.routes[0].max_body is None


# --------------------------------------------------------------------------------------------------- merging of files


def test_a_later_file_wins_key_by_key(tmp_path: Path) -> None:
    first = written(tmp_path, GRANT, "a.yaml")
    second = written(tmp_path, "credentials: {a: {grant: {request: {url: 'http://127.0.0.1:9'}}}}", "b.yaml")
    request = load([first, second], environ={"S": "CANARY"}).credentials["a"].grants[0].request
    assert request.url == "http://127.0.0.1:9"
    assert request.form == (("grant_type", "client_credentials"), ("secret", Secret("CANARY")))


def test_a_null_in_a_later_file_takes_an_entry_back(tmp_path: Path) -> None:
    first = written(tmp_path, BASE + "  # more\n", "a.yaml")
    second = written(tmp_path, "routes: {b: {credential: a, upstream: 'https://b.example'}, a: null}", "b.yaml")
    assert [route.name for route in load([first, second], environ={}).routes] == ["b"]


def test_an_overlay_can_point_a_profile_elsewhere(tmp_path: Path) -> None:
    first = written(
        tmp_path,
        """\
        credentials: {akiba: {profile: akiba, client_id: i, client_secret: s, client_credential: c}}
        routes: {akiba: {credential: akiba}}
        """,
        "a.yaml",
    )
    second = written(
        tmp_path,
        """\
        credentials:
          akiba:
            grant: {request: {url: 'http://127.0.0.1:1/authorization/token'}}
            probe: {url: 'http://127.0.0.1:1/authorization/whoami'}
        routes: {akiba: {upstream: 'http://127.0.0.1:1'}}
        """,
        "b.yaml",
    )
    config = load([first, second], environ={})
    assert config.credentials["akiba"].grants[0].request.url == "http://127.0.0.1:1/authorization/token"
    assert config.routes[0].upstream.port == 1


# ---------------------------------------------------------------------------------------------------- variables, files


def test_a_variable_may_stand_inside_other_text(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        GRANT.replace("form:", "headers: {X-Key: 'Key ${S}'}\n        form:"),
        S="CANARY",
    )
    assert config.credentials["a"].grants[0].request.headers == (("X-Key", Secret("Key CANARY")),)


def test_an_empty_variable_gives_way_to_its_default(tmp_path: Path) -> None:
    config = loaded(tmp_path, BASE + "listen: ${L:-127.0.0.1:1}\nadmin: ${A:-127.0.0.1:2}", L="", A="[::1]:3")
    assert (config.listen, config.admin) == ((Address("127.0.0.1", 1),), Address("::1", 3))


def test_two_dollars_write_one_brace_literally(tmp_path: Path) -> None:
    form = loaded(tmp_path, GRANT.replace('"${S}"', '"$${S}"')).credentials["a"].grants[0].request.form
    assert form is not None
    assert form[1][1] == Secret("${S}")


def test_numbers_and_flags_may_come_from_variables(tmp_path: Path) -> None:
    text = BASE + "limits: {connections: '${N}', head_bytes: '${B}'}\nlogs: {access: '${F}', level: '${L}'}"
    config = loaded(tmp_path, text, N="7", B="1KiB", F="false", L="debug")
    assert (config.limits.connections, config.limits.head_bytes) == (7, 1024)
    assert (config.logs.access, config.logs.level) == (False, "debug")


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"CANARY", "CANARY"),
        (b"CANARY\n", "CANARY"),
        (b"CANARY\r\n", "CANARY"),
        (b"CANARY\n\n", "CANARY"),
        (b"\xef\xbb\xbfCANARY\r\n", "CANARY"),
        (b"CANARY two  words\n", "CANARY two  words"),
        ("CANARY-ä".encode(), "CANARY-ä"),
    ],
    ids=["as it is", "newline", "crlf", "two newlines", "byte order mark", "blanks inside", "not ASCII"],
)
def test_a_secret_file_loses_its_line_ends_and_byte_order_mark(content: bytes, secret: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    config = loaded(tmp_path, GRANT.replace("${S}", f"${{file:{tmp_path}/key}}"))
    form = config.credentials["a"].grants[0].request.form
    assert form is not None
    assert form[1][1] == Secret(secret)


def test_secret_files_are_watched_under_the_name_that_the_file_gave(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "key").write_text("CANARY")
    (tmp_path / "key").symlink_to("..data/key")
    config = loaded(tmp_path, GRANT.replace("${S}", f"${{file:{tmp_path}/key}}"))
    assert config.watched_files == (tmp_path / "config.yaml", tmp_path / "key")
    assert config.secret_files == (tmp_path / "key",)


def test_a_secret_file_without_permission_is_named() -> None:
    """Root reads everything, so root becomes nobody for as long as the file is asked for."""
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), os.geteuid() == 0
        folder.chmod(0o755)
        (folder / "key").touch(mode=0)
        config = written(folder, GRANT.replace("${S}", f"${{file:{folder}/key}}"))
        if root:
            os.seteuid(NOBODY)
        try:
            with pytest.raises(ConfigError, match="cannot be read: permission denied"):
                load([config], environ={})
        finally:
            if root:
                os.seteuid(0)


def test_words_that_yaml_1_1_would_turn_into_something_else_stay_words(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        BASE.replace("{credential: a,", "{credential: a, forwarded: off, methods: [GET],")
        + "# 1.2: off is a word\nreplay_budget: 010",
    )
    assert config.routes[0].forwarded == "off"
    assert config.replay_budget == 10


# ----------------------------------------------------------------------------------------------------------- rotation


@pytest.mark.parametrize(
    "key", ["next_client_secret: '${N:-}'", "next: {client_secret: '${N:-}'}"], ids=["short", "next"]
)
def test_a_next_secret_becomes_a_second_grant_with_everything_else_alike(key: str, tmp_path: Path) -> None:
    text = f"""\
    credentials: {{u: {{profile: uqudo, client_id: i, client_secret: CANARY-1, {key}}}}}
    routes: {{u: {{credential: u}}}}
    """
    today, following = loaded(tmp_path, text, N="CANARY-2").credentials["u"].grants
    assert today.request.form is not None
    assert today.request.form == (*today.request.form[:2], ("client_secret", Secret("CANARY-1")))
    assert following.request.form == (*today.request.form[:2], ("client_secret", Secret("CANARY-2")))
    assert following.response == today.response
    assert len(loaded(tmp_path, text).credentials["u"].grants) == 1, "an empty next secret is none"


def test_a_spelt_out_grant_is_rotated_by_the_keys_that_change(tmp_path: Path) -> None:
    text = GRANT.replace("routes:", "    next: {grant: {request: {form: {secret: '${N}'}}}}\nroutes:")
    today, following = loaded(tmp_path, text, S="CANARY-1", N="CANARY-2").credentials["a"].grants
    assert today.request.form is not None
    assert following.request.form == (today.request.form[0], ("secret", Secret("CANARY-2")))


# ---------------------------------------------------------------------------------------------- certificates and keys


def test_a_client_certificate_is_tried_and_its_files_are_watched(tmp_path: Path) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("client.example")
    certificate, key, ca = tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "ca.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
    key.write_bytes(pair.private_key_pem.bytes())
    ca.write_bytes(authority.cert_pem.bytes())
    mutual = f"client_certificate: {{certificate: {certificate}, key: {key}}}\n        ca_file: {ca}\n        form:"
    config = loaded(tmp_path, GRANT.replace("form:", mutual), S="CANARY")
    found = config.credentials["a"].grants[0].request.client_certificate
    assert found is not None
    assert (found.certificate, found.key, len(found.fingerprint)) == (certificate, key, 64)
    assert set(config.watched_files) == {tmp_path / "config.yaml", certificate, key, ca}
    assert config.secret_files == (key,)


def test_a_certificate_with_another_key_is_refused(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.write_bytes(authority.issue_cert("a.example").cert_chain_pems[0].bytes())
    key.write_bytes(authority.issue_cert("b.example").private_key_pem.bytes())
    mutual = f"client_certificate: {{certificate: {certificate}, key: {key}}}\n        form:"
    (line,) = problems(tmp_path, GRANT.replace("form:", mutual), S="CANARY")
    assert "client_certificate: certificate and key are not a pair of PEM files" in line


def test_a_private_key_for_assertions_comes_from_its_file(tmp_path: Path) -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    keys = f"assertion: {{key: '${{file:{tmp_path}/key.pem}}', algorithm: ES256, issuer: me, audience: you}}"
    config = loaded(tmp_path, GRANT.replace("form:", f"{keys}\n        form:"), S="CANARY")
    found = config.credentials["a"].grants[0].request.assertion
    assert found is not None
    assert (found.issuer, found.audience, found.lifetime) == ("me", "you", 60.0)


# ------------------------------------------------------------------------------------------------------ digest, merged


def test_the_digest_changes_with_a_secret_and_with_nothing_else(tmp_path: Path) -> None:
    one, same, other = (loaded(tmp_path, GRANT, S=s).digest for s in ("CANARY-1", "CANARY-1", "CANARY-2"))
    assert one == same != other


def test_the_merged_text_shows_the_profile_and_masks_the_secrets(tmp_path: Path) -> None:
    text = """\
    credentials: {u: {profile: uqudo, client_id: "${I}", client_secret: CANARY-literal}}
    routes: {u: {credential: u}}
    """
    printed = merged([written(tmp_path, text)], environ={"I": "CANARY-id"})
    assert "https://auth.uqudo.io/api/oauth/token" in printed
    assert Secret("CANARY-literal").fingerprint in printed
    assert "CANARY" not in printed


def test_literal_secrets_of_a_spelt_out_grant_are_secrets_too(tmp_path: Path) -> None:
    text = """\
    credentials:
      a: {static: {token: CANARY-1}}
      b:
        grant:
          request:
            url: https://auth.example.com/token
            headers: {X-Api-Key: CANARY-2}
            json: {deep: [{client_secret: CANARY-3}]}
            basic: {username: me, password: CANARY-4}
    routes: {a: {credential: a, upstream: 'https://h.example'}}
    """
    assert "CANARY" not in merged([written(tmp_path, text)], environ={}) + repr(loaded(tmp_path, text))


ROUTE = (
    "credentials: {key: {static: {token: CANARY}}}\nroutes: {v: {credential: key, upstream: 'http://127.0.0.1:1'}}\n"
)


def addressed(tmp_path: Path, text: str, **environ: str) -> Config:
    path = tmp_path / "addresses.yaml"
    path.write_text(text + ROUTE)
    return load([path], environ=environ)


def test_the_environment_names_the_addresses_that_no_file_names(tmp_path: Path) -> None:
    both = {"GATEPASS_LISTEN": "0.0.0.0:18080", "GATEPASS_ADMIN": "0.0.0.0:19090"}
    config = addressed(tmp_path, "access: open\n", **both)
    assert (str(config.listen[0]), str(config.admin)) == ("0.0.0.0:18080", "0.0.0.0:19090")
    config = addressed(tmp_path, "access: open\nlisten: 127.0.0.1:1\nadmin: null\n", **both)
    assert (str(config.listen[0]), config.admin) == ("127.0.0.1:1", None)
    config = addressed(tmp_path, "", GATEPASS_LISTEN="", GATEPASS_ADMIN="")
    assert (str(config.listen[0]), str(config.admin)) == ("127.0.0.1:8080", "127.0.0.1:9090")


@pytest.mark.parametrize("value", ["nonsense", "0.0.0.0:18080"], ids=["no address", "nobody may call"])
def test_a_mistake_in_an_address_of_the_environment_names_the_variable(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        addressed(tmp_path, "", GATEPASS_LISTEN=value)
    assert "GATEPASS_LISTEN" in str(caught.value)


def test_a_file_that_may_not_be_read_names_the_user_who_may_not() -> None:
    assert why(PermissionError(13, "Permission denied")) == f"permission denied for user {os.geteuid()}"
    assert why(FileNotFoundError(2, "No such file or directory")) == "no such file or directory"


def test_the_command_line_leaves_it_to_the_loader_to_say_who_may_not_read_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(ROUTE)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    done = CliRunner().invoke(main, ["check", "--offline", "-c", str(path)])
    assert "is not readable" not in done.output
    assert done.exit_code == 0, done.output
