"""deploy/ with a real Prometheus: it scrapes the exporter, its rules work, and every panel shows data."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from gpurig.common.waiting import wait_for
from standins.deploy import PROMETHEUS, REPOSITORY, load_rules
from standins.metrics_server import PASSWORD, serving_metrics, write_web_config
from standins.nvml import FakeNvml
from standins.prometheus import Prometheus, free_port, labels, running_prometheus
from standins.promql import without_variables

sys.path.insert(0, str(REPOSITORY / "scripts"))

from dashboard.gpurig import DASHBOARD

QUERIES = [
    pytest.param(query.expression, query.empty_is_good, id=f"{panel.title}-{number}")
    for row in DASHBOARD.rows
    for panel in row.panels
    for number, query in enumerate(panel.queries)
]
# What Grafana puts in for "all", and a time in which there are some of a scrape a second.
EVERYTHING = {one.name: ".*" for one in DASHBOARD.variables}
DURATION = "20s"
LIMIT_S = 90.0


def _tried(folder: Path, name: str, ports: Mapping[int, int]) -> Path:
    """A copy of a configuration in deploy/prometheus that scrapes every second, with these ports instead of its own."""
    shutil.copytree(PROMETHEUS, folder)
    text = (folder / name).read_text(encoding="utf-8")
    for usual, port in ports.items():
        assert f":{usual}" in text
        text = text.replace(f":{usual}", f":{port}")
    config: dict[str, Any] = yaml.safe_load(text)
    assert set(config["global"]) == {"scrape_interval", "evaluation_interval"}
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    (folder / name).write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / name


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes the demo as deploy/prometheus/prometheus.yml scrapes a box, and has some seconds of it."""
    folder = tmp_path_factory.mktemp("monitoring")
    own = free_port()
    with serving_metrics(folder / "exporter.log", "--backend", "demo") as port:
        config = _tried(folder / "prometheus", "prometheus.yml", {9476: port, 9090: own})
        with running_prometheus(config, storage=folder / "storage", port=own) as server:
            enough = 'count_over_time(up{job="gpurig"}[1m]) >= 5 and on (job) up{job="gpurig"} == 1'
            assert wait_for(lambda: server.query(enough), timeout_s=LIMIT_S), server.log.read_text()
            assert wait_for(lambda: server.query('up{job="prometheus"} == 1'), timeout_s=LIMIT_S)
            yield server


def _rules(server: Prometheus) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for group in server.get("/api/v1/rules")["groups"] for one in group["rules"]}


def test_every_rule_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    assert wait_for(lambda: all(one["health"] != "unknown" for one in _rules(prometheus).values()), timeout_s=LIMIT_S)
    rules = _rules(prometheus)
    assert set(rules) == {rule.name for rule in load_rules()}
    assert {name: one.get("lastError") for name, one in rules.items() if one["health"] != "ok"} == {}


@pytest.mark.parametrize("name", [rule.name for rule in load_rules() if not rule.alert])
def test_every_recording_rule_has_data(prometheus: Prometheus, name: str) -> None:
    assert wait_for(lambda: prometheus.query(name), timeout_s=LIMIT_S)


@pytest.mark.parametrize(("expression", "empty_is_good"), QUERIES)
def test_every_query_of_every_panel_returns_data(
    prometheus: Prometheus, expression: str, *, empty_is_good: bool
) -> None:
    query = without_variables(expression, duration=DURATION, **EVERYTHING)
    if empty_is_good:
        assert prometheus.query(query) == []
    else:
        assert wait_for(lambda: prometheus.query(query), timeout_s=LIMIT_S, interval_s=0.3)


def test_a_panel_shows_only_what_is_chosen(prometheus: Prometheus) -> None:
    query = 'gpurig_gpu_up{instance=~"$instance",gpu=~"$gpu"}'
    [box] = {labels(one)["instance"] for one in prometheus.query("gpurig_gpu_up")}
    # As Grafana writes several chosen values.
    chosen = {"instance": f"({re.escape(box)}|other)", "gpu": "(1|7)", "project": ".*"}
    chosen["instance"] = chosen["instance"].replace("\\", "\\\\")
    shown = prometheus.query(without_variables(query, duration=DURATION, **chosen))
    assert [labels(one)["gpu"] for one in shown] == ["1"]


def test_the_choices_at_the_top_have_values(prometheus: Prometheus) -> None:
    for one in DASHBOARD.variables:
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", one.query).groups()  # type: ignore[union-attr]
        selector = without_variables(selector, duration=DURATION, **EVERYTHING)
        series = prometheus.query(selector)
        assert {labels(found)[label] for found in series}, one


def test_a_box_that_is_well_gives_no_alarm(prometheus: Prometheus) -> None:
    """Nothing critical even begins, and nothing else than information fires: a job may die, a card report an Xid."""
    alerts = prometheus.get("/api/v1/alerts")["alerts"]
    bad = [
        one
        for one in alerts
        if one["labels"]["severity"] == "critical" or (one["state"] == "firing" and one["labels"]["severity"] != "info")
    ]
    assert bad == []


def test_a_fleet_is_scraped_with_tls_and_a_password_and_boxes_come_by_a_file(tmp_path: Path) -> None:
    web, own = tmp_path / "web", free_port()
    web.mkdir()
    web_config = write_web_config(web)
    options = ("--backend", "demo", "--web-config", str(web_config))
    with serving_metrics(tmp_path / "log", *options, address="0.0.0.0") as port:  # noqa: S104 - TLS and a user
        config = _tried(tmp_path / "prometheus", "prometheus-fleet.yml", {9090: own})
        secrets = config.parent / "secrets"
        secrets.mkdir()
        shutil.copy(web / "ca.pem", secrets / "gpurig-ca.pem")
        (secrets / "gpurig-password").write_text(PASSWORD, encoding="utf-8")
        with running_prometheus(config, storage=tmp_path / "storage", port=own) as server:
            assert wait_for(lambda: server.query('up{job="prometheus"} == 1'), timeout_s=LIMIT_S)
            assert server.query('up{job="gpurig"}') == []
            sample = (PROMETHEUS / "boxes/example.yml.sample").read_text(encoding="utf-8")
            [group] = yaml.safe_load(sample)
            assert all(target.endswith(":9476") for target in group["targets"])
            group["targets"] = [f"127.0.0.1:{port}"]
            # Whole at once, as an editor saves.
            (tmp_path / "box1").write_text(yaml.safe_dump([group]), encoding="utf-8")
            (tmp_path / "box1").replace(config.parent / "boxes/box1.yml")
            assert wait_for(lambda: server.query('up{job="gpurig"} == 1'), timeout_s=LIMIT_S), server.log.read_text()
            # What is known of the box goes into what the rules record, and so into alerts.
            assert wait_for(lambda: server.query('instance:gpurig_gpu_up:count{site="cellar"} == 2'), timeout_s=LIMIT_S)
    assert PASSWORD not in server.log.read_text()


CARD = {
    "uuid": "GPU-aaaaaaaa-0000-4000-8000-000000000000",
    "name": "NVIDIA GeForce RTX 4090",
    "pci": "00000000:01:00.0",
    "compute": "8.9",
    "memory_total": 24564 * 1024**2,
}
HOST = {"driver": "580.95.05", "nvml": "13.580.95.05", "cuda": 13000}


def test_a_card_that_falls_off_the_bus_becomes_an_alert_with_the_drivers_reason(
    fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    fake_nvml.set({**HOST, "gpu": [CARD]})
    own = free_port()
    with serving_metrics(tmp_path / "log", "--period", "0.2", env=fake_nvml.environment()) as port:
        config = _tried(tmp_path / "prometheus", "prometheus.yml", {9476: port, 9090: own})
        with running_prometheus(config, storage=tmp_path / "storage", port=own) as server:

            def said() -> list[str]:
                alerts = server.get("/api/v1/alerts")["alerts"]
                return [
                    one["annotations"]["description"] for one in alerts if one["labels"]["alertname"] == "GpurigGpuDown"
                ]

            def as_wanted() -> bool:
                reasons = [labels(one)["reason"] for one in server.query("gpurig_gpu_down_info")]
                return (
                    said()
                    == [
                        f"{CARD['uuid']} was there and does not answer: {reason}. Jobs that use it fail."
                        for reason in reasons
                    ]
                    != []
                )

            assert wait_for(lambda: server.query("gpurig_gpu_up == 1"), timeout_s=LIMIT_S)
            assert said() == []
            fake_nvml.set({**HOST, "gpu": [{**CARD, "error": "* GPU_IS_LOST"}]})
            assert wait_for(as_wanted, timeout_s=LIMIT_S), said()
