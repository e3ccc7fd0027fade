"""The closed lists of label values that traffic could otherwise extend: statuses and outcomes.

A label holds a name from the configuration or one of these words, so the number of series is bounded by the
configuration and never by traffic.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from gateway.model.http import ERROR, SERVER_ERROR

STATUSES: Final = frozenset({int(status) for status in HTTPStatus} | {499})
"""Statuses that are a label value of their own; any other is counted as its class (`5xx`), or as `other`."""
OUTCOMES: Final = ("ok", "vendor_error", "refused", "failed", "gone")
"""How a client's request ends: the vendor's 1xx to 3xx, its 4xx and 5xx, our 4xx, our 5xx, the app closed first."""


def status_label(status: int) -> str:
    """Return the label value of a status."""
    if status in STATUSES:
        return str(status)
    return f"{status // 100}xx" if 100 <= status <= 599 else "other"  # noqa: PLR2004  RFC 9110 §15


def outcome_of(vendor_status: int, status: int, code: str) -> str:
    """Return the outcome of a client's request; `code` is empty for the vendor's own answer."""
    if code == "client_gone":
        return "gone"
    if not code:
        return "ok" if vendor_status < ERROR else "vendor_error"
    return "refused" if status < SERVER_ERROR and code != "aborted" else "failed"
