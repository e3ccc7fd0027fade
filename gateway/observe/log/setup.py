"""Structured logging, set up once: structlog and the standard library's loggers through one chain, one way out.

The chain ends with redaction and a renderer, in this order, whatever the logger. Until `configure_logging` is called
events go nowhere: commands that print for people are not disturbed by what a library has to say. Standard output
gets one JSON object per line, or, on a terminal, lines for people. Global state of the process lives in this module.
"""

from __future__ import annotations

import atexit
import logging
import sys
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import orjson
import structlog

from gateway.observe.log.writer import Writer
from gateway.observe.redaction.redact import redact

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from structlog.typing import FilteringBoundLogger, Processor

    from gateway.model import Logs

FIRST = ("timestamp", "level", "event", "logger")
"""Fields that open every line, in this order."""


class Sink(NamedTuple):
    """Where events go at the moment: a writer, and how they look."""

    writer: Writer
    console: bool
    access: bool
    """Whether every request has its event; one that failed has it anyway."""
    failures: bool
    """Whether the level lets warnings of the access log through."""
    sample: float
    """Share of the requests answered with 2xx that have their event."""


class Unwritten(Protocol):
    """Somebody who holds events back for a moment."""

    def write_up(self) -> None:
        """Log them now."""


ACCESS = "gatepass.access"
"""The logger of the event that every request has."""
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_sink: Sink | None = None
_closing: set[Unwritten] = set()
_logs: Logs | None = None
_levels: dict[str, int] = {}
_least = logging.INFO
_adjusted: set[str] = set()
_METHOD_LEVELS = _LEVELS | {"exception": logging.ERROR}


def current_sink() -> Sink | None:
    """Return where events go; None until logging is configured, and after it was closed."""
    return _sink


def before_closing(holder: Unwritten) -> None:
    """Have `holder` write up what it holds before the log is closed or adjusted, until it has `nothing_more`."""
    _closing.add(holder)


def nothing_more(holder: Unwritten) -> None:
    """Forget `holder`."""
    _closing.discard(holder)


def _write_up() -> None:
    for holder in tuple(_closing):
        holder.write_up()


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger `name` (`gatepass.tokens`); may be called at import, long before the configuration is read."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def configure_logging(logs: Logs, stream: IO[Any] | None = None) -> None:
    """Send events to `stream` (standard output) from now on; what was configured before is written out and replaced."""
    close_logging()
    out = sys.stdout if stream is None else stream
    console = logs.format == "console" or (logs.format == "auto" and _is_terminal(out))
    _apply(logs, Writer(out, limit=logs.buffer), console=console)


def adjust_logging(logs: Logs) -> None:
    """Take over levels and sampling, at run time; stream and format stay. Nothing happens while no log is open."""
    if _sink is not None:
        _write_up()
        _apply(logs, _sink.writer, console=_sink.console)


def current_logging() -> Logs | None:
    """Return the settings in force; None while no log is open."""
    return None if _sink is None else _logs


def _apply(logs: Logs, writer: Writer, *, console: bool) -> None:
    global _sink, _logs, _levels  # noqa: PLW0603  the process has one log
    level, _levels = _LEVELS[logs.level], {name: _LEVELS[each] for name, each in logs.loggers}
    access = _level_of(ACCESS, level)
    _logs = logs
    _sink = Sink(writer, console, logs.access and access <= logging.INFO, access <= logging.WARNING, logs.sample)
    _configure_structlog(level, renderer=_console if console else _json)
    _configure_stdlib(level, renderer=_console if console else _json)


def _level_of(name: str, otherwise: int) -> int:
    """Return the level of a logger: its own, or that of the nearest one above it that has one."""
    while name:
        if name in _levels:
            return _levels[name]
        name = name.rpartition(".")[0]
    return otherwise


def close_logging() -> None:
    """Write what is buffered, wait for it a second at most, and log nothing any more. Harmless when nothing is open."""
    global _sink
    _write_up()
    sink, _sink = _sink, None
    if sink is not None:
        sink.writer.close()


def render_json(event: object) -> bytes:
    """Return one line: what redaction leaves over is always JSON."""
    return orjson.dumps(event, default=repr, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)


# ------------------------------------------------------------------------------------------------------- the chain


def redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take every secret out of an event, its keys included. Always the last processor before a renderer."""
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


_people = structlog.dev.ConsoleRenderer(
    colors=True, timestamp_key="timestamp", exception_formatter=structlog.dev.plain_traceback
)


def _console(logger: object, method: str, event: MutableMapping[str, Any]) -> bytes:
    return f"{_people(logger, method, event)}\n".encode("utf-8", "backslashreplace")


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
        cache_logger_on_first_use=False,  # loggers made at import follow every later configuration
    )


class _SinkLogger:
    """What structlog calls with the finished line; carries the name that the logger was asked for with."""

    def __init__(self, name: str = "root") -> None:
        self.name = name

    def msg(self, line: bytes) -> None:
        if _sink is not None:
            _sink.writer.write(line)

    debug = info = warning = error = critical = exception = fatal = log = msg


# -------------------------------------------------------------------------------------------- the standard library


class _Handler(logging.Handler):
    """Takes the records of the standard library's loggers through the same chain."""

    def __init__(self, renderer: Processor) -> None:
        super().__init__()
        self._chain = [*_shared(), redact_event, renderer]

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001  a record whose arguments do not fit: logging would print them raw
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
    for noisy in ("aiohttp.access", "asyncio"):  # one says what our own access event says; the other debugs by default
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    for name, each in _levels.items():
        logging.getLogger(name).setLevel(each)
        _adjusted.add(name)


def _is_terminal(stream: IO[Any]) -> bool:
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty())


_configure_structlog(logging.INFO, _json)
atexit.register(close_logging)
