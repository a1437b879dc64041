"""`gpurig up` killed, interrupted and failing against a real HTTP server and engine, and what the next one finds."""

from __future__ import annotations

import signal
import subprocess  # noqa: TID251 - the command is killed while it runs
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gpurig.runner import workflow
from standins.gitlab import Job
from standins.live_box import Box, make_box

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker

STEPS = [step.name for step in workflow.STEPS]


@pytest.fixture
def box(
    tmp_path: Path, engine: docker.DockerClient, bridge_address: str, standin_runner_image: str, base_image: str
) -> Iterator[Box]:
    with make_box(tmp_path, engine, bridge_address, standin_runner_image, base_image) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
    engine: docker.DockerClient,
    bridge_address: str,
    standin_runner_image: str,
    base_image: str,
) -> dict[str, Any]:
    """What an `up` leaves that nobody disturbed."""
    with make_box(
        tmp_path_factory.mktemp("undisturbed"), engine, bridge_address, standin_runner_image, base_image
    ) as box:
        code, said = box.up()
        assert code == 0, said
        return box.lasting(engine)


@pytest.mark.parametrize("moment", ["before", "in", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_an_up_that_is_killed_anywhere_is_healed_by_the_next(
    box: Box, engine: docker.DockerClient, undisturbed: dict[str, Any], step: str, moment: str
) -> None:
    box.killed(step, moment)
    code, said = box.up()
    assert code == 0, said
    assert box.lasting(engine) == undisturbed
    assert len(box.gitlab.runners) == 1


def test_a_runner_whose_answer_a_killed_up_never_read_is_found_and_deleted_by_the_next(
    box: Box, engine: docker.DockerClient
) -> None:
    box.gitlab.fail("silence", method="POST", path="/api/v4/user/runners", done_first=True)
    with box.start() as process:
        assert box.gitlab.wait_for(lambda: len(box.gitlab.state.runners) == 1, 60)
        process.kill()
    lost = box.gitlab.runners[0].id
    box.gitlab.heal()
    code, said = box.up()
    assert code == 0, said
    assert [runner.id for runner in box.gitlab.runners] != [lost]
    assert len(box.gitlab.runners) == 1
    assert box.containers(engine) == {f"{box.name}-runner": "running"}
    assert f"id = {box.gitlab.runners[0].id}\n" in (box.root / "etc" / box.name / "config.toml").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_up_that_is_interrupted_takes_everything_back(
    box: Box, engine: docker.DockerClient, number: signal.Signals
) -> None:
    box.gitlab.fail("silence", method="POST", path="/api/v4/user/runners", done_first=True)
    with box.start() as process:
        assert box.gitlab.wait_for(lambda: len(box.gitlab.state.runners) == 1, 60)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    assert box.gitlab.runners == []
    assert box.files() == []
    assert box.containers(engine) == {}


SLOW_JOB = """
slow:
  tags: [cpu]
  script: ["echo began", "until [ -e /models/go ]; do sleep 0.1; done", "echo ended"]
"""


def start_slow_job(box: Box) -> Job:
    """A pipeline whose one job runs until `let_it_end`."""
    code, said = box.up()
    assert code == 0, said
    project = next(iter(box.gitlab.state.projects.values()))
    job = box.gitlab.create_pipeline(project, SLOW_JOB).jobs[0]
    assert box.gitlab.wait_for(lambda: "began" in job.log, 120), job.log
    return job


def let_it_end(box: Box) -> None:
    (box.root / "var" / "lib" / box.name / "models" / "go").touch()


def test_down_lets_the_running_job_end(box: Box, engine: docker.DockerClient) -> None:
    job = start_slow_job(box)
    command = [sys.executable, "-u", "-m", "gpurig.runner", "down", "--unregister"]
    with subprocess.Popen(
        [*command, "--root", str(box.root), "--name", box.name], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "waiting for 1 running job" in process.stdout.readline()
        let_it_end(box)
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert (job.status, "ended" in job.log) == ("success", True)
    assert box.gitlab.runners == []
    assert box.containers(engine) == {}
    assert [path for path in box.files() if (box.root / path).is_file()] == [f"var/lib/{box.name}/models/go"]


@pytest.mark.parametrize("change", [["--tag", "lab"], ["--concurrent", "2"]])
def test_an_up_that_changes_the_runner_loses_no_running_job(box: Box, change: list[str]) -> None:
    job = start_slow_job(box)
    code, said = box.up(*change)
    assert code == 0, said
    assert job.status == "running"
    let_it_end(box)
    box.gitlab.wait_for_jobs([job], 60)
    assert (job.status, "ended" in job.log) == ("success", True)
    # The runner that was replaced stayed for its job: now it goes.
    code, said = box.up()
    assert code == 0, said
    assert len(box.gitlab.runners) == 1
    assert box.up()[1].count("unchanged") == 6


@pytest.mark.parametrize("step", STEPS[STEPS.index("register") :])
def test_an_up_that_is_killed_anywhere_loses_no_running_job(box: Box, step: str) -> None:
    job = start_slow_job(box)
    box.killed(step, "in", "--tag", "lab", "--concurrent", "2")
    code, said = box.up("--tag", "lab", "--concurrent", "2")
    assert code == 0, said
    assert job.status == "running"
    let_it_end(box)
    box.gitlab.wait_for_jobs([job], 60)
    assert (job.status, "ended" in job.log) == ("success", True)
    assert [runner.tag_list for runner in box.gitlab.runners] == [["cpu", "gpurig", "lab"]]


FAILURES: dict[str, tuple[dict[str, Any], str, int]] = {
    "GitLab has a fault": ({"kind": "status", "status": 500}, "500", 5),
    "the token lost its scope": (
        {"kind": "status", "status": 403, "body": '{"error":"insufficient_scope"}', "path": "/api/v4/user/runners"},
        "insufficient_scope",
        5,
    ),
    "a login page answers": ({"kind": "garbage"}, "not GitLab's API", 5),
    "nobody answers properly": ({"kind": "not-http"}, "cannot reach|not HTTP", 5),
    "GitLab never hears from the runner": (
        {"kind": "status", "status": 502, "path": "/api/v4/runners/[0-9]+"},
        "502",
        5,
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_up_ends_in_one_line_and_leaves_nothing(box: Box, engine: docker.DockerClient, failure: str) -> None:
    fault, words, wanted = FAILURES[failure]
    box.gitlab.fail(**fault)
    code, said = box.up()
    box.gitlab.heal()
    errors = [line for line in said.splitlines() if line.startswith("gpurig: ")]
    assert (code, len(errors)) == (wanted, 1), said
    assert any(word in errors[0] for word in words.split("|")), said
    assert "hint: " in said
    assert "Traceback" not in said
    assert box.gitlab.runners == []
    assert box.files() == []
    assert box.containers(engine) == {}


def test_an_unknown_authority_is_refused_and_with_its_file_the_runner_itself_trusts_it(
    tmp_path: Path, engine: docker.DockerClient, bridge_address: str, standin_runner_image: str, base_image: str
) -> None:
    with make_box(tmp_path, engine, bridge_address, standin_runner_image, base_image, tls=True) as box:
        code, said = box.up()
        assert code == 5, said
        assert "--tls-ca-file" in said
        assert box.files() == []
        assert box.gitlab.ca_file is not None
        code, said = box.up("--tls-ca-file", str(box.gitlab.ca_file))
        assert code == 0, said
        # The process in the container asked for jobs over TLS: it trusts the copy.
        assert box.gitlab.wait_for_runner(30).contacted_at
