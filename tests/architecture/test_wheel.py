"""The wheel is whole: it runs far from the checkout, profiles and schema included.

Built from a copy of what a source archive holds, and installed into a virtual environment of its own that borrows the
dependencies of the one that runs the tests: so neither needs the network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from gateway import __version__

ROOT = Path(__file__).parents[2]
PROFILES = sorted(path.stem for path in (ROOT / "gateway" / "config" / "profiles").glob("*.yaml"))


def run(*command: str | Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run without the variables that would let the checkout shine through."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GATEPASS"))}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=plain | environ, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "gateway", source / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    built = run(*pip, "--wheel-dir", source / "dist", source, cwd=source)
    assert built.returncode == 0, built.stderr
    return next((source / "dist").glob("gatepass-*.whl"))


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the checkout, with a virtual environment `venv` in which only the wheel holds `gateway`."""
    home = tmp_path_factory.mktemp("home")
    venv.create(home / "venv", symlinks=True, with_pip=False)
    site = next((home / "venv" / "lib").glob("python3*/site-packages"))
    # A path in a .pth file is searched, but the .pth files in it are not run: an editable install there stays dark.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        home / "venv" / "bin" / "python",
        "install",
        "--quiet",
    ]
    installed = run(*pip, "--no-deps", "--no-index", wheel, cwd=home)
    assert installed.returncode == 0, installed.stderr
    return home


def test_the_wheel_and_nothing_else_is_what_runs(home: Path) -> None:
    found = run(home / "venv/bin/python", "-c", "import gateway; print(gateway.__file__)", cwd=home)
    assert Path(found.stdout.strip()).is_relative_to(home / "venv")


def test_the_version_is_the_package_s(home: Path) -> None:
    assert run(home / "venv/bin/gatepass", "--version", cwd=home).stdout == f"gatepass {__version__}\n"


def test_the_schema_comes_out(home: Path) -> None:
    shown = run(home / "venv/bin/gatepass", "schema", cwd=home)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert '"credentials"' in shown.stdout


def test_every_profile_is_in_the_wheel(home: Path) -> None:
    shown = run(home / "venv/bin/gatepass", "init", cwd=home)
    assert shown.returncode == 0, shown.stderr
    assert [name for name in PROFILES if name not in shown.stdout] == []


def test_a_configuration_that_it_begins_passes_its_own_check(home: Path) -> None:
    gatepass = home / "venv/bin/gatepass"
    begun = run(gatepass, "init", *PROFILES, "--output", "config.yaml", cwd=home)
    assert begun.returncode == 0, begun.stderr
    names = re.findall(r"\$\{(\w+)\}", (home / "config.yaml").read_text(encoding="utf-8"))
    assert names
    checked = run(gatepass, "check", "--offline", cwd=home, **dict.fromkeys(names, "CANARY-value"))
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stderr
    assert f"{len(PROFILES)} credentials" in checked.stderr
