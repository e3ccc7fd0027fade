"""Assemble the image's root folder: Python, the gateway and what they load; no shell, package manager or setuid file.

For the image's build, run by the base image's Python: `python root.py TARGET VENV`. It copies the interpreter and its
standard library (without tests, IDLE, Tk and pip), the virtual environment, the shared libraries that these need, CA
certificates, time zones, and the files by which libc finds users and hosts. For each Debian package of which it copies
a file it also copies the copyright and the entry in the package list, because scanners read `/var/lib/dpkg/status.d`.
Python is not a Debian package in official images: its version is in `/var/lib/gatepass/python-version`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

STDLIB = Path(sysconfig.get_path("stdlib"))
UNUSED = shutil.ignore_patterns(
    "__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "ensurepip", "lib2to3",
    "pydoc_data", "config-*", "site-packages", "_tkinter.*", "_test*", "_ctypes_test*", "_xx*", "xxlimited*",
    "_curses*", "_dbm.*", "_gdbm.*", "readline.*", "_sqlite3.*",
)  # fmt: skip
FILES = (
    "/etc/debian_version", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/os-release", "/etc/protocols", "/etc/services",
    "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/openssl.cnf", "/usr/lib/os-release", "/usr/lib/ssl/openssl.cnf",
    "/usr/share/zoneinfo",
)  # fmt: skip
PACKAGES = ("ca-certificates", "netbase", "tzdata", "base-files")
"""Of the files above; those of the libraries are found."""
WRITTEN = {
    "/var/lib/gatepass/python-version": f"{sys.version.split()[0]}\n",
    "/etc/passwd": "root:x:0:0:root:/:/nonexistent\ngatepass:x:10001:10001::/:/nonexistent\n",
    "/etc/group": "root:x:0:\ngatepass:x:10001:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
LINKS = {"/bin": "usr/bin", "/lib": "usr/lib", "/lib64": "usr/lib64", "/usr/lib/ssl/certs": "/etc/ssl/certs",
         "/usr/lib/ssl/cert.pem": "/etc/ssl/certs/ca-certificates.crt"}  # fmt: skip


def output(*command: str) -> str:
    """Return what a command prints; raises CalledProcessError."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - ours alone


class Root:
    """The folder that becomes the image."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.copied: set[str] = set()
        """Real paths of what came from Debian packages."""

    def at(self, path: str | Path) -> Path:
        """Return the place of an absolute path in this root."""
        return self.target / str(path).lstrip("/")

    def copy(self, path: str | Path) -> None:
        """Copy a file or folder to the same place; of a link, the link and what it names."""
        source, place = Path(path), self.at(path)
        if place.is_symlink() or (place.exists() and not source.is_dir()):
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("posix", "right"))  # fmt: skip
        else:
            shutil.copy2(source, place, follow_symlinks=False)
            self.copied.add(os.path.realpath(source))
        if source.is_symlink():
            self.copy(Path(os.path.normpath(source.parent / source.readlink())))

    def python(self) -> None:
        """Copy the interpreter and its standard library."""
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        program = Path(sys.base_prefix, "bin", name)
        self.copy(program)
        for alias in ("python3", "python"):
            self.at(program.with_name(alias)).symlink_to(name)
        shutil.copytree(STDLIB, self.at(STDLIB), symlinks=True, ignore=UNUSED)

    def libraries(self) -> None:
        """Copy what the programs and libraries of this root load, and the loader; write the loader's cache."""
        for path in [each for each in self.target.rglob("*") if is_elf(each)]:
            said = subprocess.run(  # noqa: S603 - the files are ours
                ["/usr/bin/ldd", f"/{path.relative_to(self.target)}"], capture_output=True, text=True, check=False
            ).stdout
            if missing := re.findall(r"^\s*(\S+) => not found", said, re.MULTILINE):
                sys.exit(f"{path} needs {', '.join(missing)}")
            for found in re.findall(r"^\s*(?:\S+ => )?(/\S+) \(0x", said, re.MULTILINE):
                self.library(Path(found))
        output("/sbin/ldconfig", "-r", str(self.target))
        shutil.rmtree(self.at("/var/cache"), ignore_errors=True)

    def library(self, path: Path) -> None:
        """Copy a library below /usr, where /lib leads on Debian; under the name that the loader asks for."""
        where = path.parent.resolve() / path.name
        if not where.is_relative_to(self.target):
            self.copy(where)

    def package_list(self) -> None:
        """Copy copyright and list entry of each Debian package of which this root has a file."""
        names = set(PACKAGES)
        for path in sorted(self.copied):
            for form in (path, path.removeprefix("/usr")):  # /lib is a link to /usr/lib; the package says either
                done = subprocess.run(  # noqa: S603
                    ["/usr/bin/dpkg-query", "--search", form], capture_output=True, text=True, check=False
                )
                names |= set(re.findall(r"^([^:,\s]+)(?::\w+)?: ", done.stdout, re.MULTILINE))
        for name in sorted(names):
            self.copy(Path("/usr/share/doc", name, "copyright"))
            entry = self.at(f"/var/lib/dpkg/status.d/{name}")
            entry.parent.mkdir(parents=True, exist_ok=True)
            entry.write_text(output("/usr/bin/dpkg-query", "--status", name), encoding="utf-8")

    def strip(self) -> None:
        """Take debug information and symbol tables out of every program and library."""
        for path in self.target.rglob("*"):
            if is_elf(path):
                path.chmod(0o755)
                output("/usr/bin/strip", "--strip-unneeded", str(path))

    def settle(self) -> None:
        """Take away setuid bits and the right of others to write, and give everything the time SOURCE_DATE_EPOCH."""
        when = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
        for path in [*self.target.rglob("*"), self.target]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o755)
        self.at("/tmp").mkdir()  # noqa: S108 - a folder of the image
        self.at("/tmp").chmod(0o1777)  # noqa: S108
        for path in [*self.target.rglob("*"), self.target]:
            os.utime(path, (when, when), follow_symlinks=False)


def is_elf(path: Path) -> bool:
    """Return whether a file is a program or library."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def main(target: Path, venv: Path) -> None:
    """Assemble the root."""
    root = Root(target)
    for link, to in LINKS.items():
        root.at(link).parent.mkdir(parents=True, exist_ok=True)
        root.at(to if to.startswith("/") else f"/{to}").parent.mkdir(parents=True, exist_ok=True)
        root.at(link).symlink_to(to)
    for folder in ("/usr/bin", "/usr/lib", "/usr/lib64", "/etc/gatepass"):
        root.at(folder).mkdir(parents=True, exist_ok=True)
    root.python()
    shutil.copytree(venv, root.at(venv), symlinks=True)
    for path in FILES:
        root.copy(path)
    root.libraries()
    root.package_list()
    for path, text in WRITTEN.items():
        root.at(path).parent.mkdir(parents=True, exist_ok=True)
        root.at(path).write_text(text, encoding="utf-8")
    root.strip()
    root.settle()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
