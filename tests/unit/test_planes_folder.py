"""The folder of a plane: who may read it, what is overwritten, and who writes it. On a real file system."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Secret, Token
from gateway.planes import sds
from gateway.planes.folder import Folder, FolderError

VALUE = "CANARY-token"
TOKEN = Token(Secret(VALUE), "acme", 0.0, 3600.0, "in", "f")
DOCUMENT = sds.document("acme", TOKEN, 1_800_000_000.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "sds"
    folder.mkdir(0o750)
    return folder


@pytest.fixture
def folder(path: Path) -> Folder:
    opened = Folder(path)
    assert opened.open()
    return opened


def names(folder: Path) -> list[str]:
    """Every name in a folder."""
    return sorted(entry.name for entry in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# -------------------------------------------------------------------------------------------------------- permissions


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_missing_folder_is_created_readable_for_its_group_despite_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        folder = Folder(tmp_path / "sds")
        assert folder.open()
        folder.put("acme.json", DOCUMENT)
    finally:
        os.umask(before)
    assert (mode(tmp_path / "sds"), mode(tmp_path / "sds" / "acme.json")) == (0o750, 0o640)


@pytest.mark.parametrize("wide", [0o751, 0o754, 0o755, 0o770, 0o777])
def test_a_folder_that_others_may_use_gets_no_token(path: Path, wide: int) -> None:
    path.chmod(wide)
    with pytest.raises(FolderError, match="chmod 0750"):
        Folder(path).open()


@pytest.mark.parametrize("narrow", [0o700, 0o750, 0o2750])
def test_a_folder_that_only_its_group_may_read_is_used(path: Path, narrow: int) -> None:
    path.chmod(narrow)
    assert Folder(path).open()


def test_a_folder_that_was_opened_to_others_is_not_used_any_more(folder: Folder, path: Path) -> None:
    path.chmod(0o755)
    with pytest.raises(FolderError, match="drwxr-xr-x"):
        folder.open()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes folders of other users")
def test_a_folder_of_another_user_is_not_used(path: Path) -> None:
    os.chown(path, 12345, -1)
    with pytest.raises(FolderError, match="belongs to user 12345"):
        Folder(path).open()


def test_a_file_is_never_readable_for_more_than_its_group(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is created for its owner only, and has no content before its permissions are final."""
    seen: list[tuple[int, int]] = []

    def watched(descriptor: int, wanted: int) -> None:
        status = os.fstat(descriptor)
        seen.append((stat.S_IMODE(status.st_mode), status.st_size))
        chmod(descriptor, wanted)

    before, chmod = os.umask(0), os.fchmod
    monkeypatch.setattr(os, "fchmod", watched)
    try:
        folder.put("acme.json", DOCUMENT)
    finally:
        os.umask(before)
    assert seen == [(0o600, 0)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may choose any group")
def test_files_belong_to_the_folders_group(path: Path) -> None:
    os.chown(path, -1, 12345)
    folder = Folder(path)
    folder.open()
    folder.put("acme.json", DOCUMENT)
    assert (path / "acme.json").stat().st_gid == 12345


# ------------------------------------------------------------------------------------------------------------ contents


def test_a_file_is_replaced_and_never_written_in_place(folder: Folder, path: Path) -> None:
    folder.put("acme.json", DOCUMENT)
    with (path / "acme.json").open("rb") as reader:
        folder.put("acme.json", sds.document("acme", None))
        assert reader.read() == DOCUMENT
    assert VALUE not in (path / "acme.json").read_text()
    assert names(path) == ["acme.json"]


def foreign(kind: str, target: Path, elsewhere: Path) -> Any:
    elsewhere.write_text("theirs")
    match kind:
        case "file":
            target.write_text("theirs")
        case "symlink":
            target.symlink_to(elsewhere)
        case "dangling symlink":
            target.symlink_to(elsewhere.with_name("nothing"))
        case "symlink to a file of ours":
            elsewhere.write_bytes(DOCUMENT)
            target.symlink_to(elsewhere)
        case "hard link":
            elsewhere.write_bytes(DOCUMENT)
            os.link(elsewhere, target)
        case "folder":
            target.mkdir()
        case "fifo":
            os.mkfifo(target)
        case "socket":
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(str(target))
            listening.close()
        case "file of another user":
            target.write_bytes(DOCUMENT)
            os.chown(target, 12345, -1)


KINDS = ["file", "symlink", "dangling symlink", "symlink to a file of ours", "hard link", "folder", "fifo", "socket"]


@pytest.mark.parametrize(
    "kind",
    [
        *KINDS,
        pytest.param(
            "file of another user", marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root makes such a file")
        ),
    ],
)
def test_what_gatepass_has_not_written_is_not_overwritten_followed_or_removed(
    folder: Folder, path: Path, tmp_path: Path, kind: str
) -> None:
    target, elsewhere = path / "acme.json", tmp_path / "elsewhere"
    foreign(kind, target, elsewhere)
    before, inode = elsewhere.read_bytes(), target.lstat().st_ino
    with pytest.raises(FolderError, match="not written by Gatepass"):
        folder.put("acme.json", DOCUMENT)
    folder.remove("acme.json")
    assert list(folder.ours()) == []
    assert (elsewhere.read_bytes(), target.lstat().st_ino) == (before, inode)
    assert names(path) == ["acme.json"]


def test_the_next_process_recognizes_our_file(folder: Folder, path: Path) -> None:
    folder.put("acme.json", DOCUMENT)
    folder.close()
    again = Folder(path)
    assert again.open()
    assert [(name, said.credential) for name, said in again.ours()] == [("acme.json", "acme")]


def test_what_a_killed_process_left_unfinished_is_removed(path: Path) -> None:
    (path / ".acme.json.0123456789abcdef.new").write_bytes(DOCUMENT[:20])
    (path / ".other.new").write_text("theirs")
    Folder(path).open()
    assert names(path) == [".other.new"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    folder: Folder, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put("acme.json", DOCUMENT)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match="full"):
        folder.put("acme.json", sds.document("acme", None))
    assert (path / "acme.json").read_bytes() == DOCUMENT
    assert names(path) == ["acme.json"]


def test_a_changed_or_replaced_file_is_noticed(folder: Folder, path: Path) -> None:
    mark = folder.put("acme.json", DOCUMENT)
    assert folder.holds("acme.json", mark)
    copy = path / "copy"
    copy.write_bytes(DOCUMENT)
    copy.rename(path / "acme.json")
    assert not folder.holds("acme.json", mark)
    (path / "acme.json").unlink()
    assert not folder.holds("acme.json", mark)


# ----------------------------------------------------------------------------------------------------------- the folder


def test_a_symbolic_link_is_not_accepted_as_a_folder(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(FolderError, match="symbolic link"):
        Folder(link).open()


def test_a_missing_parent_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Folder(tmp_path / "none" / "sds").open()


def test_one_process_writes_at_a_time(folder: Folder, path: Path) -> None:
    second = Folder(path)
    assert not second.open()
    folder.close()
    assert second.open()
    assert folder.is_locked_elsewhere()


def test_nobody_else_writes_after_a_folder_is_closed(folder: Folder) -> None:
    folder.close()
    assert not folder.is_locked_elsewhere()


def test_a_folder_that_was_replaced_is_opened_again(folder: Folder, path: Path) -> None:
    path.rename(path.with_name("old"))
    assert folder.open()
    folder.put("acme.json", DOCUMENT)
    assert (path / "acme.json").read_bytes() == DOCUMENT


def test_a_closed_folder_refuses_to_write(folder: Folder) -> None:
    folder.close()
    with pytest.raises(FolderError, match="not open"):
        folder.put("acme.json", DOCUMENT)
    assert not Path("acme.json").exists()
