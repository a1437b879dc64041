"""What a job may not do, tried from inside a job on real engines; docs/threat-model.md names each of these tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gpurig.provisioning.engine import engine_facts
from gpurig.provisioning.engine_facts import DEFAULT_ADDRESS
from gpurig.provisioning.facts import HostFacts
from standins import wired_box
from standins.gitlab import GitLab, Job

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker

RunJob = Callable[..., Job]
# The first line says that the job ran at all, the last that it was not ended before its end.
_ALL_FAIL = 'echo started; for try in "$@"; do if sh -c "$try"; then echo "SUCCEEDED: $try"; fi; done; echo ended'


@pytest.fixture(scope="module", params=["current", "oldest"])
def run_job(
    request: pytest.FixtureRequest, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunJob]:
    """Runs a script as a job of a box that `up` set up with defaults, as root, in the base image."""
    client: docker.DockerClient = request.getfixturevalue("engine" if request.param == "current" else "legacy_engine")
    address = os.environ.get("DOCKER_HOST", DEFAULT_ADDRESS)
    if request.param == "oldest":
        request.getfixturevalue("legacy_base_image")
        address = request.getfixturevalue("legacy_address")
    root = tmp_path_factory.mktemp("box")
    plan = wired_box.plan_of(HostFacts(), engine_facts(client, address), base_image, "gpu", root)
    # The owner's files as they lie on a box, a model among them.
    plan.paths.models.mkdir(parents=True)
    (plan.paths.models / "model.gguf").write_text("weights")
    wired_box.make_metrics_folders(plan)
    (plan.paths.usage / "1").mkdir()
    (plan.paths.usage / "1" / "2.json").write_text("what it used")
    (plan.paths.accounts / "accounting.jsonl").write_text("counters")
    plan.paths.config_dir.mkdir(parents=True, mode=0o700)
    plan.paths.config.write_text("token")
    with (
        GitLab() as gitlab,
        wired_box.runner_process(client, address, root / "runner", wired_box.config_text(plan, gitlab)),
    ):
        yield lambda *script: wired_box.run_job(gitlab, list(script), tag="entry-0")


def _assert_all_fail(run_job: RunJob, *tries: str) -> None:
    quoted = " ".join(f"'{one}'" for one in tries)
    job = run_job(f"set -- {quoted}", _ALL_FAIL)
    lines = job.log.replace("\r", "").splitlines()
    assert job.status == "success", job.log
    assert "started" in lines
    assert "ended" in lines
    assert not [line for line in lines if line.startswith("SUCCEEDED: ")], job.log


def test_a_job_does_not_reach_the_engine(run_job: RunJob) -> None:
    sockets = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock")
    connect = 'python3 -c "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])" {} 2>/dev/null'
    _assert_all_fail(run_job, *(f"test -e {path}" for path in sockets), *(connect.format(path) for path in sockets))


def test_a_job_makes_and_opens_no_device(run_job: RunJob) -> None:
    _assert_all_fail(
        run_job,
        "mknod /tmp/mem c 1 1 2>/dev/null",
        "mknod /tmp/disk b 8 0 2>/dev/null",
        "dd if=/dev/mem of=/dev/null bs=1 count=1 2>/dev/null",
        "test -e /dev/mem",
        "test -e /dev/kmsg",
        "test -e /dev/kfd",
        "ls /dev/nvidia* 2>/dev/null",
        "ls /dev/dri 2>/dev/null",
    )


def test_a_job_neither_mounts_nor_changes_the_host(run_job: RunJob) -> None:
    _assert_all_fail(
        run_job,
        "mount -t tmpfs none /mnt 2>/dev/null",
        "mount -o remount,rw /models 2>/dev/null",
        "echo x 2>/dev/null > /proc/sys/kernel/core_pattern",
        "echo b 2>/dev/null > /proc/sysrq-trigger",
        "echo 1 2>/dev/null > /sys/kernel/uevent_helper",
        "test -e /sys/fs/cgroup/cgroup.controllers && mkdir /sys/fs/cgroup/escape 2>/dev/null",
        "mkdir /sys/fs/cgroup/memory/escape 2>/dev/null",
        "unshare --mount true 2>/dev/null",
        "chroot / true 2>/dev/null",
        "hostname elsewhere 2>/dev/null",
    )


def test_a_job_sees_neither_the_hosts_files_nor_its_processes(run_job: RunJob, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    pid = os.getpid()
    _assert_all_fail(
        run_job,
        f"test -e {secret}",
        f"test -e /proc/1/root{secret}",
        "test -e /etc/gpurig",
        "test -e /etc/gitlab-runner",
        f"grep -q pytest /proc/{pid}/cmdline 2>/dev/null",
        "grep -lq [d]ockerd /proc/[0-9]*/cmdline 2>/dev/null",
        f"kill -0 {pid} 2>/dev/null",
    )


def test_a_job_reads_models_and_does_not_change_them(run_job: RunJob) -> None:
    job = run_job("cat /models/model.gguf && echo")
    assert "weights" in job.log
    _assert_all_fail(
        run_job,
        "echo x 2>/dev/null > /models/model.gguf",
        "rm -f /models/model.gguf 2>/dev/null",
        "touch /models/new 2>/dev/null",
    )


def test_a_job_reads_what_jobs_used_and_changes_neither_that_nor_the_counters(run_job: RunJob) -> None:
    job = run_job("cat /run/gpurig/usage/1/2.json && echo", "ls /run/gpurig")
    assert "what it used" in job.log
    assert "accounts" not in job.log
    _assert_all_fail(
        run_job,
        "echo x 2>/dev/null > /run/gpurig/usage/1/2.json",
        "rm -f /run/gpurig/usage/1/2.json 2>/dev/null",
        "touch /run/gpurig/usage/new 2>/dev/null",
        "mount -o remount,rw /run/gpurig/usage 2>/dev/null",
        "test -e /run/gpurig/usage/../accounts",
        "test -e /run/gpurig/box",
    )


def test_a_job_gains_no_privileges_and_has_no_raw_sockets(run_job: RunJob) -> None:
    raw = 'python3 -c "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)" 2>/dev/null'
    _assert_all_fail(run_job, raw)
    job = run_job("grep -E 'NoNewPrivs|CapBnd|Seccomp:' /proc/self/status")
    status = dict(line.split(":", 1) for line in job.log.replace("\r", "").splitlines() if ":\t" in line)
    assert status["NoNewPrivs"].strip() == "1"
    # Numbers of linux/capability.h: SETPCAP, NET_RAW, SYS_MODULE, SYS_CHROOT, SYS_PTRACE, SYS_ADMIN, MKNOD, SETFCAP.
    bounding = int(status["CapBnd"], 16)
    assert not [bit for bit in (8, 13, 16, 18, 19, 21, 27, 29, 31) if bounding >> bit & 1]
