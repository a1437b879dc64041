"""What `up` promises, on a box in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tomli_w
from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.provisioning.config_toml import parse_config
from gpurig.provisioning.containers import RunningJob, RunResult
from gpurig.provisioning.facts import HostFacts, Problem
from gpurig.provisioning.state import State
from gpurig.runner import workflow
from gpurig.runner.undo import UndoLog
from gpurig.runner.up_run import prepare
from standins.box_commands import down, state_of, up
from standins.convergence import no_machine
from standins.memory_box import ROOT, URL, MemoryBox, two_gpus


@pytest.fixture(autouse=True)
def _no_machine() -> Iterator[None]:
    with no_machine():
        yield


def test_the_steps_come_in_the_order_that_decisions_md_explains() -> None:
    assert [step.name for step in workflow.STEPS] == [
        "detect", "check", "plan", "register", "image", "configure", "start", "verify", "tidy", "report",
    ]  # fmt: skip


def test_a_first_up_makes_a_runner_for_each_gpu_and_starts_what_serves_them() -> None:
    box = MemoryBox()
    run = up(box, metrics_listen="127.0.0.1:9476")
    assert len(box.gitlab.runners) == 2
    assert {one.name: one.status for one in box.engine.containers.values()} == {
        "gpurig-runner": "running",
        "gpurig-watcher": "running",
        "gpurig-exporter": "running",
    }
    config = parse_config(box.disk.read(box.paths.config) or "")
    assert config is not None
    assert [one["token"] for one in config["runners"]] == [token for token, _ in box.gitlab.runners.values()]
    assert [spec.wiring.gpus for spec in box.engine.runs] == [one["docker"]["gpus"] for one in config["runners"]]
    assert {path.name: mode for path, (_, mode) in box.disk.files.items() if path.suffix} == {
        "config.toml": 0o600,
        "state.json": 0o600,
    }
    assert run.changes == ["register", "image", "configure", "start", "verify"]


def test_a_second_up_changes_nothing_and_says_so() -> None:
    box = MemoryBox()
    up(box)
    before, checks = box.snapshot(), len(box.engine.runs)
    said: list[tuple[str, str]] = []
    run = box.run()
    run.say = lambda step, text: said.append((step, text))
    workflow.up(run)
    assert box.snapshot() == before
    assert run.changes == []
    assert len(box.engine.runs) == checks
    assert dict(said)["register"] == dict(said)["configure"] == dict(said)["start"] == "unchanged"
    assert dict(said)["report"].startswith("nothing to change")


def test_a_second_up_asks_for_no_token() -> None:
    box = MemoryBox()
    up(box)

    def no_token(_: object) -> None:
        raise InputError("asked for the token")

    box.gitlab.check_token = no_token  # type: ignore[method-assign]  # this is the call that needs it first
    up(box)
    with pytest.raises(InputError):
        up(box, extra_tags=("lab",))


def test_with_create_runner_alone_other_tags_make_a_new_runner_and_delete_the_old_by_its_own_token() -> None:
    box = MemoryBox(HostFacts(), may_list=False)
    up(box)
    up(box, extra_tags=("lab",))
    assert [(number, spec.tags) for number, (_, spec) in box.gitlab.runners.items()] == [(2, ("gpurig", "cpu", "lab"))]
    assert [one.id for one in state_of(box).registrations] == [2]
    assert state_of(box).retired == ()


def test_a_runner_that_somebody_deleted_in_gitlab_is_made_again() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    box.gitlab.runners.clear()
    up(box)
    assert [one.id for one in state_of(box).registrations] == list(box.gitlab.runners) == [2]


def test_a_card_that_is_gone_takes_its_runner_with_it() -> None:
    box = MemoryBox()
    up(box)
    box.host = HostFacts(gpus=two_gpus().gpus[1:])
    up(box)
    assert [one.key for one in state_of(box).registrations] == ["gpu:GPU-2"]
    assert list(box.gitlab.runners) == [2]


def test_a_retired_runner_whose_job_still_runs_is_left_for_the_next_up() -> None:
    box = MemoryBox(HostFacts(), may_list=False)
    up(box)
    token = state_of(box).registrations[0].token
    box.engine.running_jobs = (RunningJob("7", "", "1", token[5:14], "cpu", "build"),)
    run = up(box, extra_tags=("lab",))
    assert set(box.gitlab.runners) == {1, 2}
    assert any("still runs a job" in note for note in run.notes)
    box.engine.running_jobs = ()
    up(box, extra_tags=("lab",))
    assert set(box.gitlab.runners) == {2}


def test_a_new_runner_image_waits_for_running_jobs_before_it_replaces_the_old() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    box.engine.running_jobs = (RunningJob("7", "", "1", "x", "cpu", "build"),)
    up(box, runner_image="gitlab/gitlab-runner:next")
    assert ("gpurig-runner", 5) in box.engine.stopped
    assert [one.name for one in box.engine.containers.values()] == ["gpurig-runner"]
    assert len(box.gitlab.runners) == 1


def test_a_new_job_image_needs_no_restart_of_the_runner() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    before = set(box.engine.containers)
    box.version = "2"
    run = up(box)
    assert set(box.engine.containers) == before
    assert "gpurig-job-cpu:2" in (box.disk.read(box.paths.config) or "")
    assert len(box.engine.runs) == 2
    assert "verify" in run.changes


def test_a_hand_edited_config_is_put_right() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    config = parse_config(box.disk.read(box.paths.config) or "")
    assert config is not None
    config["runners"][0]["docker"]["privileged"] = True
    box.disk.write(box.paths.config, tomli_w.dumps(config), mode=0o600)
    up(box)
    assert "privileged = false" in (box.disk.read(box.paths.config) or "")


def test_a_token_that_gitlab_runner_rotated_is_kept() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    config = parse_config(box.disk.read(box.paths.config) or "")
    assert config is not None
    config["runners"][0] |= {"token": "glrt-rotated", "token_obtained_at": datetime(2026, 2, 1, tzinfo=UTC)}
    text = tomli_w.dumps(config)
    box.disk.write(box.paths.config, text, mode=0o600)
    box.gitlab.runners[1] = ("glrt-rotated", box.gitlab.runners[1][1])
    run = up(box)
    assert run.changes == []
    assert box.disk.read(box.paths.config) == text
    down(box, unregister=True)
    assert not box.gitlab.runners


def test_a_failed_selfcheck_takes_everything_back_and_shows_its_last_words() -> None:
    box = MemoryBox()
    before = box.snapshot()
    box.engine.run_result = RunResult(4, "noise\ngpurig-job: no GPU is visible\n  hint: look\n")
    with pytest.raises(PrerequisiteError, match="exit code 4: no GPU is visible") as caught:
        up(box)
    assert caught.value.hint.startswith("look; ")
    assert "docker run --rm --gpus 'driver=cdi,device=nvidia.com/gpu=0'" in caught.value.hint
    assert box.snapshot() == before


def test_a_runner_that_gitlab_never_hears_from_is_a_failure_with_its_log() -> None:
    box = MemoryBox(HostFacts())
    box.gitlab.online = lambda _: False  # type: ignore[method-assign]  # GitLab answers, and has heard nothing
    with pytest.raises(PrerequisiteError, match=r"did not hear from the runner within 30 s .*a line") as caught:
        up(box)
    assert caught.value.hint == "docker logs gpurig-runner"
    assert not box.gitlab.runners


def test_a_runner_whose_slots_are_all_taken_cannot_be_heard_and_is_no_failure() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    box.gitlab.online = lambda _: False  # type: ignore[method-assign]
    box.engine.running_jobs = (RunningJob("7", "", "1", "x", "cpu", "build"),)
    assert up(box, extra_tags=("lab",)).changes
    with pytest.raises(PrerequisiteError, match="did not hear"):
        up(box, concurrent=2)


def test_a_gpu_that_cannot_be_used_is_never_taken_for_no_gpu() -> None:
    broken = Problem("nvml", "the NVIDIA driver and its library differ", "reboot", unusable=True)
    box = MemoryBox(HostFacts(problems=(broken,)))
    with pytest.raises(PrerequisiteError, match="differ") as caught:
        up(box)
    assert "--cpu" in caught.value.hint
    up(box, cpu=True)
    assert len(box.gitlab.runners) == 1


def test_a_strangers_container_of_our_name_is_left_alone() -> None:
    box = MemoryBox(HostFacts())
    donor = MemoryBox(HostFacts())
    up(donor)
    stranger = next(iter(donor.engine.containers.values()))
    box.engine.containers["x"] = replace(stranger, id="x", spec=replace(stranger.spec, instance="other"))
    with pytest.raises(PrerequisiteError, match="is not gpurig's"):
        up(box)
    assert set(box.engine.containers) == {"x"}
    assert not box.gitlab.runners


def test_a_dry_run_touches_nothing() -> None:
    box = MemoryBox()
    before = box.snapshot()
    run = box.run()
    workflow.look(run)
    assert box.snapshot() == before
    assert len(run.plan.entries) == 2
    assert not box.engine.images


def test_options_that_are_not_given_are_those_of_the_last_run() -> None:
    box = MemoryBox(HostFacts())
    up(box, extra_tags=("lab",), concurrent=2)
    run = prepare(
        box.world(),
        {},
        name="gpurig",
        root=ROOT,
        say=lambda *_: None,
        on_line=lambda _: None,
        drain_s=1,
    )
    workflow.up(run)
    assert run.changes == []
    assert run.settings.url == URL


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"registrations": [{"token": "glrt-geheim"}]}'])
def test_a_damaged_state_is_told_and_its_tokens_are_not(text: str) -> None:
    box = MemoryBox(HostFacts())
    box.disk.make_directory(box.paths.config_dir, mode=0o700)
    box.disk.write(box.paths.state, text, mode=0o600)
    with pytest.raises(InputError, match=r"state\.json is damaged") as caught:
        up(box)
    assert "geheim" not in caught.value.message
    assert not box.gitlab.runners


def test_no_token_is_ever_said(capsys: pytest.CaptureFixture[str]) -> None:
    box = MemoryBox()
    said: list[str] = []
    run = box.run()
    run.say = lambda step, text: said.append(f"{step} {text}")
    workflow.up(run)
    said += down(box, unregister=True)
    assert not any("glrt-" in line for line in said)
    assert "glrt-" not in "".join(capsys.readouterr())
    assert "glrt-" not in repr(run.state)


def test_an_undo_that_fails_does_not_keep_the_others_from_being_undone() -> None:
    log, done = UndoLog(), []

    def fail() -> None:
        raise ApplianceError("it is stuck")

    log.push("first", lambda: done.append("first"))
    log.push("second", fail)
    log.push("third", lambda: done.append("third"))
    assert log.roll_back() == ["second: it is stuck"]
    assert done == ["third", "first"]
    assert log.roll_back() == []


def test_json_of_state_holds_every_field_that_a_next_run_needs(tmp_path: Path) -> None:
    box = MemoryBox(HostFacts())
    up(box)
    text = box.disk.read(box.paths.state) or ""
    assert State.model_validate_json(text) == state_of(box)
    assert json.loads(text)["version"] == 1


def test_gitlabs_word_is_not_enough_while_the_runner_has_not_read_its_configuration() -> None:
    box = MemoryBox()
    # `up` verifies tokens, and GitLab takes that for a word of the runner's.
    box.gitlab.online = lambda _: True  # type: ignore[method-assign]  # this is what GitLab says
    box.engine.on_start = lambda _: None
    with pytest.raises(PrerequisiteError, match="did not hear from the runner"):
        up(box)
