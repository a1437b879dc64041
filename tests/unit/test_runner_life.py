"""A runner's life in GitLab: changed in place or replaced, its token renewed, its words kept short."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from gpurig.common.errors import ApplianceError, PrerequisiteError, RemoteError
from gpurig.provisioning.config_toml import parse_config
from gpurig.provisioning.containers import RunResult
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.runner_spec import TEXT_LIMIT, maintenance_note, spec_from
from gpurig.runner import workflow
from gpurig.runner.overview import look_around
from gpurig.runner.renewing import due
from gpurig.runner.taking_down import take_down
from standins.box_commands import state_of, up
from standins.convergence import card, no_machine
from standins.faults import Faults
from standins.memory_box import ROOT, MemoryBox, two_gpus
from standins.plans import plan_for


@pytest.fixture(autouse=True)
def _no_machine() -> Any:
    with no_machine():
        yield


CHANGES: list[dict[str, Any]] = [
    {"extra_tags": ("lab",)},
    {"run_untagged": True},
    {"maximum_timeout": 600},
    {"locked": False},
    {"protected": True},
    {"paused": True},
]


@pytest.mark.parametrize("given", CHANGES, ids=lambda one: next(iter(one)))
def test_a_wide_token_changes_a_runner_and_a_narrow_one_makes_another(given: dict[str, Any]) -> None:
    for wide, numbers in ((True, [1]), (False, [2])):
        box = MemoryBox(HostFacts(), may_list=wide)
        up(box)
        run = up(box, **given)
        assert list(box.gitlab.runners) == [one.id for one in state_of(box).registrations] == numbers
        assert run.changes[0] == "register"
        wanted = plan_for(HostFacts(), **given).entries[0].runner
        assert next(iter(box.gitlab.runners.values()))[1].digest() == wanted.digest()
        assert up(box, **given).changes == []


def test_a_runner_is_never_given_to_another_project() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    up(box, target="43")
    assert [(number, spec.target) for number, (_, spec) in box.gitlab.runners.items()] == [(2, "43")]


def test_other_words_alone_never_cost_a_runner() -> None:
    wide, narrow = MemoryBox(HostFacts()), MemoryBox(HostFacts(), may_list=False)
    for box in (wide, narrow):
        up(box)
        up(box, description="the lab's", maintenance_note="call Ada")
        assert list(box.gitlab.runners) == [1]
    spec = wide.gitlab.runners[1][1]
    assert spec.description == "the lab's: CPU [12345678]"
    assert spec.maintenance_note.startswith("call Ada\n\ngpurig ")
    assert narrow.gitlab.runners[1][1].maintenance_note.startswith("gpurig ")


def test_a_change_that_was_not_answered_is_made_again() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    change = box.gitlab.change

    def lost(runner_id: int, spec: Any) -> bool:
        change(runner_id, spec)
        raise RemoteError("the answer is lost")

    box.gitlab.change = lost  # type: ignore[method-assign]
    with pytest.raises(RemoteError):
        up(box, extra_tags=("lab",))
    assert state_of(box).registrations[0].changing
    box.gitlab.change = change  # type: ignore[method-assign]
    # The user went back to what was: GitLab must, too.
    up(box)
    assert box.gitlab.runners[1][1].tags == ("gpurig", "cpu")
    assert not state_of(box).registrations[0].changing


def test_a_card_swapped_with_a_narrow_token_costs_only_its_own_runner() -> None:
    box = MemoryBox(may_list=False)
    up(box)
    box.host = HostFacts(gpus=(two_gpus().gpus[0], card(2, uuid="GPU-new", name="NVIDIA GeForce RTX 3060")))
    up(box)
    assert list(box.gitlab.runners) == [1, 3]
    assert "rtx-3060" in box.gitlab.runners[3][1].tags
    assert [one.gpus for one in state_of(box).registrations] == [("GPU-1",), ("GPU-new",)]


def expiring(days_left: float, *, life: int = 30) -> MemoryBox:
    box = MemoryBox(HostFacts())
    box.gitlab.expires_at = box.today + timedelta(days=life)
    up(box)
    box.today += timedelta(days=life - days_left)
    box.gitlab.expires_at += timedelta(days=life - days_left)
    return box


@pytest.mark.parametrize(("left", "life", "wanted"), [(3, 30, True), (4, 30, False), (6, 365, True), (8, 365, False)])
def test_a_token_is_renewed_after_gitlab_runner_would_have(left: float, life: int, *, wanted: bool) -> None:
    box = expiring(left, life=life)
    assert due(state_of(box).registrations[0], box.today) == wanted
    old = box.gitlab.runners[1][0]
    run = up(box)
    new = box.gitlab.runners[1][0]
    assert (new != old) == wanted == bool(run.changes)
    config = parse_config(box.disk.read(box.paths.config) or "")
    assert config is not None
    assert [one["token"] for one in config["runners"]] == [state_of(box).registrations[0].token] == [new]
    assert config["runners"][0]["token_expires_at"] == state_of(box).registrations[0].expires_at
    assert up(box).changes == []


def test_a_renewed_token_survives_an_up_that_fails_after_it() -> None:
    box = expiring(2)
    box.version = "2"
    box.engine.run_result = RunResult(4, "gpurig-job: no")
    with pytest.raises(PrerequisiteError):
        up(box)
    token = box.gitlab.runners[1][0]
    assert state_of(box).registrations[0].token == token
    # The running gitlab-runner reads it there.
    assert f'token = "{token}"' in (box.disk.read(box.paths.config) or "")


def test_a_token_that_ran_out_gives_a_new_runner_and_the_old_one_is_deleted_or_told() -> None:
    for wide in (True, False):
        box = expiring(0)
        box.gitlab.expired = {token for token, _ in box.gitlab.runners.values()}
        box.gitlab.may_list = wide
        run = up(box)
        assert [one.id for one in state_of(box).registrations] == [2]
        assert list(box.gitlab.runners) == ([2] if wide else [1, 2])
        assert any("runner #1" in note for note in run.notes) != wide


def test_a_note_holds_the_boxs_facts_within_gitlabs_limit() -> None:
    gpu = card(1, driver="575.51")
    note = maintenance_note([gpu], hostname="ada", said="call Ada")
    assert note.splitlines()[0] == "call Ada"
    assert "NVIDIA GeForce RTX 4090, 24 GB (24564 MiB), sm-89, driver 575.51" in note
    many = maintenance_note([card(n) for n in range(1, 40)], hostname="ada", said="x" * 700)
    assert len(many) <= TEXT_LIMIT
    assert "more GPU(s)" in many.splitlines()[-1]
    plan = plan_for(two_gpus(), description="d" * 500, maintenance_note="n" * 700)
    assert all(len(one.runner.description) <= TEXT_LIMIT for one in plan.entries)
    assert all(one.runner.description.endswith("[12345678]") for one in plan.entries)


def test_a_spec_is_the_same_after_it_was_stored() -> None:
    spec = plan_for(two_gpus(), maximum_timeout=900).entries[0].runner
    assert spec_from(spec.document()).digest() == spec.digest()
    assert spec_from({**spec.document(), "of another version": 1}).place == spec.place


def test_a_runner_whose_token_is_lost_is_told_once_and_deleted_with_the_first_wider_token() -> None:
    box = MemoryBox(HostFacts(), may_list=False)
    box.gitlab.expires_at = box.today + timedelta(days=30)
    up(box)
    box.today += timedelta(days=31)
    box.gitlab.expires_at += timedelta(days=31)
    box.gitlab.expired = {token for token, _ in box.gitlab.runners.values()}
    old = next(iter(box.gitlab.runners))
    told = up(box).notes
    assert any(f"the runner #{old}, whose token is lost" in note for note in told)
    assert up(box).notes == []
    seen = look_around(box.world(), name="gpurig", root=ROOT, docker_host=None)
    assert any(f"#{old}" in note for note in seen.notes)
    box.gitlab.may_list = True
    assert up(box).changes == ["tidy"]
    assert old not in box.gitlab.runners
    assert len(box.gitlab.runners) == 1
    assert look_around(box.world(), name="gpurig", root=ROOT, docker_host=None).notes == ()


def test_down_deletes_what_was_lost_where_it_is_given_a_wider_token() -> None:
    box = MemoryBox(HostFacts(), may_list=False)
    count = Faults()
    workflow.up(box.run(count))
    lost = MemoryBox(HostFacts(), may_list=False)
    with pytest.raises(ApplianceError):
        workflow.up(lost.run(Faults(at=count.calls.index("gitlab.create"), after=True)))
    assert len(lost.gitlab.runners) == 1
    said: list[str] = []

    def down() -> None:
        take_down(
            lost.world(),
            name="gpurig",
            root=ROOT,
            docker_host=None,
            unregister=True,
            say=lambda step, text: said.append(f"{step} {text}"),
        )

    lost.gitlab.may_list = True
    down()
    assert lost.gitlab.runners == {}
    assert any("deleted an unused runner" in line for line in said)
