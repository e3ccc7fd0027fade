"""The status page: `Overview.data()` through one template, and the policy that lets a browser run nothing else.

Everything is in the page; style and script are allowed by their hashes (CSP Level 3 §2.3.1), so the policy names no
`unsafe-inline`, and what a vendor or an app managed to put into a text stays text: the template escapes everything.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2 import Template

    from gateway.admin.guard import Session

REFRESH = 2
"""Seconds between two looks of an open page."""
MINUTE, HOUR, DAY = 60, 3600, 86400
BAR, CURVE_HEIGHT = 100, 24
"""Width of a life's bar and height of a curve, in units of their drawings."""


def page(data: Mapping[str, Any], *, session: Session | None, locked: bool, message: str = "") -> str:
    """Return the page. `locked`: there is no admin key, so nothing can be done here."""
    style, script = _asset("status.css"), _asset("status.js")
    text: str = _template().render(
        **data, session=session, locked=locked, message=message, style=style, script=script, refresh=REFRESH
    )
    return text


@cache
def policy() -> str:
    """Return the page's Content-Security-Policy."""
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src 'sha256-{_hash('status.css')}'",
            f"script-src 'sha256-{_hash('status.js')}'",
            "connect-src 'self'",
            "img-src data:",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    )


@cache
def _asset(name: str) -> str:
    return (resources.files("gateway.admin") / "templates" / name).read_text("utf-8")


def _hash(name: str) -> str:
    return base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode()


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415  a gateway whose page nobody opens needs none

    room = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    room.filters |= {"span": span, "life": life, "curve": curve, "ago": ago}
    room.globals["BAR"] = BAR
    return room.from_string(_asset("status.html"))


def span(seconds: float | None) -> str:
    """Seconds for people: `4 s`, `12 min`, `3 h 05`, `2 d 4 h`."""
    if seconds is None:
        return "–"
    whole = max(0, int(seconds))
    if whole < 2 * MINUTE:
        return f"{whole} s"
    if whole < 2 * HOUR:
        return f"{whole // MINUTE} min"
    if whole < 2 * DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE:02}"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def ago(wall: float | None) -> str:
    """How long ago an instant was."""
    import time  # noqa: PLC0415  of this function alone

    return "never" if wall is None else f"{span(time.time() - wall)} ago"


def life(credential: Mapping[str, Any]) -> float:
    """Width of the bar of the life that is left."""
    granted, left = credential["life"], credential["expires_in"]
    if not granted or left is None:
        return float(BAR) if credential["state"] == "static" else 0.0
    return round(BAR * min(1.0, max(0.0, float(left) / float(granted))), 1)


def curve(counts: Sequence[int]) -> str:
    """Points of the curve of requests, for a polyline."""
    most = max([*counts, 1])
    return " ".join(
        f"{at},{CURVE_HEIGHT - 1 - (CURVE_HEIGHT - 2) * count / most:.1f}" for at, count in enumerate(counts)
    )
