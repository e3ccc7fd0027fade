"""Warns about mistakes in the gateway's surroundings: files that are mounted alone, loopback addresses in a container.

Nothing else shows these mistakes: the gateway starts and reports that it is healthy, but it never sees a new
configuration, or no app reaches it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.addresses import is_loopback
from gateway.mounts import TABLE, mounts
from gateway.observe import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.model import Config

_log = get_logger("gatepass")
MARKERS = (Path("/.dockerenv"), Path("/run/.containerenv"))
"""Files that Docker and Podman put into each container."""


def mounted_alone(paths: Iterable[Path], table: Path = TABLE) -> list[str]:
    """Return the files that are mounts themselves (proc_pid_mountinfo(5)); none if the system does not tell.

    Such a mount keeps its original file: a file that replaces it outside is not seen.
    """
    points = {mount.point for mount in mounts(table)}
    return [str(path) for path in paths if str(path) in points]


def in_container(environ: Mapping[str, str] = os.environ, markers: Iterable[Path] = MARKERS) -> bool:
    """Return whether this process runs in a container of Docker, Podman or Kubernetes."""
    return "KUBERNETES_SERVICE_HOST" in environ or any(path.exists() for path in markers)


def warn_of_loopback(config: Config) -> None:
    """Warn of ports of a container that only the container itself reaches."""
    if not in_container():
        return
    for key, addresses in (("listen", config.listen), ("admin", [config.admin] if config.admin else [])):
        if addresses and all(is_loopback(address.host) for address in addresses):
            _log.warning(
                "loopback_in_container",
                key=key,
                address=", ".join(map(str, addresses)),
                hint=f"nothing outside this container reaches it; set {key} to 0.0.0.0:{addresses[0].port}"
                " unless the container shares a network with its callers",
            )
