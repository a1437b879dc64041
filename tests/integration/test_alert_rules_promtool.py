"""The rules in deploy/prometheus under promtool: they load, fire when they should, and only then."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml
from gpurig.common.process import run
from standins.deploy import PROMETHEUS, known_metrics, load_rules
from standins.prometheus import tool
from standins.promql import inspect

ALERTS = tuple(rule.name for rule in load_rules() if rule.alert)


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-fleet.yml"])
def test_the_configuration_and_its_rules_load(name):
    done = run([tool("promtool"), "check", "config", str(PROMETHEUS / name)], timeout_s=60)
    assert done.code == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_every_alert_fires_when_it_should_and_says_what_was_meant_and_is_silent_at_a_near_miss():
    tests = sorted(map(str, (PROMETHEUS / "tests").glob("*.yml")))
    done = run([tool("promtool"), "test", "rules", *tests], timeout_s=300)
    assert done.code == 0, done.stdout + done.stderr


def test_a_near_miss_is_near_and_would_be_seen_if_the_alert_fired(tmp_path):
    """With alerts that fire wherever the metrics are that they read, no near miss is silent."""
    shutil.copytree(PROMETHEUS / "tests", tmp_path / "tests")
    shutil.copytree(PROMETHEUS / "rules", tmp_path / "rules")
    rules = yaml.safe_load((tmp_path / "rules/alerts.yml").read_text(encoding="utf-8"))
    known = known_metrics()
    for group in rules["groups"]:
        for one in group["rules"]:
            found = inspect(one["expr"], known)
            one["expr"] = " or ".join(f"count({name})" for name in sorted(found.metrics))
            one["for"] = "0m"
            one["annotations"] = {}
    (tmp_path / "rules/alerts.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    silent = set()
    for path in sorted((tmp_path / "tests").glob("*.yml")):
        cases = yaml.safe_load(path.read_text(encoding="utf-8"))
        cases["tests"] = [one for one in cases["tests"] if not one["alert_rule_test"][0]["exp_alerts"]]
        path.write_text(yaml.safe_dump(cases), encoding="utf-8")
        done = run([tool("promtool"), "test", "rules", str(path)], timeout_s=300)
        noticed = set(re.findall(r"alertname: (\w+), time", done.stdout + done.stderr))
        silent |= {one["alert_rule_test"][0]["alertname"] for one in cases["tests"]} - noticed
    assert silent == set()
