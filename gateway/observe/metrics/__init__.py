"""Metrics: declared once (`families.py`), counted as plain numbers (`values.py`), shown to Prometheus."""
