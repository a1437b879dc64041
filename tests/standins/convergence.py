"""Every call of `up` fails or is the last one, in turn, on a box in memory: what came of it, counted.

The unit tests judge the figures, and the benchmark reports them.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from unittest import mock

from gpurig.common.errors import ApplianceError
from gpurig.provisioning.facts import Gpu, HostFacts
from gpurig.provisioning.service_spec import UNIT_DIR
from gpurig.provisioning.state import State, save_state
from gpurig.runner import workflow

from standins.faults import Faults, Killed, every_fault
from standins.memory_box import MemoryBox, two_gpus


@contextlib.contextmanager
def no_machine() -> Iterator[None]:
    """Without the two checks that ask the machine itself: they have tests of their own."""
    with (
        mock.patch("gpurig.runner.up_steps.check_port", return_value=None),
        mock.patch("gpurig.runner.up_steps.check_folders", return_value=None),
    ):
        yield


def card(number: int, **values: Any) -> Gpu:
    """One more card of the same kind."""
    first = two_gpus().gpus[0]
    made = replace(first, uuid=f"GPU-{number}", pci_address=f"0000:0{number}:00.0", index=str(number - 1))
    return replace(made, **values)


def _up(box: MemoryBox, **given: Any) -> MemoryBox:
    workflow.up(box.run(**given))
    return box


def _service(box: MemoryBox) -> MemoryBox:
    return _up(box, **SYSTEMD)


def _new_package(box: MemoryBox) -> MemoryBox:
    _service(box)
    box.binary = replace(box.binary, version="19.5.0")
    return box


def _unit_changed(box: MemoryBox) -> MemoryBox:
    """Somebody put another line into the unit's file, and systemd has not read it yet."""
    _service(box)
    path = UNIT_DIR / "gpurig-runner.service"
    box.disk.write(path, (box.disk.read(path) or "").replace("Restart=always", "Restart=no"), mode=0o644)
    return box


def _service_stopped(box: MemoryBox) -> MemoryBox:
    _service(box)
    box.systemd.stop("gpurig-runner", wait_s=1)
    box.systemd.disable("gpurig-runner")
    return box


def _with_cards(box: MemoryBox, *cards: Gpu) -> MemoryBox:
    box.host = HostFacts(gpus=cards)
    return box


def _new_version(box: MemoryBox) -> MemoryBox:
    box.version = "2"
    return box


def _expiring(box: MemoryBox, *, days_left: int) -> MemoryBox:
    """Tokens of 30 days, of which some are left; GitLab knows an expired one no more."""
    box.gitlab.expires_at = box.today + timedelta(days=30)
    _up(box)
    box.today += timedelta(days=30 - days_left)
    box.gitlab.expires_at += timedelta(days=30 - days_left)
    if days_left <= 0:
        box.gitlab.expired = {token for token, _ in box.gitlab.runners.values()}
    return box


SYSTEMD = {"service": "systemd"}


@dataclass(frozen=True)
class Scenario:
    """A box, and what `up` is then asked for."""

    make: Callable[[MemoryBox], MemoryBox]
    given: dict[str, Any] = field(default_factory=dict)


SCENARIOS = {
    "first": Scenario(lambda box: box),
    "again": Scenario(_up),
    "other tags": Scenario(_up, {"extra_tags": ("lab",)}),
    "other limits and rights": Scenario(_up, {"maximum_timeout": 7200, "protected": True, "paused": True}),
    "other words": Scenario(_up, {"description": "the lab's box", "maintenance_note": "call Ada"}),
    "another project": Scenario(_up, {"target": "43"}),
    "a new driver": Scenario(
        lambda box: _with_cards(_up(box), *(replace(gpu, driver="999.1") for gpu in two_gpus().gpus))
    ),
    "a card added": Scenario(lambda box: _with_cards(_up(box), *two_gpus().gpus, card(3))),
    "a card removed": Scenario(lambda box: _with_cards(_up(box), two_gpus().gpus[0])),
    "a card swapped": Scenario(lambda box: _with_cards(_up(box), two_gpus().gpus[0], card(2, uuid="GPU-new"))),
    "a card removed, and new images": Scenario(lambda box: _new_version(_with_cards(_up(box), two_gpus().gpus[0]))),
    "an upgrade": Scenario(lambda box: _new_version(_up(box)), {"prune": True}),
    "another runner image": Scenario(
        _up, {"runner_image": "gitlab/gitlab-runner:next", "metrics_listen": "127.0.0.1:1"}
    ),
    "tokens that run out": Scenario(functools.partial(_expiring, days_left=2)),
    "tokens that have run out": Scenario(functools.partial(_expiring, days_left=0)),
    "first, as a service": Scenario(lambda box: box, SYSTEMD),
    "again, as a service": Scenario(_service, SYSTEMD),
    "container to service": Scenario(_up, SYSTEMD),
    "service to container": Scenario(_service, {"metrics_listen": "127.0.0.1:1"}),
    "other tags, as a service": Scenario(_service, {**SYSTEMD, "extra_tags": ("lab",)}),
    "another proxy, as a service": Scenario(_service, {**SYSTEMD, "http_proxy": "http://proxy.example:3128"}),
    "another patience, as a service": Scenario(_service, {**SYSTEMD, "wait": 60}),
    "a new package": Scenario(_new_package, SYSTEMD),
    "a unit that somebody changed": Scenario(_unit_changed, SYSTEMD),
    "a service that somebody stopped": Scenario(_service_stopped, SYSTEMD),
    "container to service, with a new package and images": Scenario(
        lambda box: _new_version(_up(box)), {**SYSTEMD, "prune": True, "metrics_listen": "127.0.0.1:1"}
    ),
}


# What lost the token of a runner that is left in GitLab.
CAUSES = {
    "unanswered": "created, and the answer lost",
    "unrenewed": "its token renewed, and the answer lost",
    "expired": "its token had run out before",
}


@dataclass
class Outcome:
    """What came of all faults in one scenario.

    Attributes:
        calls: how many an undisturbed run makes.
        injected: faults tried, four for each call: failing and being killed, before the call and after it.
        healed: after which the next `up` ended in the state of an undisturbed one.
        orphans: runners in GitLab at the end whose token no file of the box has.
        causes: the same, by what lost the token: CAUSES.
        untold: those of them whose name the user was not told.
        undeletable: those of them that are still there after an `up` with a token of scope `api`.
        traces: failed runs that left something else than what was there before.
        doubled: runs in which two runner processes had the same configuration at a time, and so took twice the jobs.
        details: where it went wrong, for a person.
    """

    calls: int = 0
    injected: int = 0
    healed: int = 0
    orphans: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    undeletable: int = 0
    untold: int = 0
    traces: int = 0
    doubled: int = 0
    details: list[str] = field(default_factory=list)


def _box(scenario: Scenario, *, wide: bool) -> MemoryBox:
    return scenario.make(MemoryBox(may_list=wide))


def _without_orphans(box: MemoryBox) -> dict[str, Any]:
    """What lasts, without runners that nobody can delete, and without what the box remembers of them."""
    for number in box.orphans():
        del box.gitlab.runners[number]
    if (text := box.disk.read(box.paths.state)) is not None:
        state = State.model_validate_json(text).model_copy(update={"lost": ()})
        save_state(box.disk, box.paths, state)
    return box.snapshot()


def try_every_fault(name: str, *, wide: bool) -> Outcome:
    """Run a scenario once for every fault, and count.

    Args:
        name: of the scenario.
        wide: the user's token has the scope `api`; otherwise `create_runner` alone.
    """
    scenario, outcome = SCENARIOS[name], Outcome()
    with no_machine():
        box, count = _box(scenario, wide=wide), Faults()
        workflow.up(box.run(count, **scenario.given))
        wanted = _without_orphans(box)
        outcome.calls = len(count.calls)
        for faults in every_fault(outcome.calls):
            _try(scenario, faults, wanted, outcome, wide=wide)
    return outcome


def _try(scenario: Scenario, faults: Faults, wanted: dict[str, Any], outcome: Outcome, *, wide: bool) -> None:
    outcome.injected += 1
    box = _box(scenario, wide=wide)
    before = box.snapshot()
    first, second = box.run(faults, **scenario.given), box.run(**scenario.given)
    failed = False
    try:
        workflow.up(first)
    except Killed:
        pass
    except ApplianceError:
        failed = True
    where = f"call {faults.at} ({faults.calls[faults.at]}), after={faults.after} kill={faults.kill}"
    if failed and not _taken_back(box, before, wanted, faults, wide=wide):
        outcome.traces += 1
        outcome.details.append(f"left a trace: {where}")
    workflow.up(second)
    orphans = box.orphans()
    outcome.orphans += len(orphans)
    for number in orphans:
        outcome.causes[_cause(box, number, faults)] += 1
    notes = "\n".join(first.notes + second.notes)
    for number in orphans:
        if f"#{number}," not in notes and f'"{box.gitlab.runners[number][1].description}"' not in notes:
            outcome.untold += 1
            outcome.details.append(f"an orphan that nobody was told of: {where}")
    if box.twice:
        outcome.doubled += 1
        outcome.details.append(f"two runners at a time: {where}")
    if orphans:
        # Whoever gives a wider token once is rid of them.
        box.gitlab.may_list = True
        workflow.up(box.run(**scenario.given))
        outcome.undeletable += len(box.orphans())
        box.gitlab.may_list = wide
    if _without_orphans(box) == wanted:
        outcome.healed += 1
    else:
        outcome.details.append(f"not healed: {where}")


def _cause(box: MemoryBox, number: int, faults: Faults) -> str:
    """What lost the token of a runner that is left."""
    if box.gitlab.runners[number][0] in box.gitlab.expired:
        return "expired"
    asked = [call for call in faults.calls[: faults.at + 1] if call in {"gitlab.create", "gitlab.reset_token"}]
    return "unrenewed" if asked[-1:] == ["gitlab.reset_token"] else "unanswered"


def _taken_back(box: MemoryBox, before: dict[str, Any], wanted: dict[str, Any], faults: Faults, *, wide: bool) -> bool:
    """Either all was taken back, or everything new was proven already and only tidying failed."""
    call = faults.calls[faults.at]
    if call == "gitlab.reset_token" or (call == "gitlab.create" and not wide):
        # A mark stays for the next run: the answer is lost, and nobody can look.
        return True
    now = box.snapshot()
    return now == before or (
        all(set(wanted[kind]) <= set(now[kind]) for kind in ("gitlab", "containers")) and _serves(now, wanted)
    )


def _serves(now: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return bool(now["systemd"]["running"] == wanted["systemd"]["running"])
