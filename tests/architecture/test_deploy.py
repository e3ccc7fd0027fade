"""What lies in deploy/ is right: each file is read by the tool that will read it, and agrees with the gateway."""

from __future__ import annotations

import configparser
import itertools
import re
import shlex
import sys
import textwrap
import tomllib
from typing import TYPE_CHECKING

import pytest
import trustme
import yaml

from gateway.config import load
from tests.kit.configuration import ROOT
from tests.kit.gateway import one_route
from tests.kit.tools import SBIN, documents, run, tool

if TYPE_CHECKING:
    from pathlib import Path

DEPLOY = ROOT / "deploy"
EVERY_YAML = sorted(path for path in DEPLOY.rglob("*.yaml") if path.parent.name != "templates")


@pytest.mark.parametrize("path", EVERY_YAML, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_yaml_file_is_one(path: Path) -> None:
    assert all(isinstance(document, dict) for document in documents(path))


# -------------------------------------------------------------------------------------------------------------- systemd


def test_the_units_are_what_systemd_understands(tmp_path: Path) -> None:
    for name in ("gatepass.service", "gatepass.socket"):
        text = (DEPLOY / "systemd" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("/opt/gatepass/bin/gatepass", "/bin/true"))
    analyze = tool("systemd-analyze", SBIN)
    said = run(analyze, "verify", "--man=no", str(tmp_path / "gatepass.service"), str(tmp_path / "gatepass.socket"))
    assert "gatepass" not in said, said


def test_failed_starts_never_end_the_service_or_its_socket() -> None:
    """With the default limit five quick ones end both for good. `make deploy-test` does this with a real systemd."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[method-assign, assignment]
    unit.read(DEPLOY / "systemd" / "gatepass.service")
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Service"]["Restart"] == "always"
    assert "kill -TERM $MAINPID; while" in unit["Service"]["ExecStop"], "the successor of an upgrade would be killed"
    hardened = {"MemoryDenyWriteExecute": "yes", "PrivateMounts": "yes", "DevicePolicy": "closed"}
    assert hardened.items() <= dict(unit["Service"]).items()


def test_the_service_s_exposure_is_low() -> None:
    said = run(
        tool("systemd-analyze", SBIN),
        "security",
        "--offline=yes",
        "--no-pager",
        str(DEPLOY / "systemd" / "gatepass.service"),
    )
    score = float(re.findall(r"exposure level for gatepass.service: ([\d.]+)", said)[0])
    assert score <= 1.2, said
    assert f"exposure {score}" in (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------ nginx and Caddy


def test_nginx_takes_the_snippet(tmp_path: Path) -> None:
    cert = trustme.CA().issue_cert("gatepass.internal")
    cert.private_key_pem.write_to_path(str(tmp_path / "tls.key"))
    cert.cert_chain_pems[0].write_to_path(str(tmp_path / "tls.crt"))
    snippet = (DEPLOY / "nginx" / "gatepass.conf").read_text(encoding="utf-8")
    (tmp_path / "gatepass.conf").write_text(snippet.replace("/etc/gatepass/tls", str(tmp_path)))
    temporary = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    http = f"access_log off; {temporary} include {tmp_path}/gatepass.conf;"
    text = f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ {http} }}"
    (tmp_path / "nginx.conf").write_text(text)
    said = run(tool("nginx", SBIN), "-t", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path))
    assert "syntax is ok" in said
    assert "[warn]" not in said


def test_nginx_waits_longer_than_the_gateway_and_says_what_the_gateway_must_know(tmp_path: Path) -> None:
    snippet = (DEPLOY / "nginx" / "gatepass.conf").read_text(encoding="utf-8")
    path = tmp_path / "config.yaml"
    advised = "trusted_proxies: [127.0.0.1/32]", "drain: {grace: 2s}"
    assert all(f"#   {line} " in snippet for line in advised)
    path.write_text("\n".join([*advised, yaml.safe_dump(one_route(1))]))
    config = load([path], environ={"CANARY": "CANARY"})
    (route,) = config.routes
    once = route.pool.wait + route.timeouts.connect + route.timeouts.first_byte
    wait = {key: float(value) for key, value in re.findall(r"proxy_(read|send)_timeout +(\d+)s;", snippet)}
    assert wait["read"] > 2 * (once + config.token_timeout)
    assert wait["send"] > route.timeouts.idle


def test_caddy_takes_the_snippet() -> None:
    said = run(tool("caddy"), "validate", "--config", str(DEPLOY / "caddy" / "Caddyfile"), "--adapter", "caddyfile")
    assert "Valid configuration" in said


# ---------------------------------------------------------------------------------------------------------------- image


DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").rglob("*.md")]
RUNS = [
    pytest.param(command, id=f"{path.name}-{number}")
    for path in DOCUMENTS
    for number, command in enumerate(
        re.findall(r"^docker run (?:.*\\\n)*.*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
]


def test_the_documents_show_how_to_run_the_image() -> None:
    assert len(RUNS) >= 2


@pytest.mark.parametrize("command", RUNS)
def test_every_docker_run_that_serves_drains_has_files_enough_and_mounts_folders(command: str) -> None:
    words = shlex.split(command)
    options = dict(itertools.pairwise(words))
    assert int(options["--stop-timeout"]) >= 40
    assert options["--ulimit"] == "nofile=32768"
    mounts = [after for word, after in itertools.pairwise(words) if word in {"-v", "--volume"}]
    assert mounts
    assert not [mount for mount in mounts if "." in mount.split(":")[1]], "a single file keeps its old content after mv"


def test_the_dockerfile_follows_the_rules_of_its_linter() -> None:
    run(tool("hadolint"), str(ROOT / "Dockerfile"))


def test_the_images_bytecode_holds_whatever_age_a_layer_gives_its_sources(tmp_path: Path) -> None:
    """Also that of modules that were imported before: if theirs went stale, each start would compile them."""
    (tmp_path / "pinned.py").write_text("ANSWER = 42\n")
    script = f"""
        import os, runpy, sys
        sys.path.insert(0, {str(tmp_path)!r})
        sys.dont_write_bytecode = False
        import pinned
        runpy.run_path({str(DEPLOY / "image" / "compile.py")!r})["compile_folder"]({str(tmp_path)!r})
        os.utime({str(tmp_path / "pinned.py")!r}, (1, 1))
    """
    run(sys.executable, "-X", f"pycache_prefix={tmp_path / 'cache'}", "-c", textwrap.dedent(script))
    [compiled] = (tmp_path / "cache").rglob("pinned.*.pyc")
    assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01, "PEP 552: by hash, not checked"
    again = run(
        sys.executable,
        "-v",
        "-X",
        f"pycache_prefix={tmp_path / 'cache'}",
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import pinned",
    )
    assert "stale" not in again
    assert f"matches {tmp_path / 'pinned.py'}" in again


def test_what_is_installed_from_hashes_has_every_extra() -> None:
    """The image has no pip, so nobody can add an extra to it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / "run.txt").read_text("utf-8"), re.MULTILINE))
    wanted = {re.split(r"[\[<>=~! ]", each)[0] for needs in extras.values() for each in needs}
    assert wanted <= pinned


def test_the_image_gets_everything_that_its_dockerfile_copies() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
                top = source.split("/")[0]
                assert any(kept.removeprefix("!").startswith(top) for kept in ignored if kept.startswith("!")), source
