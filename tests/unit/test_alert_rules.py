"""The rules in deploy/prometheus ask for what the exporter has, can be acted on, and are tested from both sides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml
from standins.deploy import PROMETHEUS, REPOSITORY, Rule, impossible_values, known_metrics, load_rules
from standins.promql import TARGET_LABELS, inspect

RULES = load_rules()
ALERTS = tuple(rule for rule in RULES if rule.alert)
KNOWN = known_metrics()
RUNBOOK = (REPOSITORY / "docs/alerts.md").read_text(encoding="utf-8")

_LABEL = re.compile(r"\$labels\.(\w+)")
_QUERY = re.compile(r'printf "((?:[^"\\]|\\.)*)"[^|}]*\| query')


def _named(rules: tuple[Rule, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rule", rules, ids=[rule.name for rule in rules])


@_named(RULES)
def test_a_rule_asks_for_names_labels_and_values_that_the_exporter_has(rule):
    found = inspect(rule.expression, KNOWN)
    assert found.faults == ()
    assert impossible_values(found) == []


@_named(tuple(rule for rule in RULES if not rule.alert))
def test_a_recorded_name_tells_level_metric_and_operation(rule):
    level, metric, _ = rule.name.split(":")
    assert level in {"instance", "gpu", "project"}
    assert any(name.startswith(metric) for name in KNOWN if ":" not in name)


@_named(ALERTS)
def test_an_alert_says_how_long_how_urgent_what_and_where(rule):
    assert re.fullmatch(r"\d+[smh]", rule.keys["for"])
    assert rule.keys["labels"]["severity"] in {"critical", "warning", "info"}
    annotations = rule.keys["annotations"]
    assert set(annotations) == {"summary", "description", "runbook"}
    labels = inspect(rule.expression, KNOWN).labels or frozenset()
    texts = annotations["summary"] + annotations["description"]
    assert set(_LABEL.findall(texts)) <= labels
    # Somebody with several boxes must see which one it is.
    assert "instance" not in labels or "$labels.instance" in texts


@_named(ALERTS)
def test_what_an_annotation_asks_prometheus_for_exists(rule):
    for asked in _QUERY.findall(rule.keys["annotations"]["description"]):
        assert inspect(asked.replace("%q", '"x"'), KNOWN).faults == ()
    assert rule.keys["annotations"]["description"].count("query") == len(
        _QUERY.findall(rule.keys["annotations"]["description"])
    )


def test_every_alert_has_its_section_in_the_runbook_and_every_section_its_alert():
    assert [f"docs/alerts.md#{rule.name.lower()}" for rule in ALERTS] == [
        rule.keys["annotations"]["runbook"] for rule in ALERTS
    ]
    assert re.findall(r"^### (Gpurig\w+)$", RUNBOOK, re.MULTILINE) == [rule.name for rule in ALERTS]


def test_the_runbook_shows_how_urgent_each_alert_is():
    shown = dict(re.findall(r"^### (Gpurig\w+)\n\n(\w+)\. ", RUNBOOK, re.MULTILINE))
    assert shown == {rule.name: rule.keys["labels"]["severity"].capitalize() for rule in ALERTS}


@dataclass(frozen=True)
class Case:
    """A case of `promtool test rules`.

    Attributes:
        metrics: names of its input series.
        fires: whether it expects the alert.
    """

    file: str
    name: str
    alert: str
    metrics: frozenset[str]
    fires: bool


def _cases() -> Iterator[Case]:
    for path in sorted((PROMETHEUS / "tests").glob("*.yml")):
        for one in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            [asked] = one["alert_rule_test"]
            names = frozenset(series["series"].partition("{")[0] for series in one["input_series"])
            yield Case(path.name, one["name"], asked["alertname"], names, bool(asked["exp_alerts"]))


CASES = tuple(_cases())


def _read(rule: Rule) -> frozenset[str]:
    """The exporter's metrics that a rule reads, those behind a recorded one included."""
    recorded = {one.name: one for one in RULES if not one.alert}
    names: set[str] = set()
    for name in inspect(rule.expression, KNOWN).metrics:
        names |= _read(recorded[name]) if name in recorded else {name}
    return frozenset(names)


@_named(ALERTS)
def test_an_alert_has_a_case_in_which_it_fires_and_a_near_miss_of_the_same_metrics(rule):
    mine = [case for case in CASES if case.alert == rule.name]
    assert {case.fires for case in mine} == {True, False}
    for case in mine:
        assert case.name.startswith(f"{rule.name} {'fires' if case.fires else 'near miss: '}"), case
        # The hottest place stands for the chip where a card tells both; one of two asked for by absent() is enough.
        optional = {"gpurig_gpu_hotspot_temperature_celsius", "gpurig_build_info"}
        assert case.fires or case.metrics >= _read(rule) - optional, case
        assert case.metrics <= set(KNOWN), case


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("gpurig_gpu_upp == 0", "no metric gpurig_gpu_upp"),
        ('{uuid="x"}', "no metric"),
        ('gpurig_gpu_up{index="0"}', "gpurig_gpu_up has no label index"),
        ("sum by (project) (gpurig_job_gpu_memory_bytes)", "no label project to aggregate by"),
        ("sum without (name) (gpurig_gpu_up)", "no label name to aggregate by"),
        ("gpurig_gpu_temperature_celsius > gpurig_gpu_temperature_limit_celsius", "labels differ"),
        ("gpurig_gpu_up * on (instance, pci) gpurig_gpu_info", "no label pci to join by"),
        ("gpurig_gpu_up * on (instance, uuid) group_left (model) gpurig_gpu_info", "no label model to copy"),
        ("gpurig_gpu_up and sum by (uuid) (gpurig_gpu_info)", "labels differ"),
        ("gpurig_gpu_up or gpurig_runner_entries", "labels differ"),
        ("sum by (gpu) (rate(gpurig_gpu_up[5m]) > ", "unclosed left parenthesis"),
        ('label_replace(gpurig_gpu_up, "a", "b", "c", "d")', "cannot judge label_replace"),
    ],
)
def test_the_check_finds_what_would_silently_return_nothing(expression, fault):
    assert any(fault in one for one in inspect(expression, KNOWN).faults), inspect(expression, KNOWN).faults


@pytest.mark.parametrize(
    ("expression", "labels"),
    [
        ("gpurig_gpu_up", TARGET_LABELS | {"gpu", "uuid"}),
        ("sum by (gpu) (gpurig_gpu_up)", {"gpu"}),
        ("sum without (uuid) (rate(gpurig_gpu_energy_joules_total[5m]))", TARGET_LABELS | {"gpu"}),
        ("sum(gpurig_gpu_up)", set()),
        ("topk(3, gpurig_gpu_up)", TARGET_LABELS | {"gpu", "uuid"}),
        ("gpurig_gpu_up == on (gpu) gpurig_gpu_up", {"gpu"}),
        ("time() - gpurig_models_bytes", TARGET_LABELS),
        ("time()", None),
        (
            "gpurig_gpu_up * on (instance, uuid) group_left (name) gpurig_gpu_info",
            TARGET_LABELS | {"gpu", "uuid", "name"},
        ),
        ("gpurig_gpu_info * on (uuid) group_right () gpurig_gpu_up", TARGET_LABELS | {"gpu", "uuid"}),
        ('absent(up{job="gpurig", instance=~"a.*"})', {"job"}),
        ("max_over_time(sum by (gpu) (gpurig_gpu_up)[1h:5m])", {"gpu"}),
    ],
)
def test_the_check_knows_the_labels_of_a_result(expression, labels):
    found = inspect(expression, KNOWN)
    assert found.faults == ()
    assert found.labels == (None if labels is None else frozenset(labels))


@pytest.mark.parametrize(
    ("matcher", "good"),
    [('=~"hw_thermal|sw_thermal"', True), ('="thermal"', False), ('=~".*"', False), ('!="idle"', True)],
)
def test_the_check_knows_the_values_of_a_label(matcher, good):
    found = inspect(f"gpurig_gpu_throttle_reason{{reason{matcher}}}", KNOWN)
    assert (impossible_values(found) == []) is good


def test_both_configurations_differ_only_in_how_they_reach_the_boxes():
    one, fleet = (
        yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))
        for name in ("prometheus.yml", "prometheus-fleet.yml")
    )
    jobs = [dict(config.pop("scrape_configs")[0]) for config in (one, fleet)]
    assert one == fleet
    # The rules ask for up{job="gpurig"}.
    assert [job["job_name"] for job in jobs] == ["gpurig", "gpurig"]
