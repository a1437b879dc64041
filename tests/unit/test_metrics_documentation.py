"""docs/metrics.md lists exactly the metrics that exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from gpurig.runner.exporter.exposition.catalogue import METRICS
from gpurig.runner.exporter.exposition.dcgm_metrics import DCGM_METRICS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("metrics_table", ROOT / "scripts" / "metrics_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_tables_are_the_catalogue(tables):
    text = tables.DOCUMENT.read_text(encoding="utf-8")
    assert tables.with_tables(text) == text, "run `make docs`"
    documented = re.findall(r"^\| `((?:gpurig|DCGM)_\w+)`", text, flags=re.MULTILINE)
    assert sorted(documented) == sorted(one.name for one in (*METRICS, *DCGM_METRICS))


def test_a_document_without_the_marks_is_an_error(tables):
    with pytest.raises(ValueError, match="lacks the marks"):
        tables.with_tables("# Metrics\n")


def test_names_follow_prometheus_conventions():
    assert len({one.name for one in METRICS}) == len(METRICS)
    for one in METRICS:
        assert re.fullmatch(r"gpurig_[a-z0-9_]+", one.name)
        assert (one.kind == "counter") == one.name.endswith("_total")
        assert len(set(one.labels)) == len(one.labels)
        assert one.text.endswith(".")
        assert "\n" not in one.text
