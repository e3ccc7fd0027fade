"""The access event: one line per request, at a cost of a few microseconds, also when every request fails.

The hot path's own way to the log: no processors and no stack inspection, and a line put together from parts, of which
those that come again and again (route, client, method, status) were rendered once. It may skip redaction because it
prints only names from the configuration, numbers, fingerprints and addresses; the values that an app or a vendor has a
hand in (request id, method, the reason of a failure) are checked here. Neither path nor query is ever printed.
"""

from __future__ import annotations

from random import random
from time import gmtime, strftime
from typing import TYPE_CHECKING, Any

import orjson

from gateway.observe.bound import METHODS
from gateway.observe.logs import ACCESS, current_sink, get_logger
from gateway.observe.redaction import SHORT, redact_often, redact_text, shown_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.observe.logs import Sink

EVENT = "request"

_people = get_logger(ACCESS)
_OURS_TO_BLAME = 500
"""Our own answers from here on are warnings: an operator can do something about them."""
AUDITED = frozenset({"client_unknown", "client_forbidden", "rate_limited"})
"""Refusals of who calls, what, or how much: warnings too, and written whatever else is not."""


def _is_warning(status: int, code: str) -> bool:
    return bool(code) and (status >= _OURS_TO_BLAME or code in AUDITED)


_MOST_SHAPES = 1024
"""Combinations of what comes again and again whose rendering is kept."""


class AccessLog:
    """Makes one `request` event per exchange, and sends it to where logging is configured to go.

    With `logs.access` off, or a `logs.sample`, what failed or was refused to a client is still written.
    """

    def __init__(self) -> None:
        self._shapes: dict[tuple[object, ...], tuple[str, str, str]] = {}
        self._second = 0
        self._stamp = ""

    def line(  # noqa: PLR0917 - called once a request: keywords would cost more than the line
        self,
        at: float,
        request_id: str,
        trace_id: str | None,
        route: str | None,
        client: str | None,
        method: str,
        path: str | None,
        status: int,
        code: str,
        reason: str,
        seconds: float,
        upstream_seconds: float | None,
        bytes_in: int,
        bytes_out: int,
        attempts: int,
        fingerprint: str | None,
        remote: str | None,
    ) -> bytes | None:
        """Return the event's line, its newline included; None where it is not wanted.

        `at` is seconds since the epoch. Durations are given in seconds and printed in milliseconds.
        `code` is empty for the vendor's own answer, `attempts` counts how often the request was sent to the vendor,
        `fingerprint` tells which token it carried last, `path` is a template of the configuration, never the path
        itself; `reason` says why the gateway failed.
        """
        sink = current_sink()
        if sink is None or not _wanted(sink, status, code):
            return None
        shape = (route, client, method, path, status, code, attempts, fingerprint, remote)
        parts = self._shapes.get(shape) if not reason else None
        head, middle, tail = parts or self._render(*shape, reason)
        trace = "null" if trace_id is None else f'"{trace_id}"'
        upstream = "null" if upstream_seconds is None else _milliseconds(upstream_seconds)
        second = int(at)
        if second != self._second:
            self._second, self._stamp = second, strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        return (
            f'{{"timestamp":"{self._stamp}.{int((at - second) * 1e6):06}Z",{head},'
            f'"request_id":{_quoted(shown_id(request_id))},"trace_id":{trace},{middle},'
            f'"duration_ms":{_milliseconds(seconds)},"upstream_ms":{upstream},'
            f'"bytes_in":{bytes_in},"bytes_out":{bytes_out},{tail}}}\n'
        ).encode()

    @staticmethod
    def write(lines: Sequence[bytes]) -> None:
        """Send lines on their way."""
        sink = current_sink()
        if sink is None:
            return
        if sink.console:
            for line in lines:
                _for_people(orjson.loads(line))
        else:
            sink.writer.write(b"".join(lines), len(lines))

    def _render(  # noqa: PLR0917 - the parts of a shape
        self,
        route: str | None,
        client: str | None,
        method: str,
        path: str | None,
        status: int,
        code: str,
        attempts: int,
        fingerprint: str | None,
        remote: str | None,
        reason: str,
    ) -> tuple[str, str, str]:
        """Return what of a line comes again: its beginning, its middle and its end. Kept unless a reason is in it."""
        parts = (
            _members(level="warning" if _is_warning(status, code) else "info", event=EVENT, logger=ACCESS),
            _members(
                route=route,
                client=client,
                method=method if method in METHODS else redact_text(method[:SHORT]),
                path=path,
                status=status,
                code=code or None,
                reason=redact_often(reason) if reason else None,
            ),
            _members(attempts=attempts, fingerprint=fingerprint, remote=remote),
        )
        if not reason and method in METHODS:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            self._shapes[route, client, method, path, status, code, attempts, fingerprint, remote] = parts
        return parts

    def close(self) -> None:
        """Write out what waits, for a second at most. The log itself stays open: it is the process's."""
        sink = current_sink()
        if sink is not None:
            sink.writer.flush()


def _milliseconds(seconds: float) -> str:
    """Return whole microseconds, as milliseconds."""
    whole, rest = divmod(int(seconds * 1e6), 1000)
    return f"{whole}.{rest:03}"


def _members(**fields: object) -> str:
    """Return the members of a JSON object, without its braces."""
    return orjson.dumps(fields)[1:-1].decode()


def _quoted(text: str) -> str:
    """Return a JSON string."""
    return orjson.dumps(text).decode()


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
