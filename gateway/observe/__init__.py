"""Everything that makes Gatepass visible: metrics, logs, and the redaction that no event escapes.

Knows the model only. The one package with global state: a process has one log and one set of secrets to keep out of
it.
"""

from gateway.observe.bound import ClientMetrics, CredentialMetrics, RouteMetrics
from gateway.observe.cells import Level
from gateway.observe.families import metrics_markdown
from gateway.observe.journal import Journal
from gateway.observe.logs import adjust_logging, close_logging, configure_logging, current_logging, get_logger
from gateway.observe.metrics import Metrics
from gateway.observe.needles import forms
from gateway.observe.otlp import Exporter, Tracing, TracingUnavailable
from gateway.observe.redaction import redact, redact_text, register, register_all
from gateway.observe.spans import Trace, Tracer, read_traceparent

__all__ = [
    "ClientMetrics",
    "CredentialMetrics",
    "Exporter",
    "Journal",
    "Level",
    "Metrics",
    "RouteMetrics",
    "Trace",
    "Tracer",
    "Tracing",
    "TracingUnavailable",
    "adjust_logging",
    "close_logging",
    "configure_logging",
    "current_logging",
    "forms",
    "get_logger",
    "metrics_markdown",
    "read_traceparent",
    "redact",
    "redact_text",
    "register",
    "register_all",
]
