"""Whatever goes wrong on the command line is one plain line on standard error; nobody sees a traceback."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import IO

import jsonschema  # type: ignore[import-untyped]  # its types are a package of their own
import pytest
import yaml
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.files import write_new

ROOT = Path(__file__).parents[2]
CONFIG = """\
credentials: {acme: {static: {token: CANARY-static-key}}}
routes: {acme: {credential: acme, upstream: "https://api.acme.example"}}
"""
FULL = Path("/dev/full")


def gatepass(*args: str) -> Result:
    return CliRunner().invoke(main, args)


MISTAKES = {
    "folder that is not there": (["init", "uqudo", "-o", "/nope/x.yaml"], 2, "cannot write /nope/x.yaml: no such file"),
    "file as a folder": (
        ["init", "uqudo", "-o", "/dev/null/x.yaml"],
        2,
        "cannot write /dev/null/x.yaml: not a directory",
    ),
    "port too high": (["sandbox", "--port", "70000"], 2, "70000 is not in the range"),
    "no room for ten ports": (["sandbox", "--port", "65530"], 2, "65530 is not in the range"),
    "negative port": (["sandbox", "--port", "-1"], 2, "-1 is not in the range"),
    "host that is none": (["sandbox", "--host", "no host"], 1, "cannot listen on no host"),
    "nobody listens": (
        ["status", "--url", "127.0.0.1:9"],
        1,
        "no gateway answers at http://127.0.0.1:9 (connection refused)",
    ),
    "nobody listens, usage": (
        ["usage", "--url", "127.0.0.1:9"],
        1,
        "no gateway answers at http://127.0.0.1:9 (connection refused)",
    ),
    "nobody listens, health": (
        ["health", "--url", "127.0.0.1:9"],
        1,
        "no gateway answers at 127.0.0.1:9 (connection refused)",
    ),
    "name that does not exist": (["status", "--url", "nope.invalid"], 1, "no gateway answers at http://nope.invalid"),
    "open bracket": (["health", "--url", "http://[::1"], 2, "must be a URL as http://127.0.0.1:9090"),
    "open bracket, status": (["status", "--url", "[::1"], 2, "must be a URL as http://127.0.0.1:9090"),
    "port that is none": (["status", "--url", "localhost:x"], 2, "must be a URL as http://127.0.0.1:9090"),
    "another scheme": (["status", "--url", "ftp://localhost"], 2, "must be a URL as http://127.0.0.1:9090"),
    "no host": (["health", "--url", "http://"], 2, "must be a URL as http://127.0.0.1:9090"),
    "password in the URL": (
        ["status", "--url", "http://me:CANARY@localhost"],
        2,
        "must be a URL without user and pass",
    ),
    "query in the URL": (["usage", "--url", "http://localhost/?x"], 2, "must be a URL as http://127.0.0.1:9090"),
    "fragment in the URL": (["usage", "--url", "http://localhost/#x"], 2, "must be a URL as http://127.0.0.1:9090"),
    "blank in the URL": (["health", "--url", "http://a b"], 2, "must be a URL as http://127.0.0.1:9090"),
    "empty label in the URL": (["health", "--url", "a..b"], 2, "must be a URL as http://127.0.0.1:9090"),
    **{
        f"month {month!r}": (["usage", "--month", month], 2, "must be a year and a month, as 2026-11")
        for month in (
            "",
            " ",
            "2026-13",
            "2026-1",
            "-1",
            "2026-11&month=2026-10",
            "2026-11#",
            "\u0662026-11",
            "1" * 9000,
        )
    },
    "empty configuration's name": (["check", "-c", ""], 2, "the name of the file is empty"),
    "empty configuration's name, sandbox": (["sandbox", "-c", ""], 2, "the name of the file is empty"),
    "empty output": (["init", "uqudo", "-o", ""], 2, "the name of the file is empty"),
    **{
        f"secret folder {folder!r}": (["init", "uqudo", "--secret-files", folder], 2, "must be a folder whose name")
        for folder in ("", " ", "a ", "}", "${X}", "a\nb", "\udcff")
    },
    "no configuration": (
        ["check", "-c", "/nope/config.yaml"],
        2,
        "`gatepass init VENDOR -o config.yaml` writes a first one",
    ),
    "configuration is a folder": (["check", "-c", "/tmp"], 2, "/tmp: cannot be read: is a directory"),
    "client's name": (["keys", "new", "a/b"], 2, "'a/b' is no name: letters, digits"),
    "empty name": (["keys", "new", ""], 2, "'' is no name"),
    "long name": (["keys", "new", "x" * 65], 2, "is no name"),
    "route's name": (["keys", "new", "web", "--route", "a b"], 2, "'a b' is no name"),
    "routes of an admin": (["keys", "new", "admin", "--route", "a"], 2, "an admin key has no routes"),
    "help for nothing": (["help", "nope"], 2, "there is no command 'nope'"),
    "help for nothing below": (["help", "keys", "nope"], 2, "there is no command 'keys nope'"),
    "help below a command": (["help", "check", "x"], 2, "there is no command 'check x'"),
}


@pytest.mark.parametrize(("words", "status", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_in_plain_words(words: list[str], status: int, said: str) -> None:
    shown = gatepass(*words)
    assert said in shown.output
    assert "Traceback" not in shown.output
    assert "CANARY" not in shown.output
    assert shown.exit_code == status
    assert shown.exception is None or isinstance(shown.exception, SystemExit)


VALID = "the configuration is valid: 1 route, 1 credential, 0 clients\n"
PRINTING = [
    "schema",
    "routes",
    "check",
    "keys new web",
    "keys new admin",
    "keys --help",
    "init",
    "init uqudo",
    "help",
    "version",
    "--version",
    "--help",
]
on_full_disk = pytest.mark.skipif(not FULL.exists(), reason="Linux has /dev/full")


@on_full_disk
@pytest.mark.parametrize(
    ("words", "unbuffered"), [*((words, "") for words in PRINTING), ("schema", "1"), ("help", "1")]
)
def test_a_full_disk_is_told_in_one_line(words: str, unbuffered: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    with FULL.open("w") as full:
        ended = run(words, tmp_path, full, unbuffered=unbuffered)
    assert (ended.returncode, ended.stderr.removeprefix(VALID)) == (1, "Error: no space left on device\n")


@on_full_disk
@pytest.mark.parametrize("words", ["routes", "routes -c nope.yaml", "nope", "status --url localhost:9"])
def test_a_full_disk_for_errors_is_no_success(words: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    with FULL.open("w") as full:
        ended = run(words, tmp_path, full, full)
    assert ended.returncode == 1


@on_full_disk
def test_a_sandbox_on_a_full_disk_does_not_blame_its_address(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        ended = run("sandbox", tmp_path, full)
    assert (ended.returncode, ended.stderr) == (1, "Error: no space left on device\n")


@pytest.mark.parametrize("kilobytes", [0, 2])
def test_a_configuration_that_does_not_fit_leaves_no_file(kilobytes: int, tmp_path: Path) -> None:
    """A limit of file sizes stands for a full disk: zero fits nothing; two fit config.yaml, but not the schema."""
    words = [sys.executable, "-m", "gateway", "init", "uqudo", "-o", "config.yaml"]
    ended = subprocess.run(
        ["/bin/bash", "-c", f"ulimit -f {kilobytes}; exec {shlex.join(words)}"],
        cwd=tmp_path,
        env=environ() | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 2
    assert f"cannot write {'gatepass.schema.json' if kilobytes else 'config.yaml'}: file too large" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "unbuffered"), [*((words, "") for words in PRINTING), ("schema", "1"), ("help", "1")]
)
def test_a_closed_pipe_is_no_error_to_tell(words: str, unbuffered: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        ended = run(words, tmp_path, theirs, unbuffered=unbuffered)
    finally:
        os.close(theirs)
    assert (ended.returncode, ended.stderr.removeprefix(VALID)) == (1, "")


@pytest.mark.parametrize("words", ["schema", "routes"])
def test_a_closed_output_is_no_traceback(words: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    command = f"exec {sys.executable} -m gateway {words} >&-"
    ended = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=tmp_path,
        env=environ(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "Traceback" not in ended.stderr


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(
    words: str,
    folder: Path,
    stdout: int | IO[str],
    stderr: int | IO[str] = subprocess.PIPE,
    *,
    unbuffered: str = "",
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *words.split()],
        cwd=folder,
        env={**environ(), "PYTHONUNBUFFERED": unbuffered},
        stdout=stdout,
        stderr=stderr,
        text=True,
        timeout=100,
        check=False,
    )


def test_help_shows_what_the_option_shows() -> None:
    assert gatepass("help").output == gatepass("--help").output
    for words in (["check"], ["keys"], ["keys", "new"]):
        shown, option = gatepass("help", *words).output, gatepass(*words, "--help").output
        assert shown.partition("\n\n")[2] == option.partition("\n\n")[2]
        assert " ".join(words) in shown.splitlines()[0]


def test_version_shows_what_the_option_shows() -> None:
    assert gatepass("version").output == gatepass("--version").output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_completion_works(shell: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert f"_GATEPASS_COMPLETE={shell}_source gatepass" in page
    ended = subprocess.run(
        [sys.executable, "-m", "gateway"],
        cwd=tmp_path,
        env={**environ(), "_GATEPASS_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "_GATEPASS_COMPLETE" in ended.stdout
    assert "Traceback" not in ended.stderr


def test_a_key_for_the_admin_port_comes_with_its_own_lines(tmp_path: Path) -> None:
    lines = gatepass("keys", "new", "admin").output.partition("# For the configuration:\n")[2]
    (tmp_path / "config.yaml").write_text(CONFIG + lines)
    assert len(yaml.safe_load(lines)["admin_keys_sha256"]) == 1
    assert gatepass("check", "--offline", "-c", str(tmp_path / "config.yaml")).exit_code == 0


def test_init_writes_the_schema_beside_the_configuration_for_editors(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    shown = gatepass("init", "uqudo", "-o", str(path))
    assert shown.exit_code == 0, shown.output
    first = path.read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=./gatepass.schema.json"
    schema = json.loads((tmp_path / "gatepass.schema.json").read_text())
    assert json.dumps(schema, indent=2) + "\n" == gatepass("schema").output
    validator = jsonschema.Draft202012Validator(schema)
    document = yaml.safe_load(path.read_text())
    assert list(validator.iter_errors(document)) == []
    document["credentials"]["uqudo"]["client_sceret"] = "x"
    document["limits"] = {"header_timeout": "5 minutes", "head_bytes": "64 kib"}
    assert len(list(validator.iter_errors(document))) == 2, "one in each section"


@pytest.mark.parametrize("text", ["{}", '{"title": "Another"}', "not JSON", "[]"])
def test_init_keeps_a_schema_file_that_is_somebody_else_s(text: str, tmp_path: Path) -> None:
    schema = tmp_path / "gatepass.schema.json"
    schema.write_text(text)
    shown = gatepass("init", "uqudo", "-o", str(tmp_path / "config.yaml"))
    assert (shown.exit_code, "is not the schema of gatepass" in shown.output) == (2, True)
    assert schema.read_text() == text
    assert not (tmp_path / "config.yaml").exists()


def test_init_renews_the_schema_of_another_version(tmp_path: Path) -> None:
    schema = tmp_path / "gatepass.schema.json"
    schema.write_text('{"title": "Gatepass configuration"}')
    assert gatepass("init", "uqudo", "-o", str(tmp_path / "config.yaml")).exit_code == 0
    assert schema.read_text() == gatepass("schema").output


def test_init_on_standard_output_names_no_schema() -> None:
    assert "$schema" not in gatepass("init", "uqudo").output


@pytest.mark.parametrize(
    "words", [["check"], ["check", "--show"], ["routes"], ["routes", "--client", "x", "GET", "/acme"]]
)
def test_a_pipeline_without_secrets_can_look_at_a_configuration(words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    client = "clients: [{name: x, key_sha256: '${KEY}'}]\n"
    path.write_text(client + CONFIG.replace("CANARY-static-key", '"${ACME_KEY}"'))
    refused = gatepass(*words, "-c", str(path))
    assert refused.exit_code == 2
    shown = gatepass(*words[:1], "--no-secrets", *words[1:], "-c", str(path))
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize("folder", ["/run/secrets", "a b", "x: y", "#x", '"', "ü", "😀", "a/"])
def test_init_writes_references_to_files_that_yaml_reads_back(folder: str) -> None:
    text = gatepass("init", "uqudo", "--secret-files", folder).stdout
    made = yaml.safe_load(text)["credentials"]["uqudo"]["client_secret"]
    assert made == f"${{file:{folder.rstrip('/')}/uqudo_client_secret}}"


def test_a_key_with_a_line_end_or_an_escape_is_one_plain_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG + '"a\\nb\\e[2J": 1\n')
    shown = gatepass("check", "-c", str(tmp_path / "config.yaml"))
    assert [line.partition(": ")[2] for line in shown.stderr.splitlines()] == ["a\ufffdb\ufffd[2J: unknown key"]


def test_what_the_terminal_cannot_encode_is_escaped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "init", "uqudo"]
    environ = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert "key_sha256: \\u2026" in shown.stdout


def test_text_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_new(tmp_path / "x", "\udcff")
    assert not list(tmp_path.iterdir())
