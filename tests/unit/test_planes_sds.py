"""The files for Envoy: their content, and how our own files are recognised."""

from __future__ import annotations

import json
import math

import pytest

from gateway.model import Secret, Token
from gateway.planes import sds

WALL = 1_800_000_000.0


def token(value: str = "CANARY-token") -> Token:
    secret = Secret(value)
    return Token(secret, "acme", 0.0, 3600.0, "in", secret.fingerprint)


def test_a_file_is_a_discovery_response_with_one_generic_secret() -> None:
    shown = json.loads(sds.document("acme", token(), WALL))
    assert shown["resources"] == [
        {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": "acme",
            "generic_secret": {"secret": {"inline_string": "CANARY-token"}},
        }
    ]


def test_the_version_names_the_token_and_its_end_but_not_the_token() -> None:
    shown = json.loads(sds.document("acme", token(), WALL))
    assert shown["version_info"] == f"{token().fingerprint} until 2027-01-15T08:00:00.000Z"


def test_a_withdrawn_token_is_an_empty_secret() -> None:
    shown = json.loads(sds.document("acme", None))
    assert shown["resources"][0]["generic_secret"] == {"secret": {"inline_string": ""}}
    assert shown["version_info"] == "withdrawn"


@pytest.mark.parametrize("until", [WALL, WALL + 0.125, math.inf, -math.inf])
def test_what_was_written_can_be_read_back_from_a_file_of_ours(until: float) -> None:
    written = token() if until != -math.inf else None
    said = sds.stated(sds.document("acme", written, until))
    assert said is not None
    assert (said.credential, said.until, said.is_withdrawn) == ("acme", until, written is None)


@pytest.mark.parametrize("value", ["CANARY-plain", "CANARY-é", "CANARY-\udcff"], ids=["ascii", "latin", "byte"])
def test_the_digest_of_a_file_is_that_of_its_token(value: str) -> None:
    said = sds.stated(sds.document("acme", token(value), WALL))
    assert said is not None
    assert said.digest == sds.digest(token(value))


@pytest.mark.parametrize("field", [b"CANARY-token", b"Bearer CANARY-token"])
def test_a_token_is_found_in_a_field_with_and_without_a_scheme(field: bytes) -> None:
    assert sds.digest(token()) in sds.digests(field)


@pytest.mark.parametrize("field", [b"", b"Bearer ", b"CANARY-token2", b"xCANARY-token", b"Bearer x CANARY-token"])
def test_a_field_without_the_token_is_not_recognised_as_the_token(field: bytes) -> None:
    assert sds.digest(token()) not in sds.digests(field)


FOREIGN = {
    "empty": b"",
    "no JSON": b"resources:\n",
    "a list": b"[]",
    "another owner": json.dumps({"control_plane": {"identifier": "istiod"}, "resources": []}).encode(),
    "no owner": json.dumps({"resources": [{"name": "acme"}]}).encode(),
    "two resources": json.dumps({"control_plane": {"identifier": "gatepass"}, "resources": [{}, {}]}).encode(),
    "no secret": json.dumps(
        {"control_plane": {"identifier": "gatepass"}, "version_info": "withdrawn", "resources": [{"name": "a"}]}
    ).encode(),
    "no end": sds.document("acme", token(), WALL).replace(b"2027-01-15T08:00:00.000Z", b"soon"),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_other_files_are_not_ours(content: bytes) -> None:
    assert sds.stated(content) is None
