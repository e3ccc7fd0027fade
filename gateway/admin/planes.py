"""The planes of a configuration on the status page: when each last asked, and when its files were last confirmed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.observe import redact_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model import Config, PlaneStatus
    from gateway.observe import Metrics


def planes(config: Config | None, metrics: Metrics, pushes: Sequence[PlaneStatus] = ()) -> list[dict[str, Any]]:
    """Return a row for each plane, with the reasons why files cannot be written; times in seconds since the epoch."""
    if config is None or config.planes is None:
        return []
    states = {each.name: each for each in pushes}
    reports = metrics.plane_reports.by("plane")
    confirmed = metrics.push_confirmed_at.by("plane")
    rows = [_asks(each.name, sorted(each.routes), metrics) for each in config.planes.ask]
    for each in config.planes.push:
        seen = {labels["credential"]: child.value for labels, child in confirmed.get(each.name, ())}
        known = [seen[name] for name in each.credentials if name in seen]
        oldest = min(known) if len(known) == len(each.credentials) else None
        row = _row(each.name, "push", [*each.credentials], pushed=oldest)
        row["refused_tokens"] = int(sum(child.value for _, child in reports.get(each.name, ())))
        if (state := states.get(each.name)) is not None:
            row |= {"state": state.state, "problems": [redact_text(problem) for problem in state.problems]}
        rows.append(row)
    return rows


def _asks(name: str, routes: list[str], metrics: Metrics) -> dict[str, Any]:
    known = metrics.plane(name)
    asked = known.last_question or None
    return _row(name, "ask", routes, asked=asked, refusals=known.refusals, refused_tokens=known.refused_tokens)


def _row(name: str, kind: str, what: list[str], **more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "asked": None,
        "refusals": None,
        "refused_tokens": None,
        "pushed": None,
        "state": None,
        "problems": [],
    }
    return {"name": name, "kind": kind, "of": what, **empty, **more}
