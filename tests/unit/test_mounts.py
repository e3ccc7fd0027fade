"""Which file system holds a folder: of tokens, which should be on no disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.mounts import IN_MEMORY, kind_of
from tests.kit.configuration import loaded, problems

if TYPE_CHECKING:
    from pathlib import Path

TABLE = """\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:5 / /run rw,nosuid shared:3 - tmpfs tmpfs rw
3 2 8:2 / /run/disk rw - xfs /dev/sdb1 rw
4 1 0:6 / /a\\040b rw - tmpfs tmpfs rw
5 1 8:3 / /twice rw - ext4 /dev/sdc1 rw
6 1 0:7 / /twice rw - tmpfs tmpfs rw
garbage
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/sds", "ext4"),
        ("/run/gatepass/sds", "tmpfs"),
        ("/run", "tmpfs"),
        ("/runner", "ext4"),
        ("/run/disk/sds", "xfs"),
        ("/a b/sds", "tmpfs"),
        ("/twice/sds", "tmpfs"),
    ],
)
def test_the_nearest_mount_holds_a_path(path: str, kind: str, tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    assert kind_of(tmp_path.__class__(path), table) == kind


def test_a_system_that_does_not_tell_is_no_disk(tmp_path: Path) -> None:
    assert kind_of(tmp_path, tmp_path / "none") is None


CONFIG = """\
credentials: {{key: {{static: {{token: CANARY-t}}}}}}
planes: {{push: {{edge: {{kind: envoy-sds, directory: {folder}, credentials: [key]}}}}}}
"""


@pytest.mark.parametrize(("kind", "warns"), [("ext4", True), ("overlay", True), ("tmpfs", False), (None, False)])
def test_check_warns_of_tokens_on_a_disk(
    kind: str | None, warns: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.config.advice.kind_of", lambda _: kind)
    said = loaded(tmp_path, CONFIG.format(folder=tmp_path / "sds")).warnings
    assert bool(said) == warns
    assert not warns or f"planes.push.edge.directory: is on a disk ({kind})" in said[0]


def test_a_gateway_that_only_pushes_needs_no_route(tmp_path: Path) -> None:
    assert loaded(tmp_path, CONFIG.format(folder="/run/gatepass/sds")).routes == ()


def test_check_does_not_judge_the_folders_of_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.config.advice.kind_of", lambda _: "ext4")
    assert loaded(tmp_path, CONFIG.format(folder=tmp_path / "none" / "sds")).warnings == ()


def test_a_pushed_credential_is_kept_warm(tmp_path: Path) -> None:
    assert "tmpfs" in IN_MEMORY
    text = CONFIG.format(folder="/run/gatepass/sds").replace(
        "{static: {token: CANARY-t}}",
        "{profile: idfy, client_id: i, client_secret: CANARY-s, scope: x, keep_warm: used}",
    )
    assert problems(tmp_path, text) == [
        "config.yaml:1: credentials.key.keep_warm: must be `always`, because planes.push has this credential"
    ]
