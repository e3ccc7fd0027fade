"""The access event: one line per request, at a cost of a few microseconds.

The hot path's own way to the log: no processors and no stack inspection, a dictionary and orjson. It may skip
redaction because it prints only names from the configuration, numbers, fingerprints and addresses; the two values
that an app chooses (request id, method) are checked here. Neither path nor query is ever printed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.observe.logs import current_sink, get_logger, render_json
from gateway.observe.metrics import METHODS
from gateway.observe.redaction import is_live, redact_text

EVENT = "request"
LOGGER = "gatepass.access"
SHORT = 40
"""A request id up to this length is a UUID or its like: too short for a JWT or one of our keys."""

_people = get_logger(LOGGER)


class AccessLog:
    """Writes one `request` event per exchange to where logging is configured to go; nothing if `logs.access` is off."""

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
    ) -> None:
        """Write the event. Durations are given in seconds and printed in milliseconds.

        `code` is empty for the vendor's own answer, `attempts` counts how often the request was sent to the vendor,
        `fingerprint` tells which token it carried last.
        """
        sink = current_sink()
        if sink is None or not sink.access:
            return
        event: dict[str, Any] = {
            "timestamp": datetime.now(UTC),
            "level": "info",
            "event": EVENT,
            "logger": LOGGER,
            "request_id": request_id
            if len(request_id) <= SHORT and not is_live(request_id)
            else redact_text(request_id),
            "route": route,
            "client": client,
            "method": method if method in METHODS else redact_text(method[:SHORT]),
            "status": status,
            "code": code or None,
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


def _for_people(event: dict[str, Any]) -> None:
    said = {name: value for name, value in event.items() if value is not None}
    for own in ("timestamp", "level", "logger", "event"):
        said.pop(own)
    _people.info(EVENT, **said)
