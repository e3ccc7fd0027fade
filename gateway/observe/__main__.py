"""Prints the table of `docs/metrics.md`: `python -m gateway.observe`."""

import sys

from gateway.observe.metrics.families import metrics_markdown

sys.stdout.write(metrics_markdown())
