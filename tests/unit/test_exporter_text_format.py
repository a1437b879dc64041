"""What a scraper reads: Prometheus' text format and OpenMetrics, held against the client library's own parsers."""

from __future__ import annotations

import math

import pytest
from gpurig.common.terminal import harmless
from gpurig.runner.exporter.exposition.text_format import Encoder, wants_openmetrics
from gpurig.runner.exporter.web.server import wants_gzip
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, UnknownMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

# What Prometheus 2.42 and 3.5 send.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PARSERS = {False: parse_text, True: parse_openmetrics}


class Families:
    """A collector that gives what a test sets."""

    def __init__(self, *families):
        self.families = families

    def collect(self):
        return self.families


def _encoder(*families) -> Encoder:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families(*families))
    return Encoder(registry)


def _family(kind, labels: dict[str, str], value: float):
    family = kind("gpurig_x", 'A "text"\\ with\na line.', labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


@pytest.mark.parametrize("openmetrics", [False, True])
@pytest.mark.parametrize("kind", [GaugeMetricFamily, CounterMetricFamily, UnknownMetricFamily])
@given(
    values=st.lists(st.text(), max_size=3),
    number=st.floats(allow_nan=False) | st.integers(min_value=0, max_value=2**64),
)
def test_whatever_is_in_a_label_every_parser_gives_back_its_harmless_form(openmetrics, kind, values, number):
    if kind is CounterMetricFamily:
        number = abs(number)
    labels = {f"l{index}": value for index, value in enumerate(values)}
    text = _encoder(_family(kind, labels, number)).encode(openmetrics=openmetrics).decode()
    [family] = PARSERS[openmetrics](text)
    [sample] = family.samples
    assert sample.labels == {name: harmless(value) for name, value in labels.items()}
    assert sample.value == float(number)
    assert sample.name == ("gpurig_x_total" if kind is CounterMetricFamily else "gpurig_x")
    assert family.documentation == 'A "text"\\ with\na line.'


@pytest.mark.parametrize(("openmetrics", "reference"), [(False, generate_latest), (True, generate_openmetrics)])
def test_it_is_what_the_client_library_writes(openmetrics, reference):
    families = [
        _family(GaugeMetricFamily, {"a": 'x"\\y', "b": "ü"}, 1e10),
        CounterMetricFamily("gpurig_y_total", "Text.", value=3),
        _family(GaugeMetricFamily, {}, math.inf),
    ]
    families[2].name = "gpurig_z"
    families[2].samples = [families[2].samples[0]._replace(name="gpurig_z")]
    encoder = _encoder(*families)
    assert encoder.encode(openmetrics=openmetrics) == reference(Families(*families))


def test_a_second_scrape_shows_new_values_and_forgets_series_that_ended():
    registry = CollectorRegistry(auto_describe=False)
    families = Families(_family(GaugeMetricFamily, {"a": "1"}, 1))
    registry.register(families)
    encoder = Encoder(registry)
    encoder.encode(openmetrics=False)
    families.families = (_family(GaugeMetricFamily, {"a": "2"}, 5),)
    assert b'gpurig_x{a="2"} 5.0\n' in encoder.encode(openmetrics=False)
    assert list(encoder._heads) == [("gpurig_x", ("2",))]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
        ("application/openmetrics-text;version=0.0.1", False),
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        (";;,=,text/plain", False),
    ],
)
def test_openmetrics_is_for_who_takes_version_1(accept, wanted):
    assert wants_openmetrics(accept) is wanted


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("", False),
        ("identity, *;q=0", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("x-gzip2", False),
    ],
)
def test_gzip_is_for_who_takes_it(accept, wanted):
    assert wants_gzip(accept) is wanted
