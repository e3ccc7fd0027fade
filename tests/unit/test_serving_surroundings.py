"""Files that are mounts of their own, and loopback addresses in a container: what shows nowhere else is logged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gateway.serving.surroundings import in_container, mounted_alone
from tests.kit.configuration import ROOT

if TYPE_CHECKING:
    from pathlib import Path

LINE = "36 35 98:0 /src {point} rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"


def told(folder: Path, *points: Path | str) -> Path:
    """Return a file in the form of /proc/self/mountinfo, with these mount points."""
    path = folder / "mountinfo"
    path.write_text("".join(LINE.format(point=str(point).replace(" ", r"\040")) for point in points))
    return path


def test_a_file_that_is_a_mount_is_found_and_one_in_a_mounted_folder_is_not(tmp_path: Path) -> None:
    alone, within = tmp_path / "the configuration.yaml", tmp_path / "folder" / "config.yaml"
    within.parent.mkdir()
    for path in (alone, within):
        path.touch()
    mounts = told(tmp_path, "/", alone, within.parent, tmp_path / "another.yaml")
    assert mounted_alone([alone, within], mounts) == [str(alone)]


@pytest.mark.parametrize("text", ["", "garbage\n", "1 2 3 4\n"])
def test_what_is_no_mountinfo_names_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mountinfo"
    assert mounted_alone([path], path) == []
    path.write_text(text)
    assert mounted_alone([path], path) == []


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting needs root, and unshare")
def test_a_real_mount_of_a_single_file_is_found(tmp_path: Path) -> None:
    source, target = tmp_path / "source.yaml", tmp_path / "config file.yaml"
    source.touch()
    target.touch()
    code = """if True:
        import pathlib, sys
        from gateway.serving.surroundings import mounted_alone
        print(mounted_alone([pathlib.Path(each) for each in sys.argv[1:]]))
    """
    script = 'mount --bind "$1" "$2" && exec "$3" -c "$4" "$1" "$2"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(source), str(target), sys.executable, code],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
    )  # fmt: skip
    if "permission denied" in done.stderr.lower() or "not permitted" in done.stderr.lower():
        pytest.skip("this machine allows no mounts")
    assert done.stdout.strip() == str([str(target)]), done.stderr


def test_containers_are_recognized_by_their_marks(tmp_path: Path) -> None:
    mark = tmp_path / ".dockerenv"
    assert not in_container({}, [mark])
    assert in_container({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, [mark])
    mark.touch()
    assert in_container({}, [mark])
