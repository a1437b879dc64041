"""Every GitLab call, engine call and file access of `up` fails or is the last one, in turn.

A failed `up` leaves what was there before; after it, and after one that was killed, the next `up` ends in the state of
an undisturbed one, and no runner is left in GitLab that nobody knows.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import pytest
from gpurig.common.errors import ApplianceError
from gpurig.runner import workflow
from gpurig.runner.taking_down import take_down
from standins.memory_box import ROOT, Faults, Killed, MemoryBox, every_fault, two_gpus


def fresh() -> MemoryBox:
    return MemoryBox()


def set_up() -> MemoryBox:
    box = MemoryBox()
    workflow.up(box.run())
    return box


def set_up_then_changed() -> MemoryBox:
    """One card was swapped, and a new version of gpurig has new images."""
    box = set_up()
    gpus = two_gpus().gpus
    box.host = two_gpus().__class__(gpus=(gpus[0],))
    box.version = "2"
    return box


SCENARIOS: dict[str, tuple[Callable[[], MemoryBox], dict[str, object]]] = {
    "first": (fresh, {}),
    "again": (set_up, {}),
    "tags": (set_up, {"extra_tags": ("lab",)}),
    "hardware-and-images": (set_up_then_changed, {}),
    "other-runner-image": (set_up, {"runner_image": "gitlab/gitlab-runner:next", "metrics_listen": "127.0.0.1:1"}),
}


@functools.cache
def reference(scenario: str) -> tuple[int, dict[str, object]]:
    """How many calls an undisturbed run makes, and what it leaves."""
    make, given = SCENARIOS[scenario]
    box, count = make(), Faults()
    workflow.up(box.run(count, **given))
    return len(count.calls), box.snapshot()


@pytest.fixture(autouse=True)
def _free_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    # The one check that asks the machine itself.
    monkeypatch.setattr("gpurig.runner.up_steps.check_port", lambda *_, **__: None)
    monkeypatch.setattr("gpurig.runner.up_steps.check_folders", lambda *_: None)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whatever_call_fails_the_next_up_heals_it_and_a_failed_one_leaves_nothing(scenario: str) -> None:
    make, given = SCENARIOS[scenario]
    total, wanted = reference(scenario)
    tried = 0
    for faults in every_fault(total):
        box = make()
        before = box.snapshot()
        where = ""
        try:
            workflow.up(box.run(faults, **given))
        except (ApplianceError, Killed):
            where = f"{scenario}: call {faults.at} ({faults.calls[faults.at]}), after={faults.after} kill={faults.kill}"
            if not faults.kill:
                # Either all was taken back, or everything new was proven already and only tidying failed.
                assert box.snapshot() == before or _complete(box, wanted), where
                assert not box.orphans(), where
        workflow.up(box.run(**given))
        assert box.snapshot() == wanted, where
        assert not box.orphans(), where
        tried += 1
    assert tried == 4 * total
    assert total > 20


def _complete(box: MemoryBox, wanted: dict[str, object]) -> bool:
    now = box.snapshot()
    return set(wanted["gitlab"]) <= set(now["gitlab"]) and set(wanted["containers"]) <= set(now["containers"])  # type: ignore[call-overload]  # lists of tuples


@pytest.mark.parametrize("scenario", ["first", "tags"])
def test_whatever_call_fails_with_a_narrow_token_no_runner_is_forgotten_in_silence(scenario: str) -> None:
    make, given = SCENARIOS[scenario]
    total, wanted = reference(scenario)
    for faults in every_fault(total):
        box = make()
        box.gitlab.may_list = False
        first, second = box.run(faults, **given), box.run(**given)
        with contextlib.suppress(ApplianceError, Killed):
            workflow.up(first)
        workflow.up(second)
        notes = first.notes + second.notes
        # A lost answer and a token that may not look: then the user is told its name.
        if box.orphans():
            assert any("unused runner" in note for note in notes), faults
    assert wanted


def test_a_down_that_fails_anywhere_is_finished_by_the_next() -> None:
    def down(box: MemoryBox, faults: Faults | None = None) -> None:
        take_down(
            box.world(faults),
            name="gpurig",
            root=ROOT,
            docker_host=None,
            unregister=True,
            drain_s=5,
            say=lambda *_: None,
        )

    count = Faults()
    down(set_up(), count)
    assert len(count.calls) > 15
    for faults in every_fault(len(count.calls)):
        box = set_up()
        box.disk.make_directory(box.paths.models, mode=0o755)
        box.disk.write(box.paths.models / "kept.gguf", "weights", mode=0o644)
        with pytest.raises((ApplianceError, Killed)):
            down(box, faults)
        down(box)
        assert not box.gitlab.runners
        assert not box.engine.containers
        assert list(box.disk.files) == [box.paths.models / "kept.gguf"]
        down(box)
