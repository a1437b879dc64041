"""deploy/compose.yaml: right by the format's schema, closed by default, and of one piece with what it mounts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from standins.deploy import DEPLOY, PROMETHEUS, REPOSITORY

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def test_it_is_what_the_compose_specification_says():
    import check_jsonschema
    import jsonschema

    file = Path(check_jsonschema.__file__).parent / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    wrong = {**COMPOSE, "services": {"grafana": {**SERVICES["grafana"], "read_olny": True}}}
    assert list(validator.iter_errors(wrong))


@each_service
def test_an_image_is_pinned_by_version(name):
    assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])


@each_service
def test_a_service_can_change_nothing_but_its_own_volume_and_is_watched(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "privileged" not in service
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"][0] == "CMD"
    mounts = [mount.split(":") for mount in service["volumes"]]
    assert [mount[0] for mount in mounts if mount[2:] != ["ro"]] == [name]
    assert name in COMPOSE["volumes"]
    for source, *_ in mounts:
        assert source == name or (DEPLOY / source).is_dir(), source


@each_service
def test_nothing_is_reached_from_another_machine(name):
    service = SERVICES[name]
    assert "ports" not in service
    assert service["network_mode"] == "host"
    listens = {
        "prometheus": "--web.listen-address=127.0.0.1:9090" in SERVICES["prometheus"]["command"],
        "grafana": SERVICES["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1",
    }
    assert listens[name]


def test_the_password_is_in_a_file_that_git_does_not_take():
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    environment = SERVICES["grafana"]["environment"]
    [secret] = SERVICES["grafana"]["secrets"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == f"/run/secrets/{secret}"
    assert "GF_SECURITY_ADMIN_PASSWORD:" not in text
    file = COMPOSE["secrets"][secret]["file"].removeprefix("./")
    assert "deploy/secrets/" in (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert file.startswith("secrets/")
    # The command that makes it is the one that the documentation shows.
    assert f"> {file}" in text
    assert f"> {file}" in (REPOSITORY / "docs/monitoring.md").read_text(encoding="utf-8")


def test_grafana_finds_its_data_source_and_its_dashboard_where_they_are_mounted():
    mounts = dict(reversed(mount.split(":")[:2]) for mount in SERVICES["grafana"]["volumes"])
    assert mounts["/etc/grafana/provisioning"] == "./grafana/provisioning"
    provisioning = DEPLOY / "grafana/provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text(encoding="utf-8"))["datasources"]
    listen = next(one for one in SERVICES["prometheus"]["command"] if "listen-address" in one).partition("=")[2]
    assert source["url"] == f"http://{listen}"
    usual = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    assert source["jsonData"]["timeInterval"] == usual["global"]["scrape_interval"]
    [provider] = yaml.safe_load((provisioning / "dashboards/gpurig.yml").read_text(encoding="utf-8"))["providers"]
    assert mounts[provider["options"]["path"]] == "./grafana/dashboards"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/gpurig.json"
    assert (DEPLOY / "grafana/dashboards/gpurig.json").is_file()


def test_prometheus_is_given_a_configuration_that_is_there_and_scrapes_itself_where_it_listens():
    command = " ".join(SERVICES["prometheus"]["command"])
    usual = re.search(r"--config\.file=/etc/prometheus/\$\{PROMETHEUS_CONFIG:-([a-z.-]+)\}", command)[1]
    for name in (usual, "prometheus-fleet.yml"):
        config = yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))
        [own] = [job for job in config["scrape_configs"] if job["job_name"] == "prometheus"]
        assert f"--web.listen-address={own['static_configs'][0]['targets'][0]}" in command
