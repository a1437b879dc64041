"""`up --service systemd` on a machine that a real systemd runs: gitlab-runner's program as a service of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gpurig.common.process import Finished
from gpurig.common.waiting import wait_for
from gpurig.provisioning.engine_facts import DEFAULT_ADDRESS
from standins.live_box import Box, make_box
from standins.missing import missing
from standins.systemd import Machine, machine

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker

QUICK_JOB = "quick: {tags: [cpu], script: [echo done]}"
SLOW_JOB = """
slow:
  tags: [cpu]
  script: ["echo began", "until [ -e /models/go ]; do sleep 0.1; done", "echo ended"]
"""


@dataclass
class Rig:
    """A box whose files lie on this machine, and the machine with systemd that sees them."""

    box: Box
    machine: Machine

    @property
    def where(self) -> tuple[str, ...]:
        return ("--root", str(self.box.root), "--name", self.box.name)

    @property
    def service(self) -> str:
        return f"{self.box.name}-runner"

    def up(self, *more: str) -> Finished:
        words = [*self.box.options, "--service", "systemd", *more]
        return self.machine.gpurig("up", "--root", str(self.box.root), *words)

    def shown(self, *properties: str) -> dict[str, str]:
        done = self.machine.run("systemctl", "show", f"--property={','.join(properties)}", self.service)
        return dict(line.partition("=")[::2] for line in done.stdout.splitlines())

    @property
    def enabled(self) -> str:
        return self.machine.run("systemctl", "is-enabled", self.service).stdout.strip()

    def job(self, text: str) -> object:
        return self.box.gitlab.create_pipeline(next(iter(self.box.gitlab.state.projects.values())), text).jobs[0]


@pytest.fixture(scope="module")
def rig(engine: docker.DockerClient, bridge_address: str, standin_runner_image: str, base_image: str) -> Iterator[Rig]:
    if os.geteuid() != 0:
        missing("the box's files must lie where services may write, which takes root", "GPURIG_REQUIRE_ROOT")
    # Not below /tmp, where a unit would have to do without a folder for temporary files of its own.
    folder = Path(tempfile.mkdtemp(prefix="gpurig-test-", dir="/var/lib"))
    socket = os.environ.get("DOCKER_HOST", DEFAULT_ADDRESS).removeprefix("unix://")
    try:
        with contextlib.ExitStack() as stack:
            box = stack.enter_context(make_box(folder, engine, bridge_address, standin_runner_image, base_image))
            # Builds the job image, and is the container that the service takes over from.
            code, said = box.up()
            assert code == 0, said
            yield Rig(box, stack.enter_context(machine(engine, standin_runner_image, folder, socket)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_box_goes_from_the_container_to_the_service_and_its_jobs_run(rig: Rig, engine: docker.DockerClient) -> None:
    runner = rig.box.gitlab.runners[0]
    planned = rig.up("--dry-run")
    assert planned.code == 0, planned.stderr
    assert f"Service {rig.service}.service" in planned.stdout
    assert rig.shown("LoadState")["LoadState"] == "not-found"
    done = rig.up()
    assert done.code == 0, done.stdout + done.stderr
    assert f"stopped the container {rig.service}" in " ".join(done.stdout.split())
    assert f"started the service {rig.service}" in " ".join(done.stdout.split())
    # One process: the container is gone, and the runner in GitLab is the same.
    assert rig.box.containers(engine) == {}
    assert [one.id for one in rig.box.gitlab.runners] == [runner.id]
    assert (rig.shown("ActiveState"), rig.enabled) == ({"ActiveState": "active"}, "enabled")
    job = rig.job(QUICK_JOB)
    rig.box.gitlab.wait_for_jobs([job], 120)
    assert job.status == "success", job.log


def test_the_unit_is_what_systemd_understands_and_confines(rig: Rig) -> None:
    assert rig.up().code == 0
    verified = rig.machine.run("systemd-analyze", "verify", f"/etc/systemd/system/{rig.service}.service")
    assert (verified.code, verified.stdout + verified.stderr) == (0, "")
    shown = rig.shown("MainPID", "KillSignal", "KillMode", "TimeoutStopUSec", "Restart", "ProtectSystem", "PrivateTmp")
    pid = shown.pop("MainPID")
    assert shown == {
        "KillSignal": "3",
        "KillMode": "mixed",
        "TimeoutStopUSec": "1h",
        "Restart": "always",
        "ProtectSystem": "strict",
        "PrivateTmp": "yes",
    }
    status = rig.machine.run("cat", f"/proc/{pid}/status").stdout
    # CAP_DAC_OVERRIDE alone, and no way to more.
    assert "CapEff:\t0000000000000002" in status
    assert "NoNewPrivs:\t1" in status
    command = rig.machine.run("cat", f"/proc/{pid}/cmdline").stdout
    assert all(one.token not in command for one in rig.box.gitlab.runners)
    unit = rig.machine.run("cat", f"/etc/systemd/system/{rig.service}.service").stdout
    assert all(one.token not in unit for one in rig.box.gitlab.runners)


def test_a_second_up_changes_nothing_and_a_process_that_died_is_started_again(rig: Rig) -> None:
    assert rig.up().code == 0
    pid = rig.shown("MainPID")["MainPID"]
    again = rig.up()
    assert "nothing to change" in again.stdout
    assert rig.shown("MainPID")["MainPID"] == pid
    rig.machine.run("systemctl", "kill", "--signal=SIGKILL", rig.service)
    assert wait_for(lambda: rig.shown("MainPID")["MainPID"] not in {"0", pid}, timeout_s=60)
    # Somebody stops it and takes it from the boot: up puts that right.
    rig.machine.run("systemctl", "disable", "--now", rig.service)
    status = rig.machine.gpurig("status", *rig.where)
    # "failed" where SIGQUIT came before the new process could take it.
    assert status.code == 4
    assert f"service {rig.service} is " in " ".join(status.stderr.split())
    healed = rig.up()
    assert healed.code == 0, healed.stderr
    assert (rig.shown("ActiveState"), rig.enabled) == ({"ActiveState": "active"}, "enabled")
    seen = json.loads(rig.machine.gpurig("status", "--json", *rig.where).stdout)
    assert seen["service"] == {"name": rig.service, "status": "active", "enabled": True}
    assert seen["containers"] == []


def test_a_changed_unit_waits_for_the_running_job(rig: Rig) -> None:
    assert rig.up().code == 0
    pid = rig.shown("MainPID")["MainPID"]
    # How long it may take to stop is no reason to start it anew.
    changed = rig.up("--wait", "600")
    assert "changed the service" in changed.stdout, changed.stdout + changed.stderr
    assert rig.shown("MainPID", "TimeoutStopUSec") == {"MainPID": pid, "TimeoutStopUSec": "10min"}
    job = rig.job(SLOW_JOB)
    assert rig.box.gitlab.wait_for(lambda: "began" in job.log, 120), job.log
    # 127.0.0.1 is told to be reached directly; nothing listens there.
    ups: list[Finished] = []
    other = threading.Thread(target=lambda: ups.append(rig.up("--http-proxy", "http://127.0.0.1:9", "--no-proxy", "*")))
    other.start()
    try:
        assert wait_for(
            lambda: "SIGQUIT" in rig.machine.run("journalctl", "-u", rig.service, "-o", "cat", "-n", "5").stdout,
            timeout_s=60,
        )
        assert job.status == "running"
        assert rig.shown("MainPID")["MainPID"] == pid
    finally:
        (rig.box.root / "var" / "lib" / rig.box.name / "models" / "go").touch()
        other.join(120)
    assert ups[0].code == 0, ups[0].stdout + ups[0].stderr
    assert "waiting for 1 running job" in ups[0].stdout
    assert (job.status, "ended" in job.log) == ("success", True)
    assert rig.shown("MainPID")["MainPID"] not in {"0", pid}
    environment = rig.machine.run("cat", f"/proc/{rig.shown('MainPID')['MainPID']}/environ").stdout
    assert "HTTP_PROXY=http://127.0.0.1:9\0" in environment


def test_a_runner_that_does_not_end_in_time_is_killed_with_its_jobs(rig: Rig, engine: docker.DockerClient) -> None:
    assert rig.up("--wait", "3600").code == 0
    (rig.box.root / "var" / "lib" / rig.box.name / "models" / "go").unlink(missing_ok=True)
    job = rig.job(SLOW_JOB)
    assert rig.box.gitlab.wait_for(lambda: "began" in job.log, 120), job.log
    down = rig.machine.gpurig("down", "--wait", "1", *rig.where)
    assert down.code == 0, down.stderr
    assert f"removed the service {rig.service}" in down.stdout
    assert "removed 1 container(s) of jobs that did not end in time" in " ".join(down.stdout.split())
    assert rig.box.containers(engine) == {}
    assert rig.shown("ActiveState", "MainPID") == {"ActiveState": "inactive", "MainPID": "0"}
    assert rig.machine.run("cat", f"/etc/systemd/system/{rig.service}.service").code == 1
    (rig.box.root / "var" / "lib" / rig.box.name / "models" / "go").touch()
    rig.box.gitlab.cancel(job)


def test_a_strangers_unit_of_our_name_is_left_alone(rig: Rig) -> None:
    path = "/etc/systemd/system/stranger-runner.service"
    rig.machine.run("sh", "-c", f"printf '[Service]\\nExecStart=/bin/true\\n' >{path}")
    done = rig.up("--name", "stranger")
    assert (done.code, "not gpurig's" in " ".join(done.stderr.split())) == (4, True), done.stderr
    assert "ExecStart=/bin/true" in rig.machine.run("cat", path).stdout
    rig.machine.run("rm", path)


def test_a_program_that_is_missing_or_too_old_is_told_before_anything_is_made(rig: Rig) -> None:
    rig.machine.run("sh", "-c", "printf '#!/bin/sh\\necho \"Version:      16.5.0\"\\n' >/old && chmod 755 /old")
    before = len(rig.box.gitlab.runners)
    done = rig.up("--runner-binary", "/old", "--name", "other")
    assert (done.code, "16.6 or newer" in done.stderr) == (4, True), done.stderr
    done = rig.up("--runner-binary", "/nowhere", "--name", "other")
    assert (done.code, "/nowhere is no program" in done.stderr) == (2, True), done.stderr
    assert len(rig.box.gitlab.runners) == before
    doctor = rig.machine.gpurig("doctor", "--json", "--service", "systemd", "--runner-binary", "/old", "--cpu")
    found = next(one for one in json.loads(doctor.stdout)["checks"] if one["name"] == "gitlab-runner")
    assert (found["status"], found["found"]) == ("failed", "16.5.0")
    assert found["commands"][-1]["argv"] == ["apt-get", "install", "-y", "gitlab-runner"]


def test_back_in_its_container_no_unit_is_left(rig: Rig, engine: docker.DockerClient) -> None:
    assert rig.up().code == 0
    done = rig.machine.gpurig("up", *rig.where, "--service", "container")
    assert done.code == 0, done.stdout + done.stderr
    assert f"stopped the service {rig.service}" in " ".join(done.stdout.split())
    assert rig.box.containers(engine) == {rig.service: "running"}
    assert rig.shown("ActiveState", "MainPID") == {"ActiveState": "inactive", "MainPID": "0"}
    assert rig.machine.run("cat", f"/etc/systemd/system/{rig.service}.service").code == 1
    down = rig.machine.gpurig("down", "--unregister", "--json", *rig.where)
    assert down.code == 0, down.stderr
    assert [one["step"] for one in json.loads(down.stdout)["done"]][:2] == ["stop", "gitlab"]
    assert rig.box.gitlab.runners == []


def test_where_systemd_does_not_run_the_service_is_refused_with_what_to_do(rig: Rig) -> None:
    if Path("/run/systemd/system").is_dir():
        missing("systemd runs this machine", "GPURIG_REQUIRE_SYSTEMD")
    code, said = rig.box.up("--service", "systemd")
    assert (code, "systemd does not run this machine" in said) == (4, True), said
