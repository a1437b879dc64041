"""A new version of gpurig, images from files, several instances on one box."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.errors import ApplianceError, InputError
from gpurig.provisioning.containers import RunningJob
from gpurig.provisioning.disk import LocalDisk
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.instances import instances
from gpurig.provisioning.settings import RUNNER_IMAGE
from gpurig.runner import workflow
from gpurig.runner.overview import look_around
from gpurig.runner.taking_down import take_down
from gpurig.runner.world import HadImage
from standins.box_commands import state_of, up
from standins.convergence import no_machine
from standins.memory_box import ROOT, MemoryBox


@pytest.fixture(autouse=True)
def _no_machine() -> Any:
    with no_machine():
        yield


def test_an_upgrade_removes_the_images_of_the_version_before_and_an_up_keeps_them() -> None:
    box = MemoryBox(HostFacts())
    up(box, metrics_listen="127.0.0.1:1")
    box.version = "2"
    up(box, metrics_listen="127.0.0.1:1")
    assert {"gpurig-job-cpu:1", "gpurig-job-cpu:2"} <= set(box.engine.images)
    run = up(box, metrics_listen="127.0.0.1:1", prune=True)
    assert set(box.engine.images) == {"gpurig-job-cpu:2", "gpurig-exporter:2", RUNNER_IMAGE}
    assert state_of(box).images == ("gpurig-exporter:2", "gpurig-job-cpu:2")
    assert "tidy" in run.changes
    assert up(box, metrics_listen="127.0.0.1:1", prune=True).changes == []


def test_an_upgrade_leaves_images_that_it_did_not_make_or_that_another_instance_uses() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    up(box, name="second")
    box.engine.pull("gpurig-job-cpu:somebody")
    box.version = "2"
    up(box, prune=True)
    assert {"gpurig-job-cpu:1", "gpurig-job-cpu:2", "gpurig-job-cpu:somebody"} <= set(box.engine.images)
    # The second instance still has version 1; when it is gone, nobody needs it.
    up(box, name="second", prune=True)
    assert "gpurig-job-cpu:1" not in box.engine.images


def test_an_upgrade_leaves_images_that_an_instance_under_another_root_needs() -> None:
    elsewhere = Path("/elsewhere")
    box = MemoryBox(HostFacts())
    up(box, metrics_listen="127.0.0.1:1")
    up(box, name="second", root=elsewhere)
    box.version = "2"
    up(box, metrics_listen="127.0.0.1:1", prune=True)
    # The exporter's image nobody else needs; the second instance's jobs still come with version 1.
    assert "gpurig-exporter:1" not in box.engine.images
    assert {"gpurig-job-cpu:1", "gpurig-job-cpu:2"} <= set(box.engine.images)
    assert "gpurig-job-cpu:1" not in state_of(box).images
    up(box, name="second", root=elsewhere, prune=True)
    assert "gpurig-job-cpu:1" not in box.engine.images
    # The first one leaves with its images, but for what the second needs; then that goes, too.
    for name, root in (("gpurig", ROOT), ("second", elsewhere)):
        assert "gpurig-job-cpu:2" in box.engine.images
        take_down(
            box.world(), name=name, root=root, docker_host=None, unregister=True, images=True, say=lambda *_: None
        )
    assert set(box.engine.images) == {RUNNER_IMAGE}
    assert box.engine.uses == set()


def test_an_instance_that_left_keeps_nobodys_images() -> None:
    elsewhere = Path("/elsewhere")
    box = MemoryBox(HostFacts())
    up(box, name="second", root=elsewhere)
    up(box)
    take_down(box.world(), name="second", root=elsewhere, docker_host=None, unregister=True, say=lambda *_: None)
    box.version = "2"
    up(box, prune=True)
    assert "gpurig-job-cpu:1" not in box.engine.images


def test_a_new_default_runner_image_takes_effect_and_waits_for_running_jobs() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    # Nothing but what differs from a default is remembered.
    assert "runner_image" not in state_of(box).settings
    up(box, runner_image="gitlab/gitlab-runner:next")
    assert state_of(box).settings["runner_image"] == "gitlab/gitlab-runner:next"
    box.engine.running_jobs = (RunningJob("7", "", "1", "x", "cpu", "build"),)
    up(box)
    assert ("gpurig-runner", 5) in box.engine.stopped


def test_a_moving_tag_is_pulled_again_where_asked() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    run = box.run()
    run.pull = True
    box.engine.pull = lambda name: box.engine.images.update({name: "sha256:new"}) or "sha256:new"  # type: ignore[method-assign,func-returns-value]  # update answers None
    workflow.up(run)
    assert {"image", "start"} <= set(run.changes)


def test_images_come_from_files_where_some_are_missing_and_only_there() -> None:
    box = MemoryBox(HostFacts())
    archive = Path("/media/box.tar")
    names = (RUNNER_IMAGE, "gpurig-job-cpu:1")
    box.engine.archives[archive] = names
    box.engine.pull = lambda name: pytest.fail(f"pulled {name}")  # type: ignore[method-assign]
    loaded: list[Path] = []

    def load(path: Path) -> tuple[str, ...]:
        loaded.append(path)
        box.engine.images.update({name: f"sha256:{name}" for name in names})
        return names

    box.engine.load = load  # type: ignore[method-assign]
    # Nothing is built, either.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "standins.memory_box.MemoryImages.ensure",
            lambda self, tag, on_line: HadImage(box.engine.images[tag], built=False),
        )
        patch.setattr("gpurig.runner.up_steps.check_archives", lambda _: None)
        up(box, archives=(archive,))
        up(box, archives=(archive,))
    assert loaded == [archive]


def test_a_file_with_images_that_is_not_there_is_told_before_anything_is_made(tmp_path: Path) -> None:
    box = MemoryBox(HostFacts())
    with pytest.raises(InputError, match=r"none\.tar"):
        up(box, archives=(tmp_path / "none.tar",))
    assert not box.gitlab.runners


def test_down_removes_the_images_where_asked() -> None:
    box = MemoryBox(HostFacts())
    up(box, metrics_listen="127.0.0.1:1")
    take_down(
        box.world(),
        name="gpurig",
        root=ROOT,
        docker_host=None,
        unregister=True,
        images=True,
        drain_s=1,
        say=lambda *_: None,
    )
    assert set(box.engine.images) == {RUNNER_IMAGE}


def test_two_instances_share_a_box_and_are_told_what_they_share() -> None:
    box = MemoryBox()
    up(box, name="second", target="43")
    run = up(box)
    assert sum("second" in note for note in run.notes) == 2
    assert {one.name for one in box.engine.containers.values()} == {"gpurig-runner", "second-runner"}
    assert len(box.gitlab.runners) == 4
    seen = look_around(box.world(), name="second", root=ROOT, docker_host=None)
    assert [note.split(" also serves ")[1].split(":")[0] for note in seen.notes] == ["gpurig", "gpurig"]
    take_down(box.world(), name="second", root=ROOT, docker_host=None, unregister=True, drain_s=1, say=lambda *_: None)
    assert {spec.target for _, spec in box.gitlab.runners.values()} == {"42"}
    assert up(box).notes == []


def test_only_folders_with_a_state_of_ours_are_instances(tmp_path: Path) -> None:
    for name, text in (
        ("gpurig", '{"version": 1}'),
        ("other", '{"serial": 4}'),
        ("broken", "{"),
        ("Not-a-name", '{"version": 1}'),
    ):
        (tmp_path / "etc" / name).mkdir(parents=True)
        (tmp_path / "etc" / name / "state.json").write_text(text)
    (tmp_path / "etc" / "passwd").write_text("")
    assert [one.name for one in instances(LocalDisk(), tmp_path)] == ["gpurig"]
    assert instances(LocalDisk(), tmp_path / "nowhere") == ()


def test_a_status_says_how_long_tokens_last() -> None:
    box = MemoryBox(HostFacts())
    box.gitlab.expires_at = box.today + timedelta(days=30)
    up(box)
    box.today += timedelta(days=28)
    seen = look_around(box.world(), name="gpurig", root=ROOT, docker_host=None)
    assert [one.token(seen.now) for one in seen.runners] == ["2 days"]
    assert "was not renewed" in seen.notes[0]
    box.today += timedelta(days=3)
    assert [one.token(box.today) for one in seen.runners] == ["expired"]


def test_a_failed_upgrade_keeps_the_old_images() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    box.version = "2"
    box.engine.run_result = type(box.engine.run_result)(4, "gpurig-job: no")
    with pytest.raises(ApplianceError):
        up(box, prune=True)
    assert "gpurig-job-cpu:1" in box.engine.images
    assert "gpurig-job-cpu:1" in (box.disk.read(box.paths.config) or "")
