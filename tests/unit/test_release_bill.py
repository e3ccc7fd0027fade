"""The bill of materials of a release: what it adds to cyclonedx-py's, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway import __version__
from tests.kit.configuration import ROOT

if TYPE_CHECKING:
    from pathlib import Path

spec = importlib.util.spec_from_file_location("bill", ROOT / "deploy" / "release" / "bill.py")
assert spec is not None
assert spec.loader is not None
bill = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bill)

OPENSSL = (
    "Package: libssl3\nVersion: 3.0.17-1~deb12u2\nArchitecture: amd64\nDepends: libc6 (>= 2.34), not-here | zlib1g\n"
)
LIBC = "Package: libc6\nVersion: 2.36-9+deb12u10\nArchitecture: amd64\nDepends: libgcc-s1\n"
ZLIB = "Package: zlib1g\nVersion: 1:1.2.13.dfsg-1\nArchitecture: amd64\n"
DEP5 = "Files: *\nCopyright: them\nLicense: Apache-2.0\n\nFiles: x\nLicense: GPL-2\n\nLicense: GPL-2\n text\n"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    entries = {"libssl3": OPENSSL, "libc6": LIBC, "zlib1g": ZLIB}
    notices = {"libssl3": DEP5, "libc6": "see /usr/share/common-licenses/LGPL-2.1.", "zlib1g": "free for all"}
    for name, entry in entries.items():
        for path, text in {
            f"var/lib/dpkg/status.d/{name}": entry,
            f"usr/share/doc/{name}/copyright": notices[name],
            "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
        }.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
    return tmp_path


def from_cyclonedx() -> dict[str, Any]:
    """What cyclonedx-py writes of a project with a dynamic version and one dependency."""
    component = {"bom-ref": "a==1", "name": "a", "version": "1", "purl": "pkg:pypi/a@1", "licenses": [{"license": {}}]}
    return {
        "metadata": {"component": {"bom-ref": "root-component", "name": "gatepass"}},
        "components": [component],
        "dependencies": [{"ref": "root-component", "dependsOn": ["a==1"]}, {"ref": "a==1"}],
    }


def test_the_image_s_debian_packages_have_licences_and_depend_on_one_another(image: Path) -> None:
    components, edges = bill.debian(image)
    by_name = {each["name"]: each for each in components}
    licences = {name: [one["license"]["name"] for one in each["licenses"]] for name, each in by_name.items()}
    assert licences == {
        "libssl3": ["Apache-2.0", "GPL-2"],
        "libc6": ["LGPL-2.1"],
        "zlib1g": ["see usr/share/doc/zlib1g/copyright"],
    }
    assert by_name["libc6"]["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12"
    assert edges[by_name["libssl3"]["bom-ref"]] == [by_name["libc6"]["bom-ref"], by_name["zlib1g"]["bom-ref"]]
    assert edges[by_name["libc6"]["bom-ref"]] == []


def test_a_bill_has_the_version_python_and_no_problem(image: Path) -> None:
    components, edges = bill.debian(image)
    done = bill.joined(from_cyclonedx(), "3.13.1", components, edges)
    assert done["metadata"]["component"]["version"] == __version__
    assert {each["name"] for each in done["components"]} == {"a", "python", "libssl3", "libc6", "zlib1g"}
    assert done["dependencies"][0]["dependsOn"] == ["a==1", "python==3.13.1"]
    assert bill.problems(done) == []
    json.dumps(done)


@pytest.mark.parametrize("missing", ["version", "licenses", "purl"])
def test_a_component_without_version_licence_or_address_fails_the_release(missing: str) -> None:
    done = bill.joined(from_cyclonedx(), "3.13.1", [], {})
    done["components"][0][missing] = None
    assert bill.problems(done) == [f"a: no {missing}"]


def test_a_bill_without_dependencies_or_with_dangling_ones_fails_the_release() -> None:
    done = from_cyclonedx()
    done["metadata"]["component"]["version"] = "1"
    done["dependencies"][1]["dependsOn"] = ["b==2"]
    assert bill.problems(done) == ["a==1: depends on b==2, which is not in the bill"]
    done["dependencies"] = [{"ref": "root-component"}]
    assert bill.problems(done) == ["gatepass: no dependencies"]
    del done["metadata"]["component"]["version"]
    assert "gatepass: no version" in bill.problems(done)


def test_a_licence_that_the_metadata_name_is_not_missing(tmp_path: Path) -> None:
    """cyclonedx-py leaves out that of protobuf."""
    (tmp_path / "a-1.dist-info").mkdir()
    (tmp_path / "a-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: A\nVersion: 1\nLicense: BSD\n")
    found = from_cyclonedx()
    found["components"][0]["licenses"] = []
    found["components"].append({"bom-ref": "b==1", "name": "b", "version": "1", "purl": "pkg:pypi/b@1"})
    licences = [each.get("licenses") for each in bill.with_licences(found, tmp_path)["components"]]
    assert licences == [[{"license": {"name": "BSD", "acknowledgement": "declared"}}], None]
