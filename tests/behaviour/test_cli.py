"""The command line without a network: help, configuration mistakes, keys, the beginning of a configuration."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from gateway.cli import main

ROOT = Path(__file__).parents[2]
READING_A_CONFIG = ["serve", "check", "routes", "token acme"]
CONFIG = """\
listen: 127.0.0.1:0
admin: 127.0.0.1:0
credentials:
  acme: {static: {token: CANARY-static-key}}
routes:
  acme: {credential: acme, upstream: "https://api.acme.example"}
"""
MISTAKEN = CONFIG + "  ledger: {credential: acme, upstream: 'https://ledger.example', timeout: 3}\nlisten_on: 1\n"


def gatepass(*args: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, args)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def leaves(group: click.Group, *before: str) -> list[tuple[str, ...]]:
    """Return the words of every command, those of nested groups included."""
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        words = (*before, name)
        found += leaves(command, *words) if isinstance(command, click.Group) else [words]
    return found


@pytest.mark.parametrize("words", leaves(main), ids=" ".join)
def test_every_command_shows_an_example_of_itself(words: tuple[str, ...]) -> None:
    shown = gatepass(*words, "--help")
    assert shown.exit_code == 0
    assert f"$ gatepass {' '.join(words)}" in shown.output


@pytest.mark.parametrize("words", leaves(main), ids=" ".join)
def test_every_command_is_on_the_page(words: tuple[str, ...]) -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert f"| `gatepass {' '.join(words)}" in page


@pytest.mark.parametrize("also", ["", ", gateway.commands.look"], ids=["help", "health"])
def test_help_and_health_load_nothing_heavy(also: str) -> None:
    """`gatepass --help` and a container's health check run often: they must not pay for the rest."""
    heavy = "{'aiohttp', 'asyncio', 'pydantic', 'rich', 'structlog', 'yaml', 'jwt'}"
    code = f"import sys, gateway.cli{also}; print(*({heavy} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == []


@pytest.mark.parametrize("words", READING_A_CONFIG)
def test_each_mistake_has_its_line_on_stderr_and_the_status_is_2(words: str, config: Path) -> None:
    config.write_text(MISTAKEN, encoding="utf-8")
    shown = gatepass(*words.split(), "-c", "config.yaml")
    assert (shown.exit_code, shown.stdout) == (2, "")
    lines = shown.stderr.splitlines()
    assert len(lines) == 2
    assert any(line.startswith("config.yaml:7: routes.ledger.timeout: ") and "timeouts" in line for line in lines)
    assert any(line.startswith("config.yaml:8: listen_on: ") for line in lines)


@pytest.mark.parametrize("words", READING_A_CONFIG)
def test_a_missing_file_is_named_and_the_status_is_2(words: str, config: Path) -> None:
    shown = gatepass(*words.split(), "-c", f"{config}.not-there")
    assert shown.exit_code == 2
    assert "config.yaml.not-there" in shown.stderr


def test_serve_opens_no_port_for_a_mistaken_configuration(tmp_path: Path) -> None:
    """The mistake wins over a port that is taken: had it tried to listen, it would have said so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = MISTAKEN.replace("listen: 127.0.0.1:0", f"listen: 127.0.0.1:{taken.getsockname()[1]}")
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "gateway", "serve", "-c", str(tmp_path / "config.yaml")]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert "timeouts" in ended.stderr
    assert "in use" not in ended.stderr


def test_later_files_and_the_variable_are_read(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (config.parent / "more.yaml").write_text("routes:\n  acme: {prefix: /later}\n", encoding="utf-8")
    by_option = gatepass("routes", "-c", "config.yaml", "-c", "more.yaml")
    monkeypatch.setenv("GATEPASS_CONFIG", "config.yaml:more.yaml")
    by_variable = gatepass("routes")
    assert "/later/*" in by_option.stdout
    assert by_option.stdout == by_variable.stdout


@pytest.mark.usefixtures("config")
def test_routes_shows_where_each_prefix_leads() -> None:
    shown = gatepass("routes")
    assert shown.exit_code == 0
    assert "/acme/*" in shown.stdout
    assert "https://api.acme.example" in shown.stdout
    assert "injects token of" in shown.stdout


@pytest.mark.usefixtures("config")
def test_check_show_masks_what_is_secret() -> None:
    shown = gatepass("check", "--offline", "--show")
    assert shown.exit_code == 0, shown.stderr
    assert "api.acme.example" in shown.stdout
    assert "CANARY" not in shown.output


@pytest.mark.usefixtures("config")
def test_an_unknown_credential_gets_the_nearest_name() -> None:
    shown = gatepass("token", "acne")
    assert shown.exit_code == 2
    assert "did you mean acme?" in shown.stderr


def test_schema_is_a_json_schema_of_the_documented_keys() -> None:
    schema = json.loads(gatepass("schema").stdout)
    assert {"listen", "credentials", "routes"} <= set(schema["properties"])


def test_a_new_key_is_shown_once_and_only_its_hash_is_for_the_configuration(config: Path) -> None:
    shown = gatepass("keys", "new", "billing", "--route", "acme").stdout
    key = next(line for line in shown.splitlines() if line.startswith("gp_"))
    assert shown.count(key) == 1
    lines = shown.partition("# For the configuration:\n")[2]
    [client] = yaml.safe_load(lines)["clients"]
    assert client == {"name": "billing", "key_sha256": hashlib.sha256(key.encode()).hexdigest(), "routes": ["acme"]}
    (config.parent / "clients.yaml").write_text(lines, encoding="utf-8")
    checked = gatepass("check", "--offline", "-c", "config.yaml", "-c", "clients.yaml")
    assert "1 client" in checked.stderr


def test_init_lists_every_profile_and_leaves_an_existing_file_alone(config: Path) -> None:
    names = [path.stem for path in (ROOT / "gateway" / "config" / "profiles").glob("*.yaml")]
    listed = gatepass("init").stdout
    assert [name for name in names if name not in listed] == []
    refused = gatepass("init", names[0], "--output", "config.yaml")
    assert refused.exit_code == 2
    assert config.read_text(encoding="utf-8") == CONFIG


def test_init_suggests_the_nearest_vendor() -> None:
    [name, *_] = (path.stem for path in (ROOT / "gateway" / "config" / "profiles").glob("*.yaml"))
    refused = gatepass("init", f"{name}x")
    assert refused.exit_code == 2
    assert f"did you mean {name}?" in refused.stderr


def test_health_of_nobody_is_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    shown = gatepass("health", "--url", f"http://127.0.0.1:{port}")
    assert shown.exit_code == 1
    assert shown.stderr
