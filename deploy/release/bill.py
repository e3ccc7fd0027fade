"""Write a bill of materials (CycloneDX 1.6) of the wheel or of the image, and check that it says what it should.

For `make release`, run by the Python that has cyclonedx-bom:

    bill.py OUTPUT --python .../venv/bin/python     what the wheel needs, as installed in that environment
    bill.py OUTPUT --root FOLDER                    the files of the image

cyclonedx-py finds the Python packages with their licences and dependencies. This adds the version of the root
component, Python, and the Debian packages of the image.
Exit status 1: the bill has a component without version or licence, or is not valid.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ASKED = "import platform, sysconfig; print(platform.python_version()); print(sysconfig.get_path('purelib'))"
TOP = "root-component"
"""The reference that cyclonedx-py gives to the component that the bill is about."""


def version() -> str:
    """Return the gateway's version."""
    text = (ROOT / "gateway" / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)[0]


def packages(python: Path) -> dict[str, Any]:
    """Return the bill of the Python packages that this interpreter sees."""
    command = [str(Path(sys.executable).with_name("cyclonedx-py")), "environment", "--pyproject", "pyproject.toml",
               "--output-reproducible", "--output-format", "JSON", str(python.absolute())]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT)  # noqa: S603 - our own command
    return dict(json.loads(done.stdout))


def packages_below(site_packages: Path) -> dict[str, Any]:
    """Return the bill of the packages in a folder, whose own interpreter need not run here."""
    with tempfile.TemporaryDirectory() as folder:
        shim = Path(folder, "python")  # cyclonedx-py asks an interpreter for its sys.path
        shim.write_text(f"#!{sys.executable} -I\nimport json, sys\njson.dump([{str(site_packages)!r}], sys.stdout)\n")
        shim.chmod(0o755)
        return packages(shim)


def with_licences(bill: dict[str, Any], site_packages: Path) -> dict[str, Any]:
    """Return the bill with the licences that cyclonedx-py has left out although the packages' metadata name them."""
    named = {each.name.lower(): each.metadata.get("License") for each in distributions(path=[str(site_packages)])}
    for each in bill["components"]:
        if not each.get("licenses") and (text := named.get(each["name"].lower())):
            each["licenses"] = [{"license": {"name": text, "acknowledgement": "declared"}}]
    return bill


def python_component(number: str) -> dict[str, Any]:
    """Return Python as a component."""
    return {
        "type": "platform", "bom-ref": f"python=={number}", "name": "python", "version": number,
        "licenses": [{"license": {"id": "PSF-2.0", "acknowledgement": "declared"}}],
        "purl": f"pkg:generic/python@{number}", "cpe": f"cpe:2.3:a:python:python:{number}:*:*:*:*:*:*:*",
    }  # fmt: skip


def debian(root: Path) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """Return the Debian packages of an image, and which depends on which."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', (root / "etc/os-release").read_text(), re.MULTILINE))
    entries = {}
    for path in sorted((root / "var/lib/dpkg/status.d").iterdir()):
        entries[path.name] = dict(re.findall(r"^([\w-]+): (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE))
    references = {name: f"deb:{name}=={entry['Version']}" for name, entry in entries.items()}
    components = [
        {
            "type": "library", "bom-ref": references[name], "name": name, "version": entry["Version"],
            "licenses": debian_licences(root / "usr/share/doc" / name / "copyright"),
            "purl": f"pkg:deb/debian/{name}@{entry['Version'].replace('+', '%2B')}"
                    f"?arch={entry['Architecture']}&distro=debian-{release['VERSION_ID']}",
        }
        for name, entry in entries.items()
    ]  # fmt: skip
    edges = {
        references[name]: sorted({
            references[other] for other in re.findall(r"[a-z0-9][a-z0-9.+-]+", entry.get("Depends", ""))
            if other in references
        })
        for name, entry in entries.items()
    }  # fmt: skip
    return components, edges


def debian_licences(copyright_file: Path) -> list[dict[str, Any]]:
    """Return the licences that a Debian copyright file names: by DEP-5, by the common licences, or the file itself."""
    text = copyright_file.read_text(encoding="utf-8", errors="replace")
    names = sorted({name.strip() for name in re.findall(r"^License: *(\S.*)$", text, re.MULTILINE)})
    names = names or sorted(set(re.findall(r"/usr/share/common-licenses/([A-Za-z][\w.-]*\w)", text)))
    names = names or [f"see {'/'.join(copyright_file.parts[-5:])}"]
    return [{"license": {"name": name, "acknowledgement": "declared"}} for name in names]


def joined(
    bill: dict[str, Any], python: str, more: list[dict[str, Any]], edges: dict[str, list[str]]
) -> dict[str, Any]:
    """Return the bill with the root's version, Python, and further components; Python depends on those."""
    own = python_component(python)
    bill["metadata"]["component"]["version"] = version()
    bill["components"] += [own, *more]
    for each in bill["dependencies"]:
        if each["ref"] == TOP:
            each["dependsOn"] = sorted([*each.get("dependsOn", []), own["bom-ref"]])
    bill["dependencies"].append({"ref": own["bom-ref"], "dependsOn": [each["bom-ref"] for each in more]})
    bill["dependencies"] += [{"ref": ref, "dependsOn": to} for ref, to in edges.items()]
    return bill


def problems(bill: dict[str, Any]) -> list[str]:
    """Return what a reader of the bill would miss."""
    root = bill["metadata"]["component"]
    found = [f"{root['name']}: no version"] if not root.get("version") else []
    for each in bill["components"]:
        found += [f"{each['name']}: no {key}" for key in ("version", "licenses", "purl") if not each.get(key)]
    edges = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    if not edges.get(TOP):
        found.append(f"{root['name']}: no dependencies")
    known = {each["bom-ref"] for each in bill["components"]} | {TOP}
    found += [
        f"{ref}: depends on {to}, which is not in the bill" for ref in edges for to in edges[ref] if to not in known
    ]
    return found


def invalid(text: str) -> list[str]:
    """Return what CycloneDX's own schema says against the bill."""
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415 - only the release's environment has it
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return [str(error)] if error else []


def main() -> int:
    """Write the bill; say what is wrong with it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--python", type=Path)
    parser.add_argument("--root", type=Path)
    given = parser.parse_args()
    if given.root:
        (site,) = given.root.glob("opt/gatepass/lib/python3*/site-packages")
        (header,) = given.root.glob("var/lib/gatepass/python-version")
        found = with_licences(packages_below(site.absolute()), site)
        bill = joined(found, header.read_text().strip(), *debian(given.root))
    else:
        said = subprocess.run(  # noqa: S603 - the interpreter that was named
            [given.python.absolute(), "-c", ASKED], capture_output=True, text=True, check=True
        )
        number, site_packages = said.stdout.splitlines()
        bill = joined(with_licences(packages(given.python), Path(site_packages)), number, [], {})
    text = json.dumps(bill, indent=1, sort_keys=True) + "\n"
    given.output.write_text(text, encoding="utf-8")
    wrong = problems(bill) + invalid(text)
    sys.stderr.write("".join(f"{given.output}: {line}\n" for line in wrong))
    sys.stdout.write(f"{given.output}: {len(bill['components'])} components\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
