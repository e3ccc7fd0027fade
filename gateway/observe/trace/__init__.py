"""Traces: W3C Trace Context and the spans of one exchange; `otlp.py` alone knows OpenTelemetry."""
