"""`python -m gateway.observe` prints the table of `docs/metrics.md`."""

import sys

from gateway.observe.metrics.families import metrics_markdown

sys.stdout.write(metrics_markdown())
