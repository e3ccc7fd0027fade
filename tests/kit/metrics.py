"""Reads metrics as Prometheus does: from the text that the gateway serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import Metric

    from gateway.observe import Metrics


def scraped(metrics: Metrics, accept: str | None = None) -> str:
    """Return the text of a scrape."""
    return b"".join(metrics.exposition(accept)[0]).decode()


def families(metrics: Metrics) -> list[Metric]:
    """Return all families of a scrape."""
    return list(text_string_to_metric_families(scraped(metrics)))


def sample(metrics: Metrics, name: str, labels: Mapping[str, str] | None = None) -> float | None:
    """Return the value of one sample; None if the scrape does not contain it."""
    wanted = dict(labels or {})
    values = (
        each.value
        for family in families(metrics)
        for each in family.samples
        if (each.name, each.labels) == (name, wanted)
    )
    return next(values, None)
