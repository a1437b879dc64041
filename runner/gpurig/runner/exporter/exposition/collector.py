"""The families of a scrape: the catalogue's, each with its series at this moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, UnknownMetricFamily
from prometheus_client.registry import Collector

from gpurig.runner.exporter.exposition.catalogue import METRICS
from gpurig.runner.exporter.exposition.dcgm_metrics import DCGM_METRICS
from gpurig.runner.exporter.exposition.view import View

_Family = GaugeMetricFamily | CounterMetricFamily | UnknownMetricFamily
_FAMILIES: dict[str, type[_Family]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "unknown": UnknownMetricFamily,
}


class GpurigCollector(Collector):
    """Turns a moment into metric families; touches no device."""

    def __init__(self, view: Callable[[], View], *, dcgm_names: bool = False) -> None:
        """Take what gives the moment, and whether dcgm-exporter's names are shown too."""
        self._view = view
        self._metrics = (*METRICS, *DCGM_METRICS) if dcgm_names else METRICS

    def collect(self) -> Iterator[_Family]:
        """Every family, those without a series included."""
        view = self._view()
        for metric in self._metrics:
            family = _FAMILIES[metric.kind](metric.name, metric.text, labels=metric.labels)
            for labels, value in metric.rows(view):
                if value is not None:
                    family.add_metric(labels, value)
            yield family
