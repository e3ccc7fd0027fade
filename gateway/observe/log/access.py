"""The access event: one line per request, at a cost of a few microseconds, also when every request fails.

The hot path's own way to the log: no processors and no stack inspection, and a line put together from parts, of which
those that come again and again (route, client, method, status) were rendered once; `journal.py` keeps them. It may skip
redaction because it prints only names from the configuration, numbers, fingerprints and addresses; the values that an
app or a vendor has a hand in (request id, method, the reason of a failure) are checked here. Neither path nor query is
ever printed.
"""

from __future__ import annotations

from random import random
from time import gmtime, strftime
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.model.http import COMMON_METHODS
from gateway.observe.log.setup import ACCESS, get_logger
from gateway.observe.redaction.redact import SHORT, redact_often, redact_text, shown_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.observe.log.setup import Sink

EVENT: Final = "request"

_people = get_logger(ACCESS)
_OURS_TO_BLAME: Final = 500
"""Our own answers from here on are warnings: an operator can do something about them."""
AUDITED: Final = frozenset({"client_unknown", "client_forbidden", "rate_limited"})
"""Refusals of who calls, what, or how much: warnings too, and written whatever else is not."""


class Shape:
    """What of a line comes again and again, rendered: its beginning, its middle and its end."""

    __slots__ = ("good", "head", "middle", "tail", "warning")

    def __init__(  # noqa: PLR0917 - in the order of the line
        self,
        route: str | None,
        client: str | None,
        method: str,
        path: str | None,
        status: int,
        code: str,
        reason: str,
        attempts: int,
        fingerprint: str | None,
        remote: str | None,
    ) -> None:
        """Render the parts.

        `code` is empty for the vendor's own answer, `attempts` counts how often the request was sent to the vendor,
        `fingerprint` tells which token it carried last, `path` is a template of the configuration, never the path
        itself; `reason` says why the gateway failed.
        """
        self.warning = bool(code) and (status >= _OURS_TO_BLAME or code in AUDITED)
        self.good = 200 <= status < 300  # noqa: PLR2004 - RFC 9110 §15.3
        self.head = _members(level="warning" if self.warning else "info", event=EVENT, logger=ACCESS)
        self.middle = _members(
            route=route,
            client=client,
            method=method if method in COMMON_METHODS else redact_text(method[:SHORT]),
            path=path,
            status=status,
            code=code or None,
            reason=redact_often(reason) if reason else None,
        )
        self.tail = _members(attempts=attempts, fingerprint=fingerprint, remote=remote)

    def wanted(self, sink: Sink) -> bool:
        """Whether such a request is logged, this time.

        With `logs.access` off, or a `logs.sample`, what failed or was refused to a client is still written.
        """
        if self.warning:
            return sink.failures
        return sink.access and (sink.sample >= 1 or not self.good or random() < sink.sample)  # noqa: S311


class AccessLog:
    """Makes the line of one request after another."""

    __slots__ = ("_second", "_stamp")

    def __init__(self) -> None:
        self._second = 0
        self._stamp = ""

    def line(  # noqa: PLR0917 - called once a request: keywords would cost more than the line
        self,
        shape: Shape,
        at: float,
        request_id: str,
        trace_id: str | None,
        seconds: float,
        upstream_seconds: float | None,
        bytes_in: int,
        bytes_out: int,
    ) -> bytes:
        """Return the line of a request, its newline included.

        `at` is seconds since the epoch; `request_id` and `trace_id` are printed as they are. Durations are given in
        seconds and printed in milliseconds.
        """
        second = int(at)
        if second != self._second:
            self._second, self._stamp = second, strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        trace = "null" if trace_id is None else f'"{trace_id}"'
        upstream = "null" if upstream_seconds is None else int(upstream_seconds * 1e6) / 1e3
        return (
            f'{{"timestamp":"{self._stamp}.{int((at - second) * 1e6):06}Z",{shape.head},'
            f'"request_id":"{request_id}","trace_id":{trace},{shape.middle},'
            f'"duration_ms":{int(seconds * 1e6) / 1e3},"upstream_ms":{upstream},'
            f'"bytes_in":{bytes_in},"bytes_out":{bytes_out},{shape.tail}}}\n'
        ).encode()


def write(sink: Sink, lines: Sequence[bytes]) -> None:
    """Send lines on their way."""
    if sink.console:
        for line in lines:
            _for_people(orjson.loads(line))
    else:
        sink.writer.write(b"".join(lines), len(lines))


def printed_id(request_id: str) -> str:
    """Return an app's request id as it may stand inside a JSON string."""
    return orjson.dumps(shown_id(request_id))[1:-1].decode()


def _members(**fields: object) -> str:
    """Return the members of a JSON object, without its braces."""
    return orjson.dumps(fields)[1:-1].decode()


def _for_people(event: dict[str, Any]) -> None:
    said = {name: value for name, value in event.items() if value is not None}
    level = said.pop("level")
    for own in ("timestamp", "logger", "event"):
        said.pop(own)
    (_people.warning if level == "warning" else _people.info)(EVENT, **said)
