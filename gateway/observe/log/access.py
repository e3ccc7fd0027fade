"""The event `request`: one line per request, for a few microseconds, also when every request fails.

Bypasses structlog's processors. A line is joined from parts, and the parts that repeat (route, client, method, status)
are rendered once and kept by `journal.py`. Most values need no redaction, because they are names from the
configuration, numbers, fingerprints and addresses. Values that an app or a vendor can influence (request id, method,
reason) are redacted here. A path or a query is never printed.
"""

from __future__ import annotations

from random import random
from time import gmtime, strftime
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.model.http import COMMON_METHODS, SERVER_ERROR
from gateway.observe.log.setup import ACCESS, get_logger
from gateway.observe.redaction.redact import SHORT, redact_often, redact_text, shown_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.observe.log.setup import Sink

EVENT: Final = "request"

_people = get_logger(ACCESS)
WARNED: Final = frozenset({
    "client_unknown", "client_forbidden", "rate_limited", "method_not_allowed", "path_refused", "aborted",
})  # fmt: skip
"""Further codes that are warnings: access control, and a vendor that broke off after its response head."""


class LineTemplate:
    """The rendered parts of a line that requests of one kind share."""

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

        `code` is empty for the vendor's own answer. `attempts` is how often the request was sent to the vendor.
        `fingerprint` is that of the token sent last. `path` is a template of the configuration, never the path itself.
        `reason` says why the gateway failed; with an empty `code`, what was wrong with the vendor's answer.
        """
        # An operator can act on failures of a server, be it the gateway's own or the vendor's.
        self.warning = status >= SERVER_ERROR or code in WARNED or (bool(reason) and not code)
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
        """Return whether this request gets a line. Warnings get one whatever `logs.access` and `logs.sample` say."""
        if self.warning:
            return sink.failures
        return sink.access and (sink.sample >= 1 or not self.good or random() < sink.sample)  # noqa: S311


class LineRenderer:
    """Renders the lines of requests."""

    __slots__ = ("_second", "_stamp")

    def __init__(self) -> None:
        self._second = 0
        self._stamp = ""

    def line(  # noqa: PLR0917 - called once a request: keywords would cost more than the line
        self,
        template: LineTemplate,
        at: float,
        request_id: str,
        trace_id: str | None,
        seconds: float,
        upstream_seconds: float | None,
        bytes_in: int,
        bytes_out: int,
    ) -> bytes:
        """Return the line of a request with its newline.

        `at` is in seconds since the epoch. `request_id` and `trace_id` are printed as they are. Durations are passed in
        seconds and printed in milliseconds.
        """
        second = int(at)
        if second != self._second:
            self._second, self._stamp = second, strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        trace = "null" if trace_id is None else f'"{trace_id}"'
        upstream = "null" if upstream_seconds is None else int(upstream_seconds * 1e6) / 1e3
        return (
            f'{{"timestamp":"{self._stamp}.{int((at - second) * 1e6):06}Z",{template.head},'
            f'"request_id":"{request_id}","trace_id":{trace},{template.middle},'
            f'"duration_ms":{int(seconds * 1e6) / 1e3},"upstream_ms":{upstream},'
            f'"bytes_in":{bytes_in},"bytes_out":{bytes_out},{template.tail}}}\n'
        ).encode()


def write(sink: Sink, lines: Sequence[bytes]) -> None:
    """Write lines to the sink."""
    if sink.console:
        for line in lines:
            _for_people(orjson.loads(line))
    else:
        sink.writer.write(b"".join(lines), len(lines))


def printed_id(request_id: str) -> str:
    """Return an app's request id, redacted and escaped for a JSON string."""
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
