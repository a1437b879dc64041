"""Every GitLab call, engine call and file access of `up` fails or is the last one, in turn.

A failed `up` leaves what was there before; after it, and after one that was killed, the next `up` ends in the state of
an undisturbed one, and no runner is left in GitLab that nobody knows. With a token of scope create_runner alone a
runner whose creation was not answered cannot be found: then the user is told its name.
"""

from __future__ import annotations

import pytest
from gpurig.common.errors import ApplianceError
from gpurig.runner import workflow
from gpurig.runner.taking_down import take_down
from standins.convergence import SCENARIOS, no_machine, try_every_fault
from standins.faults import Faults, Killed, every_fault
from standins.memory_box import ROOT, MemoryBox


@pytest.mark.parametrize("wide", [True, False], ids=["api", "create_runner"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whatever_call_fails_the_next_up_heals_it_and_a_failed_one_leaves_nothing(scenario: str, *, wide: bool) -> None:
    outcome = try_every_fault(scenario, wide=wide)
    assert outcome.calls > 15
    assert outcome.injected == 4 * outcome.calls
    assert outcome.healed == outcome.injected, outcome.details
    assert outcome.traces == 0, outcome.details
    assert outcome.doubled == 0, outcome.details
    assert outcome.untold == 0, outcome.details
    assert not (wide and outcome.orphans), outcome.details
    assert outcome.undeletable == 0, outcome.details


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

    def set_up() -> MemoryBox:
        box = MemoryBox()
        workflow.up(box.run())
        return box

    with no_machine():
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
