"""Everything that makes Gatepass visible: metrics, logs, and the redaction that no event escapes.

Knows the model only. The one package with global state: a process has one log and one set of secrets to keep out of
it.
"""

from gateway.observe.access import AccessLog
from gateway.observe.families import metrics_markdown
from gateway.observe.logs import close_logging, configure_logging, get_logger
from gateway.observe.metrics import CredentialMetrics, Metrics, RouteMetrics
from gateway.observe.redaction import redact, redact_text, register, register_all

__all__ = [
    "AccessLog",
    "CredentialMetrics",
    "Metrics",
    "RouteMetrics",
    "close_logging",
    "configure_logging",
    "get_logger",
    "metrics_markdown",
    "redact",
    "redact_text",
    "register",
    "register_all",
]
