"""Bodies of error answers, as vendors really send them: compressed, mislabelled, with a mark in front."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from gateway.payload import decode, looks_like_json, read_json, scalar_text

BODY = json.dumps({"error": "CANARY", "more": "x" * 500}).encode()


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("body", "codings"),
    [
        pytest.param(BODY, "", id="plain"),
        pytest.param(BODY, "identity", id="identity"),
        pytest.param(gzip.compress(BODY), "gzip", id="gzip"),
        pytest.param(gzip.compress(BODY), " GZIP ", id="gzip in capitals"),
        pytest.param(gzip.compress(BODY), "x-gzip", id="x-gzip"),
        pytest.param(gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]), "gzip", id="gzip in two members"),
        pytest.param(gzip.compress(BODY), "", id="gzip without a label"),
        pytest.param(gzip.compress(BODY), "identity", id="gzip that says it is none"),
        pytest.param(BODY, "gzip", id="plain that says it is gzip"),
        pytest.param(zlib.compress(BODY), "deflate", id="deflate as the RFC has it"),
        pytest.param(raw_deflate(BODY), "deflate", id="deflate as servers have it"),
        pytest.param(gzip.compress(zlib.compress(BODY)), "deflate, gzip", id="two codings"),
    ],
)
def test_a_coding_is_undone(body: bytes, codings: str) -> None:
    assert decode(body, codings, 10_000) == BODY


@pytest.mark.parametrize("codings", ["br", "zstd", "compress", "gzip, br", "nonsense"])
def test_what_we_cannot_undo_is_none(codings: str) -> None:
    assert decode(gzip.compress(BODY), codings, 10_000) is None


def test_a_bomb_ends_at_the_limit() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert decode(bomb, "gzip", 1000) == bytes(1001)
    assert decode(gzip.compress(bomb), "gzip, gzip", 100_000) == bytes(100_001)


def test_a_body_that_is_cut_gives_what_there_is() -> None:
    out = decode(gzip.compress(BODY)[:-12], "gzip", 10_000)
    assert out is not None
    assert BODY.startswith(out)


def test_a_broken_body_is_none() -> None:
    assert decode(b"\x1f\x8b" + b"\xff" * 40, "gzip", 1000) is None
    assert decode(b"\xff" * 40, "deflate", 1000) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_json_is_read_in_each_encoding_with_and_without_a_mark(encoding: str) -> None:
    assert read_json('{"e": "\u00e9"}'.encode(encoding)) == {"e": "\u00e9"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"\xff\xfe{", b"[" * 100_000, b"\x00"])
def test_what_is_not_json_is_none(body: bytes) -> None:
    assert read_json(body) is None


@pytest.mark.parametrize(
    "beginning",
    [
        b"{",
        b"  \r\n[",
        b"\xef\xbb\xbf {",
        gzip.compress(b"x", mtime=0),
        "{".encode("utf-16"),
        "{".encode("utf-32"),
        *[" {".encode(name) for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")],
        b"\0\0\xfe\xff\0\0\0{",
    ],
)
def test_a_beginning_may_be_of_json(beginning: bytes) -> None:
    assert looks_like_json(beginning)


@pytest.mark.parametrize("beginning", [b"<html>", b"data: {", b"Error", b"\x89PNG", b"--boundary"])
def test_a_beginning_cannot_be_of_json(beginning: bytes) -> None:
    assert not looks_like_json(beginning)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("498", "498"), (498, "498"), (498.0, "498"), (4.5, "4.5"), (-0.0, "0"), (True, "true"), (False, "false"),
        (10**30, "1" + "0" * 30), (None, None), ([], None), ({}, None), ("", ""),
    ],
)  # fmt: skip
def test_a_scalar_is_compared_as_text(value: object, text: str | None) -> None:
    assert scalar_text(value) == text
