"""Metrics, logs, traces, and the redaction of everything that is printed.

Imports only the floor below (`model`, `errors`). Has state of the process: its one log, and the one set of secrets to
keep out of it.
"""

from gateway.observe.journal import Journal
from gateway.observe.log.setup import (
    adjust_logging,
    close_logging,
    configure_logging,
    current_logging,
    get_logger,
    logging_is_temporary,
)
from gateway.observe.metrics.children import ClientMetrics, CredentialMetrics, PlaneMetrics, RouteMetrics
from gateway.observe.metrics.families import metrics_markdown
from gateway.observe.metrics.registry import Metrics
from gateway.observe.metrics.store import StoreMetrics, StoreState
from gateway.observe.metrics.values import Value
from gateway.observe.redaction.matcher import forms
from gateway.observe.redaction.redact import OwnWords, redact, redact_text, register, register_all
from gateway.observe.trace.otlp import Exporter, Tracing, TracingUnavailable
from gateway.observe.trace.spans import Trace, Tracer, read_traceparent

__all__ = [
    "ClientMetrics",
    "CredentialMetrics",
    "Exporter",
    "Journal",
    "Metrics",
    "OwnWords",
    "PlaneMetrics",
    "RouteMetrics",
    "StoreMetrics",
    "StoreState",
    "Trace",
    "Tracer",
    "Tracing",
    "TracingUnavailable",
    "Value",
    "adjust_logging",
    "close_logging",
    "configure_logging",
    "current_logging",
    "forms",
    "get_logger",
    "logging_is_temporary",
    "metrics_markdown",
    "read_traceparent",
    "redact",
    "redact_text",
    "register",
    "register_all",
]
