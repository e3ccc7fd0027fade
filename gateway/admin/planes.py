"""The planes of a configuration on the status page: who asked when, and when files were last confirmed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.model import Config
    from gateway.observe import Metrics


def planes(config: Config | None, metrics: Metrics) -> list[dict[str, Any]]:
    """Return a row for each plane. Holds only names from the configuration and numbers."""
    if config is None or config.planes is None:
        return []
    confirmed = metrics.push_confirmed_at.by("plane")
    rows = [_asks(each.name, sorted(each.routes), metrics) for each in config.planes.ask]
    for each in config.planes.push:
        seen = {labels["credential"]: child.value for labels, child in confirmed.get(each.name, ())}
        known = [seen[name] for name in each.credentials if name in seen]
        oldest = min(known) if len(known) == len(each.credentials) else None
        rows.append(_row(each.name, "push", [*each.credentials], pushed=oldest))
    return rows


def _asks(name: str, routes: list[str], metrics: Metrics) -> dict[str, Any]:
    known = metrics.plane(name)
    asked = known.last_question or None
    return _row(name, "ask", routes, asked=asked, refusals=known.refusals, refused_tokens=known.refused_tokens)


def _row(name: str, kind: str, what: list[str], **more: Any) -> dict[str, Any]:
    empty = {"asked": None, "refusals": None, "refused_tokens": None, "pushed": None}
    return {"name": name, "kind": kind, "of": what, **empty, **more}
