"""`gpurig up` killed, interrupted and failing against a real HTTP server and engine, and what the next one finds."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess  # noqa: TID251 - the command is killed while it runs
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gpurig.runner import workflow
from standins.gitlab import GitLab, Job

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker

TESTS = Path(__file__).parents[1]
STEPS = [step.name for step in workflow.STEPS]


@dataclass
class Box:
    """One box with a token that may list runners."""

    gitlab: GitLab
    root: Path
    name: str
    options: list[str]

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Begin `gpurig up`."""
        return subprocess.Popen(
            [sys.executable, "-m", "gpurig.runner", "up", "--root", str(self.root), *self.options, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "80"},
        )

    def up(self, *more: str) -> tuple[int, str]:
        """`gpurig up` to its end: its exit code, and everything it printed."""
        with self.start(*more) as process:
            out, err = process.communicate(timeout=600)
            return process.returncode, out + err

    def killed(self, step: str, moment: str, *more: str) -> None:
        """`gpurig up` that dies by SIGKILL before, in or after a step."""
        words = ["up", "--root", str(self.root), *self.options, *more]
        done = subprocess.run(
            [sys.executable, "-m", "standins.killed_up", step, moment, *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr

    def lasting(self, engine: docker.DockerClient) -> dict[str, Any]:
        """Everything that lasts, without what differs from box to box."""
        runners = self.gitlab.runners
        root = str(self.root)

        def plain(text: str) -> str:
            for runner in runners:
                text = text.replace(runner.token, "TOKEN").replace(f"#{runner.id}", "#ID")
                text = re.sub(rf'(\bid = |"id": ){runner.id}\b', r"\1ID", text)
            text = text.replace(root, "ROOT").replace(self.gitlab.url, "URL").replace(self.name, "NAME")
            text = re.sub(r"\[[0-9a-f]{8}\]", "[BOX]", text)
            return re.sub(r'(_at"?(?: =|:)|"spec":|"box:cpu":|"cpu":) [^,\n]+', r"\1 X", text)

        kept = [path for path in self.root.rglob("*") if path.is_file() and path.name != ".runner_system_id"]
        return {
            "files": [name.replace(self.name, "NAME") for name in self.files()],
            "texts": {path.name: plain(path.read_text()) for path in kept},
            "modes": {path.name: oct(path.stat().st_mode) for path in kept},
            "containers": sorted((name.replace(self.name, "NAME"), on) for name, on in self.containers(engine).items()),
            "gitlab": [(plain(one.description), one.tag_list, one.run_untagged, one.locked) for one in runners],
        }

    def files(self) -> list[str]:
        """Every file and folder of the box."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))

    def containers(self, engine: docker.DockerClient) -> dict[str, str]:
        """The instance's containers and their states."""
        found = engine.containers.list(all=True, filters={"label": f"gpurig.instance={self.name}"})
        return {str(one.name): one.status for one in found}


@contextlib.contextmanager
def make_box(
    tmp_path: Path, engine: docker.DockerClient, address: str, runner: str, base: str, *, tls: bool = False
) -> Iterator[Box]:
    name = f"kill-{secrets.token_hex(4)}"
    token_file = tmp_path / "token"
    with GitLab(address, tls=tls) as gitlab:
        project = gitlab.add_project("lab/llm")
        token_file.write_text(gitlab.add_token("api"))
        root = tmp_path / "box"
        root.mkdir()
        options = ["--url", gitlab.url, "--project", str(project.id), "--token-file", str(token_file), "--cpu"]
        options += ["--name", name, "--runner-image", runner, "--base-image", base, "--metrics-listen", "off"]
        # The stand-in GitLab is on this machine.
        options += ["--http-proxy", "", "--https-proxy", ""]
        box = Box(gitlab, root, name, options)
        try:
            yield box
        finally:
            for one in engine.containers.list(all=True, filters={"label": f"gpurig.instance={name}"}):
                one.remove(force=True, v=True)


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
