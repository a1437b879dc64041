"""A box over time, on a real engine: settings and images from files, upgrades, renewed tokens, two instances."""

from __future__ import annotations

import io
import json
import subprocess  # noqa: TID251 - the command is watched while it runs
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gpurig.common.process import Finished, run
from standins.live_box import Box, make_box

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker

SLOW_JOB = """
slow:
  tags: [cpu]
  script: ["echo began", "until [ -e /models/go ]; do sleep 0.1; done", "echo ended"]
"""
QUICK_JOB = "quick: {tags: [cpu], script: [echo done]}"


@pytest.fixture
def box(
    tmp_path: Path, engine: docker.DockerClient, bridge_address: str, standin_runner_image: str, base_image: str
) -> Iterator[Box]:
    with make_box(tmp_path, engine, bridge_address, standin_runner_image, base_image) as made:
        yield made


def gpurig(*words: str) -> Finished:
    return run([sys.executable, "-m", "gpurig.runner", *words], timeout_s=600)


def state_of(box: Box) -> Path:
    return box.root / "etc" / box.name / "state.json"


def option(box: Box, name: str) -> str:
    return box.options[box.options.index(name) + 1]


def test_a_box_is_set_up_and_changed_by_its_settings_file(box: Box, tmp_path: Path, base_image: str) -> None:
    token = tmp_path / "narrow"
    token.write_text(box.gitlab.add_token("create_runner"))
    path = tmp_path / "box.toml"
    settings = (
        f'url = "{box.gitlab.url}"\nproject = {option(box, "--project")}\ntoken_file = "narrow"\nname = "{box.name}"\n'
        f'cpu = true\nmetrics_listen = "off"\nrunner_image = "{option(box, "--runner-image")}"\n'
        f'base_image = "{base_image}"\nhttp_proxy = ""\nhttps_proxy = ""\n'
    )
    path.write_text(settings + 'extra_tags = ["lab"]\nmaximum_timeout = 7200\nmaintenance_note = "call Ada"\n')
    words = ("up", "--root", str(box.root), "--settings", str(path))
    done = gpurig(*words)
    assert done.code == 0, done.stderr
    runner = box.gitlab.runners[0]
    assert (set(runner.tag_list), runner.maximum_timeout, runner.locked) == ({"gpurig", "cpu", "lab"}, 7200, True)
    assert runner.maintenance_note.startswith("call Ada\n\ngpurig ")
    assert "nothing to change" in gpurig(*words).stdout
    # The tag is not in the file any more: with this token that is another runner, and the old one goes.
    path.write_text(settings)
    assert gpurig(*words).code == 0
    assert [(set(one.tag_list), one.id != runner.id) for one in box.gitlab.runners] == [({"gpurig", "cpu"}, True)]
    path.write_text(settings + "concurent = 2\n")
    done = gpurig(*words)
    assert (done.code, "line 11, concurent: unknown key" in done.stderr) == (2, True), done.stderr
    assert "did you mean concurrent?" in done.stderr


def test_the_runners_image_comes_from_a_file_where_no_registry_has_it(
    box: Box, engine: docker.DockerClient, tmp_path: Path
) -> None:
    name = f"registry.invalid/{box.name}:1"
    archive = tmp_path / "images.tar"
    image = engine.images.get(option(box, "--runner-image"))
    image.tag(name)
    with archive.open("wb") as stream:
        for chunk in engine.images.get(name).save(named=name):
            stream.write(chunk)
    engine.images.remove(name)
    try:
        code, said = box.up("--runner-image", name)
        assert code == 4, said
        assert "load it" in said
        broken = tmp_path / "broken.tar"
        broken.write_bytes(b"no archive" * 1000)
        code, said = box.up("--runner-image", name, "--image-archive", str(broken))
        assert (code, "is no archive of images" in said) == (2, True), said
        assert box.gitlab.runners == []
        code, said = box.up("--runner-image", name, "--image-archive", str(archive))
        assert code == 0, said
        assert "loaded " in said
        assert name in " ".join(said.split())
    finally:
        for one in engine.containers.list(all=True, filters={"label": f"gpurig.instance={box.name}"}):
            one.remove(force=True, v=True)
        engine.images.remove(name, force=True)


def test_an_upgrade_waits_for_the_running_job_and_removes_what_it_replaced(
    box: Box, engine: docker.DockerClient
) -> None:
    moving, old = f"gpurig-test-{box.name}:latest", f"gpurig-job-cpu:old-{box.name}"
    first = engine.images.get(option(box, "--runner-image"))
    first.tag(moving)
    first.tag(old)
    try:
        code, said = box.up("--runner-image", moving)
        assert code == 0, said
        # As if a former version of gpurig had built it.
        state = json.loads(state_of(box).read_text())
        state["images"].append(old)
        state_of(box).write_text(json.dumps(state))
        job = box.gitlab.create_pipeline(next(iter(box.gitlab.state.projects.values())), SLOW_JOB).jobs[0]
        assert box.gitlab.wait_for(lambda: "began" in job.log, 120), job.log
        recipe = f"FROM {first.id}\nLABEL newer=yes\n".encode()
        engine.images.build(fileobj=io.BytesIO(recipe), tag=moving, rm=True)
        before = {one.id for one in engine.containers.list(filters={"label": f"gpurig.instance={box.name}"})}
        command = [sys.executable, "-u", "-m", "gpurig.runner", "upgrade", "--root", str(box.root), "--name", box.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "waiting for 1 running job" in line:
                    (box.root / "var" / "lib" / box.name / "models" / "go").touch()
        assert process.returncode == 0, lines
        assert any("waiting for 1 running job" in line for line in lines), lines
        assert (job.status, "ended" in job.log) == ("success", True)
        roles = {"label": [f"gpurig.instance={box.name}", "gpurig.role=runner"]}
        after = {one.id for one in engine.containers.list(filters=roles)}
        assert len(after) == 1
        assert not after & before
        assert len(box.gitlab.runners) == 1
        assert old not in {tag for image in engine.images.list() for tag in image.tags}
        assert old not in state_of(box).read_text()
    finally:
        for one in engine.containers.list(all=True, filters={"label": f"gpurig.instance={box.name}"}):
            one.remove(force=True, v=True)
        for name in (moving, old):
            if any(name in image.tags for image in engine.images.list()):
                engine.images.remove(name, force=True)


def test_a_running_runner_goes_on_with_a_token_that_up_renewed(box: Box) -> None:
    code, said = box.up()
    assert code == 0, said
    runner = box.gitlab.runners[0]
    old = runner.token
    now = datetime.now(UTC)
    state = json.loads(state_of(box).read_text())
    state["registrations"][0] |= {
        "obtained_at": (now - timedelta(days=29)).isoformat(),
        "expires_at": (now + timedelta(days=1)).isoformat(),
    }
    state_of(box).write_text(json.dumps(state))
    shown = gpurig("status", "--root", str(box.root), "--name", box.name)
    assert "was not renewed" in " ".join(shown.stdout.split())
    runner.token_expires_at = now + timedelta(days=30)
    code, said = box.up()
    assert (code, f"renewed the token of runner #{runner.id}" in said) == (0, True), said
    assert runner.token != old
    assert old not in state_of(box).read_text()
    job = box.gitlab.create_pipeline(next(iter(box.gitlab.state.projects.values())), QUICK_JOB).jobs[0]
    box.gitlab.wait_for_jobs([job], 120)
    assert job.status == "success", job.log
    assert "29 days" in gpurig("status", "--root", str(box.root), "--name", box.name).stdout


def test_two_instances_share_one_box(box: Box, engine: docker.DockerClient) -> None:
    second = f"{box.name}-b"
    try:
        assert box.up()[0] == 0
        assert box.up("--name", second)[0] == 0
        done = gpurig("status", "--all", "--root", str(box.root), "--json")
        assert done.code == 0, done.stderr
        seen = json.loads(done.stdout)["instances"]
        assert [(name, one["fault"]) for name, one in seen.items()] == [(box.name, None), (second, None)]
        assert gpurig("down", "--unregister", "--root", str(box.root), "--name", second).code == 0
        assert len(box.gitlab.runners) == 1
        assert box.containers(engine) == {f"{box.name}-runner": "running"}
        assert second not in gpurig("status", "--all", "--root", str(box.root)).stdout
    finally:
        for one in engine.containers.list(all=True, filters={"label": f"gpurig.instance={second}"}):
            one.remove(force=True, v=True)
