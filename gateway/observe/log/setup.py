"""Structured logging: structlog and the standard library's loggers share one processor chain and one writer.

The chain of every logger ends with redaction and then a renderer. Until `configure_logging` is called, events are
dropped, so that library messages do not appear in the output of commands. Standard output gets one JSON object per
line, or readable lines on a terminal. The process's logging state lives in this module.
"""

from __future__ import annotations

import atexit
import logging
import sys
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import orjson
import structlog

from gateway.observe.log.console import render as render_console
from gateway.observe.log.writer import Writer
from gateway.observe.redaction.redact import redact

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from structlog.typing import FilteringBoundLogger, Processor

    from gateway.model import Logs

FIRST = ("timestamp", "level", "event", "logger")
"""The first fields of every line, in this order."""


class Sink(NamedTuple):
    """Where events go now, and which events of requests are written."""

    writer: Writer
    console: bool
    terminal: bool
    """Whether the stream is a terminal, which understands colours."""
    access: bool
    """Whether requests at level info are logged."""
    failures: bool
    """Whether requests at level warning are logged."""
    sample: float
    """Share of the requests answered with 2xx that are logged, 0 to 1."""


class Buffered(Protocol):
    """Something that buffers events."""

    def flush(self) -> None:
        """Log the buffered events now."""


ACCESS = "gatepass.access"
"""The logger of the event `request`."""
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_sink: Sink | None = None
_closing: set[Buffered] = set()
_logs: Logs | None = None
_temporary = False
_levels: dict[str, int] = {}
_least = logging.INFO
_adjusted: set[str] = set()
_METHOD_LEVELS = _LEVELS | {"exception": logging.ERROR}


def current_sink() -> Sink | None:
    """Return the current sink; None before logging is configured and after it is closed."""
    return _sink


def flush_before_closing(holder: Buffered) -> None:
    """Flush `holder` before the log is closed or adjusted, until `stop_flushing(holder)`."""
    _closing.add(holder)


def stop_flushing(holder: Buffered) -> None:
    """No longer flush `holder`."""
    _closing.discard(holder)


def _flush() -> None:
    for holder in tuple(_closing):
        holder.flush()


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger `name`, such as `gatepass.tokens`. May be called at import, before logging is configured."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def configure_logging(logs: Logs, stream: IO[Any] | None = None) -> None:
    """Send events to `stream` (default: standard output). Flushes and replaces the previous configuration."""
    global _temporary  # noqa: PLW0603  the process has one log
    close_logging()
    _temporary = False
    out = sys.stdout if stream is None else stream
    console = logs.format == "console" or (logs.format == "auto" and _is_terminal(out))
    _apply(logs, Writer(out, limit=logs.buffer), console=console, terminal=_is_terminal(out))


def adjust_logging(logs: Logs, *, temporary: bool = False) -> None:
    """Apply levels and sampling at run time; stream and format stay. Does nothing while no log is open.

    `temporary` settings are set by hand and last until the next call that is not temporary: a reload.
    """
    global _temporary  # noqa: PLW0603  the process has one log
    if _sink is not None:
        _flush()
        _apply(logs, _sink.writer, console=_sink.console, terminal=_sink.terminal)
        _temporary = temporary


def logging_is_temporary() -> bool:
    """Return whether the current settings were set by hand and not by a configuration."""
    return _temporary


def current_logging() -> Logs | None:
    """Return the current settings; None while no log is open."""
    return None if _sink is None else _logs


def _apply(logs: Logs, writer: Writer, *, console: bool, terminal: bool) -> None:
    global _sink, _logs, _levels  # noqa: PLW0603  the process has one log
    level, _levels = _LEVELS[logs.level], {name: _LEVELS[each] for name, each in logs.loggers}
    access = _level_of(ACCESS, level)
    _logs = logs
    requests, failures = logs.access and access <= logging.INFO, access <= logging.WARNING
    _sink = Sink(writer, console, terminal, requests, failures, logs.sample)
    _configure_structlog(level, renderer=_console if console else _json)
    _configure_stdlib(level, renderer=_console if console else _json)


def _level_of(name: str, otherwise: int) -> int:
    """Return the level of a logger: its own, or that of its nearest configured parent."""
    while name:
        if name in _levels:
            return _levels[name]
        name = name.rpartition(".")[0]
    return otherwise


def close_logging() -> None:
    """Flush for at most one second, then stop logging. Does nothing if no log is open."""
    global _sink
    _flush()
    sink, _sink = _sink, None
    if sink is not None:
        sink.writer.close()


def render_json(event: object) -> bytes:
    """Return one line of JSON. Redaction leaves only values that JSON can represent."""
    return orjson.dumps(event, default=repr, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)


# ------------------------------------------------------------------------------------------------------- the chain


def redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Remove every secret from an event, keys included. Always the last processor before the renderer."""
    return cast("MutableMapping[str, Any]", redact(event))


def _drop_when_closed(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _sink is None:
        raise structlog.DropEvent
    return event


def _drop_below_level(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _METHOD_LEVELS.get(method, logging.CRITICAL) < _level_of(logger.name, _least):
        raise structlog.DropEvent
    return event


def _add_name(logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.setdefault("logger", logger.name)
    return event


def _in_order(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: event[name] for name in FIRST if name in event} | dict(event)


def _json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    return render_json(event)


def _console(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    colours = _sink is not None and _sink.terminal
    return f"{render_console(event, colours=colours)}\n".encode("utf-8", "backslashreplace")


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _in_order,
    ]


def _configure_structlog(level: int, renderer: Processor) -> None:
    global _least  # noqa: PLW0603  the process has one log
    _least = level
    single = [_drop_below_level] if _levels else []
    structlog.configure(
        processors=[_drop_when_closed, *single, _add_name, *_shared(), redact_event, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(min([level, *_levels.values()])),
        logger_factory=_SinkLogger,
        cache_logger_on_first_use=False,  # so that loggers created at import follow later configurations
    )


class _SinkLogger:
    """Writes finished lines for structlog; knows the name of its logger."""

    def __init__(self, name: str = "root") -> None:
        self.name = name

    def msg(self, line: bytes) -> None:
        if _sink is not None:
            _sink.writer.write(line)

    debug = info = warning = error = critical = exception = fatal = log = msg


# -------------------------------------------------------------------------------------------- the standard library


class _Handler(logging.Handler):
    """Sends records of the standard library's loggers through the same chain."""

    def __init__(self, renderer: Processor) -> None:
        super().__init__()
        self._chain = [*_shared(), redact_event, renderer]

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001  arguments that do not fit: logging would print them unredacted
            message = f"a log record of {record.name}:{record.lineno} cannot be formatted ({type(error).__name__})"
        event: Any = {"event": message, "logger": record.name}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        if record.stack_info:
            event["stack"] = record.stack_info
        for processor in self._chain:
            event = processor(None, record.levelname.lower(), event)
        if _sink is not None:
            _sink.writer.write(event)


def _configure_stdlib(level: int, renderer: Processor) -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
    root.addHandler(_Handler(renderer))
    root.setLevel(level)
    for name in _adjusted:
        logging.getLogger(name).setLevel(logging.NOTSET)
    _adjusted.clear()
    for noisy in ("aiohttp.access", "asyncio"):  # aiohttp's access log repeats our own; asyncio logs much at debug
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    for name, each in _levels.items():
        logging.getLogger(name).setLevel(each)
        _adjusted.add(name)


def _is_terminal(stream: IO[Any]) -> bool:
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty())


_configure_structlog(logging.INFO, _json)
atexit.register(close_logging)
