"""What lies in deploy/, as the tests read it: rules, their tests, and the metrics that they may ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from gpurig.runner.exporter.exposition.catalogue import METRICS
from gpurig.runner.exporter.exposition.gpu_metrics import THROTTLE_REASONS
from gpurig.runner.exporter.jobs.model import OomKind

from standins.promql import TARGET_LABELS, Inspected, Labels, inspect

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
PROMETHEUS = DEPLOY / "prometheus"

# What Prometheus itself adds to a scrape, what is told of a process, node_exporter's age of a textfile, and the alerts.
_OF_A_TARGET = (
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "process_start_time_seconds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
)
_NOT_GPURIGS: dict[str, Labels] = {
    **dict.fromkeys(_OF_A_TARGET, TARGET_LABELS),
    "node_textfile_mtime_seconds": TARGET_LABELS | {"file"},
    "ALERTS": TARGET_LABELS | {"alertname", "alertstate", "severity"},
}

# (metric, label): the values that there are (figures.py, jobs/model.py).
VALUES: dict[tuple[str, str], frozenset[str]] = {
    ("gpurig_gpu_throttle_reason", "reason"): frozenset(THROTTLE_REASONS),
    ("gpurig_gpu_temperature_limit_celsius", "limit"): frozenset({"slowdown", "shutdown", "max_operating", "memory"}),
    ("gpurig_gpu_clock_hertz", "clock"): frozenset({"graphics", "sm", "memory", "video"}),
    ("gpurig_gpu_clock_max_hertz", "clock"): frozenset({"graphics", "sm", "memory", "video"}),
    ("gpurig_gpu_ecc_errors_total", "kind"): frozenset({"corrected", "uncorrected"}),
    ("gpurig_disk_free_bytes", "purpose"): frozenset({"models", "engine"}),
    ("gpurig_disk_total_bytes", "purpose"): frozenset({"models", "engine"}),
    ("gpurig_images_bytes", "kind"): frozenset({"job", "exporter", "runner"}),
    ("gpurig_job_oom_total", "memory"): frozenset(get_args(OomKind)),
    ("gpurig_project_oom_total", "memory"): frozenset(get_args(OomKind)),
}


@dataclass(frozen=True)
class Rule:
    """A recording or alerting rule, as Prometheus reads it."""

    name: str
    expression: str
    alert: bool
    keys: Mapping[str, Any]


def load_rules() -> tuple[Rule, ...]:
    """Every rule, those that record first."""
    rules = []
    for file in ("recording.yml", "alerts.yml"):
        for group in yaml.safe_load((PROMETHEUS / "rules" / file).read_text(encoding="utf-8"))["groups"]:
            rules += [
                Rule(one.get("alert") or one["record"], str(one["expr"]), "alert" in one, one) for one in group["rules"]
            ]
    return tuple(rules)


def known_metrics() -> dict[str, Labels]:
    """Every metric of the catalogue, those that the rules record, and Prometheus' own, each with its labels."""
    known = {one.name: TARGET_LABELS | frozenset(one.labels) for one in METRICS} | _NOT_GPURIGS
    for rule in load_rules():
        if not rule.alert:
            known[rule.name] = inspect(rule.expression, known).labels or frozenset()
    return known


def impossible_values(found: Inspected) -> list[str]:
    """The matchers that no value of their label can fulfil, or that every one does."""
    wrong = []
    for metric, label, operator, value in found.matchers:
        values = VALUES.get((metric, label))
        if values is None or "$" in value:
            continue
        fulfil = {one for one in values if bool(re.fullmatch(value, one)) == (operator in {"Equal", "Re"})}
        if not fulfil or fulfil == values:
            wrong.append(f"{metric}: {label} {operator} {value}")
    return wrong
