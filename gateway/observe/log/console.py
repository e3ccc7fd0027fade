"""Renders events for people: one short line each, the most important first.

A request: time, level, method, route, status, milliseconds, client, then reason, code and request id. Fields that say
nothing (bytes, fingerprint, one attempt) are left to the JSON format. The event `started` becomes a banner.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping

COLOURS = {"debug": "2", "warning": "33", "error": "31", "critical": "31"}
"""SGR codes (ECMA-48 §8.3.117) by level; info has none."""
_SHORT_ID = 8
"""Characters of the id of a request that did not fail; the JSON format has the whole id."""
REQUEST = "request"
STARTED = "started"
UNCONFIGURED = {
    "clients": "clients: whoever reaches the data port may call, without a key",
    "tls": "tls: keys and answers are sent unencrypted, on a port that others reach",
    "admin": "admin: no health checks, no metrics, no status page",
    "admin_keys_sha256": "admin_keys_sha256: nothing can be changed over the admin port",
    "state_file": "state_file: a restart forgets the counts of budgets",
}
"""What the banner says of keys that are not set."""
_FIRST = frozenset({"timestamp", "level", "event", "logger", "exception", "stack"})


def render(event: MutableMapping[str, Any], *, colours: bool) -> str:
    """Return the lines of an event, without a newline at the end."""
    level = str(event.get("level", "info"))
    start = f"{_clock(str(event.get('timestamp', '')))} {level.upper():<7} "
    name = str(event.get("event", ""))
    if name == REQUEST and "duration_ms" in event:
        text = start + _request(event)
    elif name == STARTED and "prefixes" in event:
        text = start + _banner(event)
    else:
        text = start + " ".join([name, *_pairs(event, _FIRST)])
    text = "\n".join([text, *(str(event[key]) for key in ("stack", "exception") if event.get(key))])
    colour = COLOURS.get(level)
    return f"\x1b[{colour}m{text}\x1b[0m" if colours and colour else text


def _clock(timestamp: str) -> str:
    """Return the local time of day with milliseconds."""
    try:
        return datetime.fromisoformat(timestamp).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return timestamp


def _request(event: Mapping[str, Any]) -> str:
    milliseconds = f"{event['duration_ms']:.1f} ms"
    parts = [
        f"{event.get('method') or '-':<6}", f"{event.get('route') or '-':<12}", str(event.get("status")),
        f"{milliseconds:>10}", f"{event.get('client') or '-':<14}",
    ]  # fmt: skip
    if event.get("reason"):
        parts.append(f"{event['reason']} ")
    shown = {key: event.get(key) for key in ("code", "path")}
    if event.get("attempts", 0) > 1:
        shown["attempts"] = event["attempts"]
    name = str(event.get("request_id") or "-")
    shown["id"] = name if event.get("reason") or len(name) <= _SHORT_ID else f"{name[:_SHORT_ID]}…"
    return " ".join([*parts, *_pairs(shown, frozenset())])


def _banner(event: Mapping[str, Any]) -> str:
    lines = ["Gatepass is running", f"  apps call      {event['scheme']}://{event['data']}"]
    lines += [f"                 {prefix}/*" for prefix in event["prefixes"]] or ["                 no routes"]
    lines.append(f"  status page    http://{event['admin']}/status" if event["admin"] else "  status page    none")
    names = event["not_configured"]
    lines += [f"  not configured {UNCONFIGURED.get(name, name)}" for name in names]
    return "\n".join(lines)


def _pairs(event: Mapping[str, Any], without: frozenset[str]) -> Iterator[str]:
    for key, value in event.items():
        if key not in without and value is not None:
            text = value if isinstance(value, str) else repr(value)
            yield f"{key}={text!r}" if isinstance(value, str) and (not text or " " in text) else f"{key}={text}"
