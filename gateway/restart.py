"""Which keys of a configuration take effect only after a restart, and whether any of them waits for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.model import SocketFile
from gateway.observe import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.model import Config

_log = get_logger("gatepass")
AT_START: Final = (
    "listen",
    "admin",
    "state_file",
    "store",
    "planes.listen",
    "planes.mode",
    "logs.format",
    "logs.buffer",
)
"""Keys that take effect only at the start; of `store`, only whether it is there."""


Bound = dict[str, str]
"""The addresses of ports, as text, by key; a port that is not configured has an empty text."""


def bound_by(config: Config) -> Bound:
    """Return the addresses of all ports of a configuration."""
    listen = config.planes.listen if config.planes is not None else None
    planes = f"unix:{listen.path}" if isinstance(listen, SocketFile) else str(listen or "")
    return {"listen": ", ".join(map(str, config.listen)), "admin": str(config.admin or ""), "planes.listen": planes}


def adopted(bound: Bound, config: Config, passed: Mapping[str, Sequence[object]]) -> Bound:
    """Return the addresses that a successor serves: those of the predecessor for ports that are passed and configured.

    `passed` has the sockets that were passed, by key. The successor closes or opens all other ports by itself.
    """
    own = bound_by(config)
    return {key: bound.get(key, text) if text and passed[key] else text for key, text in own.items()}


def waits_for_restart(started: Config, config: Config, bound: Bound) -> list[str]:
    """Return the keys of `AT_START` whose values differ from those in use.

    These are the values of `started`, the configuration that the process started with, and the addresses `bound`.
    """
    before, after = {**_at_start(started), **bound}, {**_at_start(config), **bound_by(config)}
    waits = [key for key in AT_START if before.get(key, after[key]) != after[key]]
    return [key for key in waits if key != "planes.mode" or "planes.listen" not in waits]


def report_waits(started: Config, config: Config, bound: Bound) -> None:
    """Log the keys that take effect only after a restart, if there are any; arguments as of `waits_for_restart`."""
    waits = waits_for_restart(started, config, bound)
    if waits:
        _log.warning("restart_needed", keys=waits)


def _at_start(config: Config) -> dict[str, object]:
    """Return the values of `AT_START` that are no addresses."""
    listen = config.planes.listen if config.planes is not None else None
    return {
        "state_file": config.state_file,
        "store": config.store is not None,
        "planes.mode": listen.mode if isinstance(listen, SocketFile) else None,
        "logs.format": config.logs.format,
        "logs.buffer": config.logs.buffer,
    }
