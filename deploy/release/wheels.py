"""Build wheels with the compiled hot path, for each supported Python that is there, and try each of them.

For `make wheels`: `python wheels.py DIST [PYTHON…]`. Without names it looks for python3.11 to python3.13 on the path
and in pyenv. For each Python it builds in a new environment from hashed requirements, and lets auditwheel tag the wheel
with the oldest platform that it runs on. Then it installs the wheel in another new environment, imports the compiled
modules, and runs the demo, which sends requests through a gateway. It keeps no wheel that fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORTED = ("3.11", "3.12", "3.13")
TRIES = 3
"""Of the demo, because some of its claims are about time, and a busy machine may break them."""
REQUIREMENTS = ROOT / "requirements"
TRIAL = """
import importlib.util, pathlib, platform
import gateway.proxy.handler, gateway.tokens.cache
for module in (gateway.proxy.handler, gateway.tokens.cache):
    assert pathlib.Path(module.__file__).suffix == ".so", module.__file__
    assert "site-packages" in module.__file__, module.__file__
"""


def run(*command: str | Path, **environ: str) -> str:
    """Return a command's standard output; exit with its error output if it fails."""
    done = subprocess.run(  # noqa: S603 - our own commands
        [str(part) for part in command], capture_output=True, text=True, check=False, env=os.environ | environ,
        cwd=environ.get("PWD"),
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(str(part) for part in command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def interpreters() -> dict[str, Path]:
    """Return the supported Pythons that are there, by version."""
    found = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for version in SUPPORTED:
        here = [Path(path) for path in [shutil.which(f"python{version}")] if path]
        here += sorted(pyenv.glob(f"{version}.*/bin/python{version}"))
        for path in here:
            done = subprocess.run([path, "-c", "import sysconfig, venv"], capture_output=True, check=False)  # noqa: S603
            if done.returncode == 0:
                found[version] = path
                break
    return found


def environment(python: Path, folder: Path, *requirements: str) -> Path:
    """Create a virtual environment with hashed requirements; return its interpreter."""
    run(python, "-m", "venv", folder)
    inside = folder / "bin" / "python"
    arguments = [part for name in requirements for part in ("-r", str(REQUIREMENTS / name))]
    run(inside, "-m", "pip", "install", "--quiet", "--require-hashes", *arguments)
    return inside


def built(python: Path, folder: Path) -> Path:
    """Return the wheel with the compiled hot path, tagged with the platforms that it runs on."""
    inside = environment(python, folder / "build", "build.txt", "compile.txt")
    raw, repaired = folder / "raw", folder / "repaired"
    source = folder / "source"  # setuptools builds in the source's folder, and each Python needs its own
    shutil.copytree(ROOT / "gateway", source / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source)
    run(inside, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", raw, source,
        GATEPASS_COMPILE="1")  # fmt: skip
    (wheel,) = raw.glob("*.whl")
    run(sys.executable, "-m", "auditwheel", "repair", "--strip", "--wheel-dir", repaired, wheel,
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # fmt: skip
    (wheel,) = repaired.glob("*.whl")
    return wheel


def tried(python: Path, wheel: Path, folder: Path) -> str:
    """Install the wheel in a fresh environment and use it; return what it says of its version."""
    inside = environment(python, folder / "trial", "run.txt")
    run(inside, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    run(inside, "-I", "-c", TRIAL)
    demonstrate(inside.with_name("gatepass"), folder)
    return run(inside.with_name("gatepass"), "--version", PWD=str(folder)).strip()


def demonstrate(program: Path, folder: Path) -> None:
    """Run the demo, up to `TRIES` times; exit if none is good."""
    for _ in range(TRIES - 1):
        done = subprocess.run([program, "demo"], capture_output=True, check=False, cwd=folder)  # noqa: S603
        if done.returncode == 0:
            return
    run(program, "demo", PWD=str(folder))


def main(dist: Path, names: list[str]) -> int:
    """Build and try each wheel; say which Pythons were missing."""
    pythons = {name: Path(name) for name in names} or interpreters()
    dist.mkdir(exist_ok=True)
    for python in pythons.values():
        with tempfile.TemporaryDirectory() as folder:
            wheel = built(python, Path(folder))
            said = tried(python, wheel, Path(folder))
            shutil.copy2(wheel, dist)
            sys.stdout.write(f"{wheel.name}: {said}, built and tried with {python}\n")
            sys.stdout.flush()
    for version in SUPPORTED:
        if not names and version not in pythons:
            sys.stdout.write(f"NOT BUILT: there is no Python {version} on this machine\n")
    return 0 if pythons else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
