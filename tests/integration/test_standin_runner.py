"""The tests' runner on a real engine: what a pipeline does with it, and what config.toml makes of its containers."""

from __future__ import annotations

import json
import os
import signal
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gpurig.common.waiting import wait_for
from standins import images
from standins.gitlab import GitLab, trace_is_whole
from standins.running import LABEL, config_toml, register, running

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

pytestmark = pytest.mark.docker
ours_only = pytest.mark.skipif(
    "GPURIG_GITLAB_RUNNER" in os.environ, reason="the wording is the stand-in's, and GPURIG_GITLAB_RUNNER names another"
)


@dataclass(frozen=True)
class Box:
    """What a test starts a runner with."""

    engine: docker.DockerClient
    image: str
    runner_image: str
    server: GitLab
    folder: Path

    def running(self, text: str) -> AbstractContextManager[Container]:
        return running(self.engine, self.runner_image, self.folder / "runner", text)


@pytest.fixture
def box(
    engine: docker.DockerClient, base_image: str, standin_runner_image: str, reachable_gitlab: GitLab, tmp_path: Path
) -> Box:
    return Box(engine, base_image, standin_runner_image, reachable_gitlab, tmp_path)


_PIPELINE = """
stages: [make, use]
variables:
  GREETING: hello
make:
  stage: make
  tags: [cpu]
  script:
    - mkdir -p out/deep
    - echo "$GREETING $CI_COMMIT_SHA" > out/deep/data.txt
    - cat input.txt
    - echo "the note token is $NOTE_TOKEN, from $0" && cat
    - '[ "$(cat "$SECRET_FILE")" = "file content" ]'
  after_script: [echo "after $CI_JOB_NAME"]
  artifacts:
    paths: [out/]
    exclude: [out/deep/*.tmp]
    reports: {junit: input.txt}
use:
  stage: use
  tags: [cpu]
  script:
    - grep "^hello $CI_COMMIT_SHA$" out/deep/data.txt
    - echo "seen"; echo "wrong" >&2; sh -c 'exit 7'
  artifacts: {paths: [out], when: on_success}
last:
  stage: .post
  tags: [cpu]
  script: [echo never]
"""
_DIRECTORY = ["--working-directory=/home/gitlab-runner"]
_UNMATCHED = "elsewhere: {tags: [cpu, rocm], script: [echo no]}"
_HOLD = 'hold: {tags: [cpu], script: ["echo holding", "while [ ! -e /signal/go ]; do sleep 0.1; done", "echo done"]}'


def test_a_pipeline_runs_as_gitlab_runner_runs_it(box: Box) -> None:
    server = box.server
    project = server.add_project("team/app", {"input.txt": "from the repository\n"})
    server.add_variable(project, "NOTE_TOKEN", "glpat-planted-secret-value", masked=True)
    server.add_variable(project, "SECRET_FILE", "file content", file=True)
    merge_request = server.add_merge_request(project, {"changed.txt": "1"})
    runner = register(server, project, tags=["cpu", "gpurig"])
    text = config_toml(server, {"box": runner}, {"image": box.image, "pull_policy": "never"})
    with box.running(text) as container:
        pipeline = server.create_pipeline(project, _PIPELINE, merge_request=merge_request)
        waiting = server.create_pipeline(project, _UNMATCHED)
        assert server.wait_for_pipeline(pipeline) == "failed"
        make, use, last = (pipeline.job(name) for name in ("make", "use", "last"))
        assert (make.status, use.status, last.status) == ("success", "failed", "skipped"), make.log
        assert (use.failure_reason, use.exit_code) == ("script_failure", 7)
        assert (make.failure_reason, make.exit_code) == ("", 0)
        assert sorted(make.artifacts) == ["archive", "junit"]
        assert use.artifacts == {}
        assert "from the repository" in make.log
        assert "after make" in make.log
        assert "the note token is [MASKED], from" in make.log
        assert "Job succeeded" in make.log
        assert all(word in use.log for word in ("$ grep", "seen", "wrong", "Job failed: exit code 7"))
        assert "never" not in last.log
        assert all(trace_is_whole(job) for job in (make, use))
        assert all("planted-secret" not in job.log and job.token not in job.log for job in pipeline.jobs)
        # No runner has both tags; the one there is asked for jobs all the while, at last after the pipeline's end.
        asked = len(server.log_of("POST", "/api/v4/jobs/request"))
        assert wait_for(lambda: len(server.log_of("POST", "/api/v4/jobs/request")) > asked, timeout_s=30)
        assert waiting.job("elsewhere").status == "pending"
        said = container.logs().decode()
        assert runner.token not in said
        assert "planted-secret" not in said
    assert runner.status == "online"


def test_a_job_container_has_exactly_the_settings_and_labels_of_the_config(box: Box) -> None:
    server = box.server
    project = server.add_project("team/app")
    runner = register(server, project, tags=["cpu"])
    shared = box.folder / "signal"
    shared.mkdir()
    settings = {
        "image": box.image,
        "pull_policy": ["if-not-present"],
        "volumes": [f"{shared}:/signal:ro", "/cache"],
        "devices": ["/dev/null:/dev/gpu0:r", "/dev/zero"],
        "group_add": ["44"],
        "cap_drop": ["NET_RAW"],
        "cap_add": ["SYS_NICE"],
        "security_opt": ["no-new-privileges:true"],
        "shm_size": 134217728,
        "memory": "512m",
        "extra_hosts": ["models.example:192.0.2.1"],
        "container_labels": {"gpurig.role": "job", "gpurig.job": "$CI_JOB_NAME"},
    }
    text = config_toml(server, {"box": runner}, settings)
    with box.running(text):
        job = server.create_pipeline(project, _HOLD).job("hold")
        assert server.wait_for(lambda: "holding" in job.log, 60)
        (found,) = box.engine.containers.list(filters={"label": f"{LABEL}.job.id={job.id}"})
        host = found.attrs["HostConfig"]
        assert host["GroupAdd"] == ["44"]
        assert (host["CapDrop"], host["CapAdd"], host["SecurityOpt"]) == (
            ["NET_RAW"],
            ["SYS_NICE"],
            ["no-new-privileges:true"],
        )
        assert (host["ShmSize"], host["Memory"], host["Privileged"]) == (134217728, 512 * 2**20, False)
        assert [tuple(device.values()) for device in host["Devices"]] == [
            ("/dev/null", "/dev/gpu0", "r"),
            ("/dev/zero", "/dev/zero", "rwm"),
        ]
        assert host["ExtraHosts"] == ["models.example:192.0.2.1"]
        mounts = {mount["Destination"]: mount for mount in found.attrs["Mounts"]}
        assert sorted(mounts) == ["/builds", "/cache", "/signal"]
        assert not mounts["/signal"]["RW"]
        labels = found.labels
        assert (labels["gpurig.role"], labels["gpurig.job"]) == ("job", "hold")
        assert labels[f"{LABEL}.runner.id"] == runner.token.removeprefix("glrt-t3_")[:9]
        assert labels[f"{LABEL}.runner.system_id"] == job.system_id
        assert labels[f"{LABEL}.job.timeout"] == "1h0m0s"
        assert {
            key: labels[f"{LABEL}.{key}"] for key in ("type", "managed", "job.id", "pipeline.id", "project.id")
        } == {
            "type": "build",
            "managed": "true",
            "job.id": str(job.id),
            "pipeline.id": str(job.pipeline.id),
            "project.id": str(project.id),
        }
        assert labels[f"{LABEL}.job.url"] == f"{server.url}/team/app/-/jobs/{job.id}"
        (shared / "go").touch()
        server.wait_for_jobs([job])
        assert job.status == "success"
        # GitLab hears of the end after the runner has removed the container.
        assert box.engine.containers.list(all=True, filters={"label": f"{LABEL}.job.id={job.id}"}) == []


@pytest.mark.parametrize(
    ("number", "status", "reason"),
    [(signal.SIGQUIT, "success", ""), (signal.SIGTERM, "failed", "runner_system_failure")],
)
def test_sigquit_finishes_the_running_job_and_sigterm_ends_it(
    box: Box,
    number: signal.Signals,
    status: str,
    reason: str,
) -> None:
    server = box.server
    project = server.add_project("team/app")
    shared = box.folder / "signal"
    shared.mkdir()
    settings = {"image": box.image, "pull_policy": "never", "volumes": [f"{shared}:/signal:ro"]}
    text = config_toml(server, {"box": register(server, project, tags=["cpu"])}, settings)
    with box.running(text) as container:
        job = server.create_pipeline(project, _HOLD).job("hold")
        assert server.wait_for(lambda: "holding" in job.log, 60)
        container.kill(number)
        if number == signal.SIGQUIT:
            (shared / "go").touch()
        assert container.wait(timeout=60)["StatusCode"] == 0
        assert (job.status, job.failure_reason) == (status, reason)


def test_a_cancelled_job_is_ended_and_its_container_removed(box: Box) -> None:
    server = box.server
    project = server.add_project("team/app")
    settings = {"image": box.image, "pull_policy": "never"}
    with box.running(config_toml(server, {"box": register(server, project, tags=["cpu"])}, settings)):
        text = "loop: {tags: [cpu], script: ['while true; do echo on; sleep 0.2; done']}"
        job = server.create_pipeline(project, text).job("loop")
        assert server.wait_for(lambda: "on\non\n" in job.log, 60)
        mine = {"label": f"{LABEL}.job.id={job.id}"}
        assert len(box.engine.containers.list(filters=mine)) == 1
        server.cancel(job)
        assert wait_for(lambda: not box.engine.containers.list(all=True, filters=mine), timeout_s=60)
    assert job.status == "canceled"


def test_a_real_binary_takes_the_runners_place_in_the_same_image(
    engine: docker.DockerClient, base_image: str, tmp_path: Path
) -> None:
    binary = tmp_path / "gitlab-runner"
    binary.write_text('#!/bin/sh\necho "$0 $*"; ls /usr/lib/gitlab-runner/helper-images\n', encoding="utf-8")
    (tmp_path / "helper-images").mkdir()
    (tmp_path / "helper-images" / "prebuilt-x86_64.tar.xz").write_bytes(b"helper")
    name = images.real_runner(engine, base_image, binary)
    try:
        said = engine.containers.run(name, remove=True).decode()
        assert said.split() == ["/usr/bin/gitlab-runner", "run", *_DIRECTORY, "prebuilt-x86_64.tar.xz"]
        assert engine.images.get(name).attrs["Config"]["StopSignal"] == "SIGQUIT"
    finally:
        engine.images.remove(name, force=True)


@ours_only
@pytest.mark.parametrize(
    ("image", "said", "reason"),
    [
        ("image: evil/miner", "disallowed image", "runner_configuration_error"),
        ("image: allowed/absent:1", "policy never: no such image", "image_pull_failure"),
        ("image: {name: allowed/absent, pull_policy: always}", "allowed_pull_policies", "runner_configuration"),
    ],
    ids=["not-allowed", "absent", "pull-policy"],
)
def test_an_image_that_the_config_does_not_allow_is_a_system_failure(
    box: Box,
    image: str,
    said: str,
    reason: str,
) -> None:
    server = box.server
    project = server.add_project("team/app")
    settings = {"image": box.image, "pull_policy": "never", "allowed_images": [box.image, "allowed/*"]}
    text = config_toml(server, {"box": register(server, project, tags=["cpu"])}, settings)
    with box.running(text):
        job = server.create_pipeline(project, f"build:\n  tags: [cpu]\n  script: [echo no]\n  {image}").job("build")
        server.wait_for_jobs([job])
    assert job.status == "failed"
    assert job.failure_reason.startswith(reason)
    assert said in job.log


@ours_only
def test_an_unknown_key_in_the_config_stops_the_runner_with_its_name(box: Box) -> None:
    server = box.server
    runner = register(server, server.add_project("team/app"), tags=["cpu"])
    text = config_toml(server, {"box": runner}, {"image": box.image, "gpu": "all"})
    with box.running(text) as container:
        assert container.wait(timeout=60)["StatusCode"] == 1
        assert "no key runners.docker.gpu" in container.logs().decode()


def test_the_legacy_form_loses_the_exit_code_under_bash_as_gitlab_runner_does(box: Box) -> None:
    server = box.server
    project = server.add_project("team/app")
    runner = register(server, project, tags=["cpu"])
    keys = {"feature_flags": {"FF_USE_LEGACY_BASH_EVAL": True}}
    text = config_toml(server, {"box": runner}, {"image": box.image, "pull_policy": "never"}, keys)
    with box.running(text):
        job = server.create_pipeline(project, "build: {tags: [cpu], script: [\"sh -c 'exit 7'\"]}").job("build")
        server.wait_for_jobs([job])
    assert (job.failure_reason, job.exit_code) == ("script_failure", 1)


_POST = """
import json, os, ssl, urllib.request
address = "{CI_API_V4_URL}/projects/{CI_PROJECT_ID}/merge_requests/{CI_MERGE_REQUEST_IID}/notes".format(**os.environ)
headers = {"PRIVATE-TOKEN": os.environ["NOTE_TOKEN"], "Content-Type": "application/json"}
call = urllib.request.Request(address, json.dumps({"body": "from the job"}).encode(), headers)
urllib.request.urlopen(call, context=ssl.create_default_context(cafile=os.environ["CI_SERVER_TLS_CA_FILE"]))
"""


def test_with_its_own_authority_the_runner_clones_and_a_job_writes_the_note(box: Box, bridge_address: str) -> None:
    with GitLab(bridge_address, tls=True) as server:
        project = server.add_project("team/app", {"post.py": _POST})
        server.add_variable(project, "NOTE_TOKEN", server.add_token("api"), masked=True)
        merge_request = server.add_merge_request(project)
        runner = server.state.add_runner("project_type", server.state.owner)
        runner.projects, runner.tag_list = [project], ["cpu"]
        folder = box.folder / "runner"
        folder.mkdir()
        assert server.ca_file is not None
        (folder / "ca.pem").write_bytes(server.ca_file.read_bytes())
        keys = {"tls-ca-file": "/etc/gitlab-runner/ca.pem"}
        text = config_toml(server, {"box": runner}, {"image": box.image, "pull_policy": "never"}, keys)
        with box.running(text):
            text = "note: {tags: [cpu], script: [python3 post.py]}"
            pipeline = server.create_pipeline(project, text, merge_request=merge_request)
            assert server.wait_for_pipeline(pipeline) == "success"
        assert [note.body for note in merge_request.notes] == ["from the job"]


def test_a_cdi_device_named_in_gpus_reaches_the_job(box: Box) -> None:
    specification = {
        "cdiVersion": "0.5.0",
        "kind": "gpurig-test.example/gpu",
        "devices": [{"name": "0", "containerEdits": {"env": ["CDI_DEVICE=zero"]}}],
    }
    place = Path("/etc/cdi/gpurig-standin-test.json")
    try:
        place.write_text(json.dumps(specification), encoding="utf-8")
    except OSError as error:
        pytest.skip(f"cannot write a CDI specification where the engine reads it: {error}")
    try:
        server = box.server
        project = server.add_project("team/app")
        keys = {"image": box.image, "pull_policy": "never", "gpus": "driver=cdi,device=gpurig-test.example/gpu=0"}
        with box.running(config_toml(server, {"box": register(server, project, tags=["cuda"])}, keys)):
            text = "gpu: {tags: [cuda], script: ['echo device $CDI_DEVICE']}"
            pipeline = server.create_pipeline(project, text)
            assert server.wait_for_pipeline(pipeline) == "success"
        assert "device zero" in pipeline.job("gpu").log
    finally:
        place.unlink()


def test_limits_hold_and_a_changed_config_is_read_without_a_restart(box: Box) -> None:
    server = box.server
    project = server.add_project("team/app")
    shared = box.folder / "signal"
    shared.mkdir()
    settings = {"image": box.image, "pull_policy": "never", "volumes": [f"{shared}:/signal:ro"]}
    first, second = register(server, project, tags=["cpu"]), register(server, project, tags=["cpu", "later"])
    pipelines = [server.create_pipeline(project, _HOLD) for _ in range(2)]
    text = config_toml(server, {"first": first}, settings, {"limit": 1})
    with box.running(text):
        one, two = (pipeline.job("hold") for pipeline in pipelines)
        assert server.wait_for(lambda: "holding" in one.log, 60)
        assert two.status == "pending"
        both = config_toml(server, {"first": first, "second": second}, settings, {"limit": 1})
        (box.folder / "runner" / "config.toml").write_text(both, encoding="utf-8")
        assert server.wait_for(lambda: "holding" in two.log, 60)
        assert (one.runner, two.runner) == (first, second)
        (shared / "go").touch()
        server.wait_for_jobs([one, two])
        assert (one.status, two.status) == ("success", "success")
