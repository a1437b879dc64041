"""What `up`, `status` and `down` make of the runner as a service, on a box in memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.provisioning.config_toml import config_document, parse_config
from gpurig.provisioning.containers import RunningJob
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.plan_view import plan_document, plan_text
from gpurig.provisioning.service_spec import unit_owner, unit_path
from gpurig.runner import workflow
from gpurig.runner.overview import judge, look_around, overview_document
from gpurig.runner.up_run import UpRun
from standins import box_commands
from standins.box_commands import down, state_of
from standins.convergence import SYSTEMD, no_machine
from standins.memory_box import ROOT, MemoryBox, two_gpus

NAME = "gpurig-runner"
OLD_HOOK = EngineFacts(
    address="unix:///var/run/docker.sock", version="20.10.24", nvidia_runtime=True, cgroup_driver="systemd"
)


@pytest.fixture(autouse=True)
def _no_machine() -> Any:
    with no_machine():
        yield


def up(box: MemoryBox, **given: Any) -> UpRun:
    return box_commands.up(box, **{**SYSTEMD, **given})


def test_a_first_up_makes_the_service_and_no_container_of_the_runner() -> None:
    box = MemoryBox()
    run = up(box, metrics_listen="127.0.0.1:9476")
    assert box.runners_of("gpurig") == [NAME]
    assert {one.name for one in box.engine.containers.values()} == {"gpurig-watcher", "gpurig-exporter"}
    # Its image is not needed, and was not pulled.
    assert not any("gitlab-runner" in name for name in box.engine.images)
    assert (box.systemd.enabled, box.systemd.reloads) == ({NAME}, 1)
    text, mode = box.disk.files[unit_path(NAME)]
    assert (unit_owner(text), mode) == (("gpurig", str(ROOT)), 0o644)
    assert run.changes == ["register", "image", "configure", "start", "verify"]
    assert up(box, metrics_listen="127.0.0.1:9476").changes == []
    assert box.systemd.reloads == 1


def test_the_service_reads_the_engine_and_the_certificates_where_they_are_on_the_machine(tmp_path: Path) -> None:
    box = MemoryBox(HostFacts())
    box.engine.described = replace(box.engine.described, address="unix:///run/user/1000/docker.sock")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("a certificate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpurig.runner.up_steps.check_ca_file", lambda _: None)
        up(box, tls_ca_file=str(ca_file))
    runner = (parse_config(box.disk.read(box.paths.config) or "") or {})["runners"][0]
    assert runner["docker"]["host"] == "unix:///run/user/1000/docker.sock"
    assert runner["tls-ca-file"] == str(box.paths.ca_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpurig.runner.up_steps.check_ca_file", lambda _: None)
        up(box, service="container", tls_ca_file=str(ca_file))
    runner = (parse_config(box.disk.read(box.paths.config) or "") or {})["runners"][0]
    assert "host" not in runner["docker"]
    assert runner["tls-ca-file"] == "/etc/gitlab-runner/certs/gitlab-ca.crt"


def test_jobs_end_before_the_service_is_changed_or_handed_over_and_two_runners_never_run() -> None:
    box = MemoryBox()
    up(box, service="container")
    box.engine.running_jobs = (RunningJob("7", "", "1", "x", "cpu", "build"),)
    up(box)
    assert box.engine.stopped[0] == (NAME, 5)
    up(box, http_proxy="http://proxy.example:3128")
    assert box.systemd.stopped == [(NAME, 5)]
    up(box, http_proxy="http://proxy.example:3128", service="container")
    assert box.systemd.stopped == [(NAME, 5), (NAME, 5)]
    assert box.twice == []
    assert box.runners_of("gpurig") == [NAME]
    assert (box.systemd.processes, box.systemd.enabled) == ({}, set())
    assert box.disk.read(unit_path(NAME)) is None


def test_more_or_less_patience_does_not_cost_a_restart() -> None:
    box = MemoryBox()
    up(box)
    process = box.systemd.processes[NAME]
    run = up(box, wait=60)
    assert run.changes == ["start"]
    assert box.systemd.processes == {NAME: process}
    assert "TimeoutStopSec=60" in box.systemd.loaded[NAME]
    assert state_of(box).settings["wait"] == 60


def test_a_crashing_runner_is_stopped_before_its_unit_changes() -> None:
    box = MemoryBox()
    up(box)
    box.systemd.crashing = {NAME}
    box.systemd.on_start = lambda _: box.systemd.crashing.clear()
    up(box, http_proxy="http://proxy.example:3128")
    assert box.systemd.stopped == [(NAME, 5)]
    assert box.systemd.snapshot()["running"] == {NAME: True}


def test_a_reboot_after_any_up_starts_one_runner() -> None:
    box = MemoryBox()
    up(box)
    box.systemd.reboot()
    assert box.runners_of("gpurig") == [NAME]
    up(box, service="container")
    box.systemd.reboot()
    assert box.systemd.processes == {}


@pytest.mark.parametrize("owner", ["a stranger", "another root"])
def test_a_unit_that_is_not_ours_is_left_alone(owner: str) -> None:
    box = MemoryBox()
    text = "[Service]\n" if owner == "a stranger" else "#\n[X-Gpurig]\nInstance=gpurig\nRoot=/elsewhere\n"
    box.disk.write(unit_path(NAME), text, mode=0o644)
    before = box.snapshot()
    with pytest.raises(PrerequisiteError, match="not gpurig's" if owner == "a stranger" else "below /elsewhere"):
        up(box)
    assert box.snapshot() == before
    up(box, service="container")
    assert box.disk.read(unit_path(NAME)) == text


def test_without_systemd_nothing_is_made() -> None:
    box = MemoryBox()
    box.systemd.available = False
    before = box.snapshot()
    with pytest.raises(PrerequisiteError, match="systemd does not run"):
        up(box)
    assert box.snapshot() == before
    # The container asks for no systemd.
    up(box, service="container")


def test_where_a_reload_takes_gpus_away_it_is_told_jobs_end_first_and_the_exporter_gets_its_own_again() -> None:
    box = MemoryBox(two_gpus())
    box.engine.described = OLD_HOOK
    run = up(box, metrics_listen="127.0.0.1:9476")
    assert any("daemon-reload" in note for note in run.notes)
    box.engine.running_jobs = (RunningJob("7", "", "1", "x", "cpu", "build"),)
    box.engine.stopped.clear()
    up(box, metrics_listen="127.0.0.1:9476", wait=60)
    assert box.systemd.stopped == [(NAME, 5)]
    assert box.engine.stopped == [("gpurig-exporter", 10)]
    assert all(one.status == "running" for one in box.engine.containers.values())
    # With CDI nothing of this is needed.
    other = MemoryBox(two_gpus())
    assert up(other).notes == []


def test_down_ends_the_service_after_its_jobs_and_up_starts_it_again() -> None:
    box = MemoryBox()
    up(box, wait=77)
    wanted = box.snapshot()
    assert f"stop removed the service {NAME}" in down(box)
    # As long as `up` was told, where nobody says otherwise.
    assert box.systemd.stopped == [(NAME, 77)]
    assert (box.systemd.processes, box.systemd.enabled, box.disk.read(unit_path(NAME))) == ({}, set(), None)
    up(box, wait=77)
    assert box.snapshot() == wanted
    down(box, unregister=True, drain_s=3)
    assert box.systemd.stopped[-1] == (NAME, 3)
    assert (box.gitlab.runners, box.disk.files) == ({}, {})


def test_status_tells_how_the_service_is() -> None:
    box = MemoryBox()
    up(box)

    def look() -> Any:
        return look_around(box.world(), name="gpurig", root=ROOT, docker_host=None)

    judge(look())
    assert overview_document(look())["service"] == {"name": NAME, "status": "active", "enabled": True}
    box.systemd.stop(NAME, wait_s=1)
    with pytest.raises(PrerequisiteError, match=f"service {NAME} is inactive") as caught:
        judge(look())
    assert f"journalctl -u {NAME}" in caught.value.hint
    box.systemd.stop(NAME, wait_s=1)
    up(box, service="container")
    assert overview_document(look())["service"] is None


def test_a_runner_that_gitlab_never_hears_from_is_told_with_the_services_log() -> None:
    box = MemoryBox()
    box.systemd.on_start = lambda _: None
    box.gitlab.may_list = False
    before = box.snapshot()
    with pytest.raises(PrerequisiteError, match=r"its service is active, and said: a line") as caught:
        up(box)
    assert caught.value.hint == f"journalctl -u {NAME}"
    assert box.snapshot() == before


def test_a_dry_run_shows_the_unit_and_touches_nothing() -> None:
    box = MemoryBox()
    before = box.snapshot()
    run = box.run(**SYSTEMD)
    workflow.look(run)
    text = plan_text(run.plan)
    assert f"Service {NAME}.service, {unit_path(NAME)}:" in text
    assert '  ExecStart="/usr/bin/gitlab-runner" "run"' in text
    document = json.loads(json.dumps(plan_document(run.plan)))
    assert document["service"]["version"] == "19.4.0"
    assert document["containers"] == []
    assert document["images"]["runner"] == ""
    assert config_document(run.plan)["runners"][0]["docker"]["container_labels"]["gpurig.instance"] == "gpurig"
    assert box.snapshot() == before


def test_two_instances_have_a_service_each() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    up(box, name="second")
    assert set(box.systemd.processes) == {NAME, "second-runner"}
    assert Paths(root=ROOT, name="second").config != box.paths.config
    down(box, unregister=True)
    assert set(box.systemd.processes) == {"second-runner"}
