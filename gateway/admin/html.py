"""The status page: `Overview.data()` in one template, and the page's Content-Security-Policy.

The page loads nothing else. Style and script are allowed by their hashes (CSP Level 3 §2.3.1), so the policy needs no
`unsafe-inline`. The template escapes all text, including what a vendor or an app put into it.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from gateway.model import LEVELS
from gateway.observe import current_logging

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2 import Template

    from gateway.admin.guard import Session

REFRESH = 2
"""Seconds between two refreshes of an open page."""
MINUTE, HOUR, DAY = 60, 3600, 86400
BAR, CURVE_HEIGHT = 100, 24
"""Width of a lifetime's bar and height of a curve, in units of their drawings."""
MOST_CARDS = 8
"""With more credentials than this, only failing ones are shown as cards; the others are rows of a table."""
STATE_NAMES = {"refused_by_vendor": "refused by the vendor"}
HOP_NAMES = {
    "app": "app",
    "gateway": "gateway",
    "token_endpoint": "token",
    "upstream": "connection",
    "vendor": "vendor",
}
"""Column heads below "failures by"."""


def page(
    data: Mapping[str, Any], *, session: Session | None, locked: bool, message: str = "", refusal: bool = False
) -> str:
    """Return the page.

    Args:
        data: of `Overview.data()`; with `usage`, the totals of this month, where that is shown.
        session: of the person, if an admin key was entered.
        locked: there is no admin key, so there are no actions.
        message: the result of the last action.
        refusal: the page answers a refused `POST /status/enter`, so its links start one level deeper.
    """
    logs = current_logging()
    credentials = [_shown(each) for each in data["credentials"]]
    few = len(credentials) <= MOST_CARDS
    text: str = _template().render(
        **{"usage": (), **data, "credentials": credentials},
        cards=[each for each in credentials if few or each["failing"]],
        rows=[each for each in credentials if not few and not each["failing"]],
        session=session,
        locked=locked,
        message=message,
        refusal=refusal,
        root="../" if refusal else "",
        levels=LEVELS,
        log_level=logs.level if logs is not None else "",
        style=_asset("status.css"),
        script=_asset("status.js"),
        refresh=REFRESH,
    )
    return text


def _shown(credential: Mapping[str, Any]) -> dict[str, Any]:
    return {**credential, "static": credential["expiry_source"] == "static"}


def state_name(state: str) -> str:
    """Return the words for a credential's state."""
    return STATE_NAMES.get(state, state)


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
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415  needed only when somebody opens the page

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"span": span, "life": life, "curve": curve, "ago": ago, "state_name": state_name}
    environment.globals |= {"BAR": BAR, "HOP_NAMES": HOP_NAMES}
    return environment.from_string(_asset("status.html"))


def span(seconds: float | None) -> str:
    """Return a duration in words: `4 s`, `12 min`, `3 h 05`, `2 d 4 h`."""
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
    """Return how long ago an instant (seconds since the epoch) was."""
    import time  # noqa: PLC0415  of this function alone

    return "never" if wall is None else f"{span(time.time() - wall)} ago"


def life(credential: Mapping[str, Any]) -> float:
    """Return the width of the bar of the remaining lifetime."""
    granted, left = credential["life"], credential["expires_in"]
    if not granted or left is None:
        return float(BAR) if credential["static"] else 0.0
    return round(BAR * min(1.0, max(0.0, float(left) / float(granted))), 1)


def curve(counts: Sequence[int]) -> str:
    """Return the points of the curve of requests, for a polyline."""
    most = max([*counts, 1])
    return " ".join(
        f"{at},{CURVE_HEIGHT - 1 - (CURVE_HEIGHT - 2) * count / most:.1f}" for at, count in enumerate(counts)
    )
