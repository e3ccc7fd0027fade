"""The access event: one line per request, at a cost of a few microseconds, also when every request fails.

The hot path's own way to the log: no processors and no stack inspection, a dictionary and orjson. It may skip
redaction because it prints only names from the configuration, numbers, fingerprints and addresses; the values that an
app or a vendor has a hand in (request id, method, the reason of a failure) are checked here. Neither path nor query is
ever printed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from random import random
from typing import TYPE_CHECKING, Any

from gateway.observe.bound import METHODS
from gateway.observe.logs import ACCESS, current_sink, get_logger, render_json
from gateway.observe.redaction import SHORT, redact_often, redact_text, shown_id

if TYPE_CHECKING:
    from gateway.observe.logs import Sink

EVENT = "request"

_people = get_logger(ACCESS)
_OURS_TO_BLAME = 500
"""Our own answers from here on are warnings: an operator can do something about them."""
AUDITED = frozenset({"client_unknown", "client_forbidden", "rate_limited"})
"""Refusals of who calls, what, or how much: warnings too, and written whatever else is not."""


def _is_warning(status: int, code: str) -> bool:
    return bool(code) and (status >= _OURS_TO_BLAME or code in AUDITED)


class AccessLog:
    """Writes one `request` event per exchange to where logging is configured to go.

    With `logs.access` off, or a `logs.sample`, what failed or was refused to a client is still written.
    """

    def request(
        self,
        *,
        request_id: str,
        route: str | None,
        client: str | None,
        method: str,
        status: int,
        code: str,
        seconds: float,
        upstream_seconds: float | None,
        bytes_in: int,
        bytes_out: int,
        attempts: int,
        fingerprint: str | None,
        remote: str | None,
        path: str | None = None,
        reason: str = "",
        trace_id: str | None = None,
    ) -> None:
        """Write the event. Durations are given in seconds and printed in milliseconds.

        `code` is empty for the vendor's own answer, `attempts` counts how often the request was sent to the vendor,
        `fingerprint` tells which token it carried last, `path` is a template of the configuration, never the path
        itself; `reason` says why the gateway failed.
        """
        sink = current_sink()
        if sink is None or not _wanted(sink, status, code):
            return
        event: dict[str, Any] = {
            "timestamp": datetime.now(UTC),
            "level": "warning" if _is_warning(status, code) else "info",
            "event": EVENT,
            "logger": ACCESS,
            "request_id": shown_id(request_id),
            "trace_id": trace_id,
            "route": route,
            "client": client,
            "method": method if method in METHODS else redact_text(method[:SHORT]),
            "path": path,
            "status": status,
            "code": code or None,
            "reason": redact_often(reason) if reason else None,
            "duration_ms": int(seconds * 1e6) / 1e3,
            "upstream_ms": None if upstream_seconds is None else int(upstream_seconds * 1e6) / 1e3,
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "attempts": attempts,
            "fingerprint": fingerprint,
            "remote": remote,
        }
        if sink.console:
            _for_people(event)
        else:
            sink.writer.write(render_json(event))

    def close(self) -> None:
        """Write out what waits, for a second at most. The log itself stays open: it is the process's."""
        sink = current_sink()
        if sink is not None:
            sink.writer.flush()


def _wanted(sink: Sink, status: int, code: str) -> bool:
    if _is_warning(status, code):
        return sink.failures
    if not sink.access:
        return False
    return sink.sample >= 1 or not 200 <= status < 300 or random() < sink.sample  # noqa: PLR2004, S311


def _for_people(event: dict[str, Any]) -> None:
    said = {name: value for name, value in event.items() if value is not None}
    level = said.pop("level")
    for own in ("timestamp", "logger", "event"):
        said.pop(own)
    (_people.warning if level == "warning" else _people.info)(EVENT, **said)
