"""What a file, a variable or a program gives is cleaned or refused; a file that blocks stops nothing for ever."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from gateway.config import Commands, load, merged
from gateway.config.read import files
from gateway.config.read.files import read_bytes
from gateway.errors import ConfigError
from gateway.model import Secret
from tests.kit.configuration import loaded, problems, written

if TYPE_CHECKING:
    from pathlib import Path

ROUTE = "routes: {a: {credential: a, upstream: 'https://h.example'}}\n"
DIRTY = {
    "empty": (b"", "is empty"),
    "only a line end": (b"\n", "is empty"),
    "only a byte order mark": (b"\xef\xbb\xbf", "is empty"),
    "two lines": (b"CANARY\nsecond", "contains a line end"),
    "old Mac": (b"CANARY\rsecond", "contains a line end"),
    "NUL inside": (b"CANARY\0x", "contains a NUL character"),
    "NUL at the end": (b"CANARY\0", "contains a NUL character"),
    "tab inside": (b"CANARY\tx", "contains a control character"),
    "escape": (b"\x1b[0mCANARY", "contains a control character"),
    "DEL": (b"CANARY\x7f", "contains a control character"),
    "blank before": (b" CANARY", "begins or ends with a blank"),
    "blank behind": (b"CANARY ", "begins or ends with a blank"),
    "blank before the line end": (b"CANARY \r\n", "begins or ends with a blank"),
    "tab behind": (b"CANARY\t\n", "begins or ends with a blank"),
    "no-break space behind": ("CANARY\u00a0".encode(), "begins or ends with a blank"),
    "byte order mark inside": ("CANARY\ufeff".encode(), "contains an invisible character"),
    "zero-width space": ("CANARY\u200b".encode(), "contains an invisible character"),
    "UTF-16": ("CANARY".encode("utf-16"), "it is not UTF-8"),
    "UTF-16 without mark": ("CANARY".encode("utf-16-le"), "contains a NUL character"),
    "Latin-1": (b"CANARY-\xe4", "it is not UTF-8"),
}


def static(value: str) -> str:
    return f'credentials: {{a: {{static: {{token: "{value}"}}}}}}\n{ROUTE}'


def form(value: str) -> str:
    return (
        f"credentials: {{a: {{grant: {{request: {{url: 'https://auth.example/t', form: {{x: {value}}}}}}}}}}}\n{ROUTE}"
    )


# --------------------------------------------------------------------------------------------------------- clean values


@pytest.mark.parametrize("where", [static, form], ids=["static", "form"])
@pytest.mark.parametrize(("content", "said"), DIRTY.values(), ids=DIRTY)
def test_a_secret_file_that_cannot_be_meant_is_refused_with_its_name(
    content: bytes, said: str, where: object, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(content)
    reference = f"${{file:{tmp_path}/key}}"
    [line] = problems(tmp_path, static(reference) if where is static else form(f'"{reference}"'))
    assert f"file {tmp_path}/key" in line
    assert said in line
    assert "CANARY" not in line


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "environment variable S is empty; `${S:-}` allows that"),
        ("CANARY\r", "environment variable S begins or ends with a blank or a line end"),
        ("CANARY\n", "environment variable S begins or ends with a blank or a line end"),
        (" CANARY", "environment variable S begins or ends with a blank or a line end"),
        ("CAN\nARY", "environment variable S contains a line end"),
        ("\ufeffCANARY", "environment variable S contains an invisible character"),
        ("CANARY\udcff", "environment variable S is not UTF-8"),
    ],
    ids=["empty", "CR of an env file", "LF", "blank", "line end", "byte order mark", "bytes"],
)
def test_a_variable_that_cannot_be_meant_is_refused_with_its_name(value: str, said: str, tmp_path: Path) -> None:
    [line] = problems(tmp_path, static("${S}"), S=value)
    assert said in line
    assert "CANARY" not in line


def test_what_a_program_prints_is_judged_as_a_file_is(tmp_path: Path) -> None:
    program = tmp_path / "p"
    program.write_text("#!/bin/sh\nprintf 'CANARY \\r\\n'\n")
    program.chmod(0o755)
    [line] = problems(tmp_path, static(f"${{command:{program}}}"))
    assert f"the output of {program} begins or ends with a blank" in line


def test_a_key_in_pem_form_keeps_its_lines(tmp_path: Path) -> None:
    pem = "-----BEGIN PRIVATE KEY-----\r\nCANARY\r\n-----END PRIVATE KEY-----"
    (tmp_path / "key").write_text(f"{pem}\n", newline="")
    grants = loaded(tmp_path, form(f'"${{file:{tmp_path}/key}}"')).credentials["a"].grants
    assert grants[0].request.form == (("x", Secret(pem)),)


@pytest.mark.parametrize("value", ['" CANARY"', '"CANARY\\n"', '"CAN\\0ARY"'])
def test_a_literal_secret_is_judged_too(value: str, tmp_path: Path) -> None:
    [line] = problems(tmp_path, form("y").replace("x: y", f"client_secret: {value}"))
    assert "client_secret: " in line
    assert "CANARY" not in line


# --------------------------------------------------------------------------------------------------------------- digits

DIGITS = ["0012345", "+12345", "-0", "00", "-012", "+0"]
TEXTS = {
    "form": form("{}"),
    "list in a form": form("[{}]"),
    "query": form("y").replace("form: {x: y}", "query: {z: {}}"),
    "headers": form("y").replace("form: {x: y}", "headers: {X-Pin: {}}"),
    "JSON": form("y").replace("form: {x: y}", "json: {deep: [{pin: {}}]}"),
    "user name": form("y").replace("form: {x: y}", "basic: {username: {}, password: p}"),
    "password": form("y").replace("form: {x: y}", "basic: {username: u, password: {}}"),
    "static key": static("x").replace('"x"', "{}"),
    "parameter of a profile": f"credentials: {{a: {{profile: uqudo, client_id: {{}}, client_secret: s}}}}\n{ROUTE}",
    "secret parameter": f"credentials: {{a: {{profile: uqudo, client_id: i, client_secret: {{}}}}}}\n{ROUTE}",
    "claim": static("t")
    + "issuers: {i: {issuer: x, audience: [a], jwks_url: 'https://l.example/k'}}\n"
    + "clients: [{name: web, jwt: [{issuer: i, claims: {team: {}}}]}]\n",
    "sign of a refusal": static("t").replace(
        "credential: a,", "credential: a, refusal_signs: [{status: 200, path: code, values: [{}]}],"
    ),
    "origin": static("t").replace("credential: a,", "credential: a, origin: {},"),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("digits", DIGITS)
def test_digits_that_would_lose_a_zero_or_a_sign_are_to_be_quoted(digits: str, text: str, tmp_path: Path) -> None:
    [line] = [each for each in problems(tmp_path, text.replace("{}", digits)) if "quotes" in each]
    assert "put it in quotes" in line
    assert problems(tmp_path, text.replace("{}", f"'{digits}'")) == []


def test_plain_digits_stay_text_and_padded_ones_stay_numbers(tmp_path: Path) -> None:
    form_ = loaded(tmp_path, form("12345")).credentials["a"].grants[0].request.form
    assert form_ == (("x", "12345"),)
    assert loaded(tmp_path, static("t") + "replay_budget: 010\n").replay_budget == 10
    assert "replay_budget: 10\n" in merged([written(tmp_path, static("t") + "replay_budget: 010\n")], environ={})


# -------------------------------------------------------------------------------------------------------- bounded reads


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TIMEOUT", 0.2)
    monkeypatch.setattr(files.read_bytes, "__kwdefaults__", {"regular": False, "timeout": 0.2})


PLACES = {
    "configuration": None,
    "secret": static("${file:PIPE}"),
    "authorities": static("t").replace("credential: a,", "credential: a, ca_file: PIPE,"),
    "JWKS": static("t") + "issuers: {i: {issuer: x, audience: [a], jwks_file: PIPE}}\n",
    "TLS": static("t") + "tls: {certificate: PIPE, key: PIPE}\n",
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_pipe_that_nobody_writes_to_is_refused_with_its_name(place: str | None, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = pipe if place is None else written(tmp_path, place.replace("PIPE", str(pipe)))
    began = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load([path], environ={})
    assert time.monotonic() - began < 10
    told = str(caught.value)
    assert "did not answer within 0.2 s" in told or "it is not a regular file" in told
    assert "pipe" in told or "_file" in told or "tls" in told


@pytest.mark.usefixtures("impatient")
def test_a_file_that_was_a_pipe_is_read_when_it_is_a_file(tmp_path: Path) -> None:
    key = tmp_path / "key"
    path = written(tmp_path, static(f"${{file:{key}}}"))
    os.mkfifo(key)
    for _ in range(5):
        with pytest.raises(ConfigError, match="did not answer"):
            load([path], environ={})
    key.unlink()
    key.write_text("CANARY-now\n")
    assert load([path], environ={}).credentials["a"].static == Secret("CANARY-now")


def test_a_pipe_with_a_writer_is_read_as_a_file_is(tmp_path: Path) -> None:
    """`gatepass check -c <(decrypt config.yaml)` reads a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(static("CANARY-piped")))
    writer.start()
    assert load([pipe], environ={}).credentials["a"].static == Secret("CANARY-piped")
    writer.join()


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"x" * (64 * 1024 + 1), "it is larger than 64 KiB"), (None, "is a directory")],
    ids=["large", "folder"],
)
def test_other_files_that_are_no_secrets_are_told_apart(content: bytes | None, said: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.mkdir() if content is None else key.write_bytes(content)
    [line] = problems(tmp_path, static(f"${{file:{key}}}"))
    assert said in line


def test_threads_that_wait_for_a_hung_file_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung network file system blocks `open` itself, which nothing can interrupt."""
    released = threading.Event()
    monkeypatch.setattr(os, "open", lambda *_: released.wait(30) or 1 / 0)
    path = tmp_path / "hung"
    try:
        for _ in range(files.ABANDONED):
            with pytest.raises(TimeoutError, match="did not answer"):
                read_bytes(path, 10, timeout=0.01)
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="still does not answer"):
            read_bytes(path, 10, timeout=60)
        assert time.monotonic() - began < 30
    finally:
        monkeypatch.undo()
        released.set()
    while any(each == path for each, _ in tuple(files._under_way)):
        time.sleep(0.001)
    path.write_bytes(b"there")
    assert read_bytes(path, 10) == b"there"


def test_files_are_read_one_after_another_on_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, threads, real = tmp_path / "key", set(), os.open

    def record(*args: Any, **kwargs: Any) -> int:
        threads.add(threading.get_ident())
        return real(*args, **kwargs)

    path.write_bytes(b"x")
    monkeypatch.setattr(os, "open", record)
    for _ in range(20):
        assert read_bytes(path, 10) == b"x"
        while not files._threads._idle:
            time.sleep(0.001)
    assert len(threads) == 1


# ------------------------------------------------------------------------------------------------------------- commands


def test_a_program_sees_no_variable_that_any_file_names_or_named(tmp_path: Path) -> None:
    program = tmp_path / "p"
    program.write_text("#!/bin/sh\nprintf '%s' \"A=$A,B=$B,C=$C,D=$D,SEEN=$SEEN\"\n")
    program.chmod(0o755)
    first = written(tmp_path, static("${A} ${B}") + "state_file: ${C:-/tmp/x}\n", "first.yaml")
    over = f'credentials: {{a: {{static: {{token: "${{command:{program}}}"}}}}}}\nstate_file: null\n'
    second = written(tmp_path, over, "second.yaml")
    environ = {"A": "CANARY-a", "B": "CANARY-b", "C": "CANARY-c", "D": "CANARY-d", "SEEN": "yes"}
    commands = Commands(now=lambda: next(instants))
    instants = iter(range(0, 100_000, 1000))
    token = load([first, second], environ=environ, commands=commands).credentials["a"].static
    assert token == Secret("A=,B=,C=,D=CANARY-d,SEEN=yes")
    alone = written(tmp_path, over + ROUTE, "alone.yaml")
    later = load([alone], environ=environ, commands=commands).credentials["a"].static
    assert later == token, "what an earlier reading named is hidden, too"
