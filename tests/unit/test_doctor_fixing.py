"""`up --install-missing`: nothing runs that was not shown and agreed to, and every fix is proven."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.common.process import Finished
from gpurig.provisioning.distribution import Distribution
from gpurig.provisioning.doctor import Examination, Finding
from gpurig.provisioning.doctor.engine import EngineSeen
from gpurig.provisioning.doctor.fixing import Fix, Hands, fixes_of, install_missing
from gpurig.provisioning.doctor.toolkit import ToolkitSeen
from standins.doctor_box import ENGINE, SPEC, WANTED, FixedBox

ABSENT = EngineSeen(problem="no Docker Engine", reason="absent", user="root")
GENERATE = ("nvidia-ctk", "cdi", "generate", "--output=/etc/cdi/nvidia.yaml")
TOOLKIT = ("apt-get", "install", "-y", "nvidia-container-toolkit")


@dataclass
class Machine:
    """A box whose state the commands change, with a record of what was shown, run and said."""

    box: FixedBox
    effects: dict[tuple[str, ...], Callable[[FixedBox], None]] = field(default_factory=dict)
    agrees: bool = True
    code: int = 0
    shown: list[tuple[str, ...]] = field(default_factory=list)
    ran: list[tuple[str, ...]] = field(default_factory=list)
    asked: int = 0
    said: list[str] = field(default_factory=list)

    def look(self) -> Examination:
        return Examination(self.box, WANTED)

    def run(self, argv: Sequence[str]) -> Finished:
        words = tuple(argv)
        assert words in self.shown, f"{words} was never shown"
        assert self.asked, "nobody was asked"
        self.ran.append(words)
        self.effects.get(words, lambda _: None)(self.box)
        return Finished(words, self.code, "", "E: no such package\n" if self.code else "")

    def show(self, fixes: Sequence[Fix]) -> None:
        self.shown += [command.argv for fix in fixes for command in fix.commands]

    def agree(self) -> bool:
        self.asked += 1
        return self.agrees

    def install(self, *, root: bool = True) -> tuple[Finding, ...]:
        hands = Hands(run=self.run, show=self.show, agree=self.agree, say=self.said.append)
        return install_missing(self.look, hands, root=root)


def bare_machine() -> Machine:
    """Nothing is installed; the engine hides that toolkit and spec are missing, too."""

    def start_engine(box: FixedBox) -> None:
        box.engine_seen = EngineSeen(replace(ENGINE, cdi_devices=()), installed=True)

    def install_toolkit(box: FixedBox) -> None:
        box.toolkit_seen = ToolkitSeen(installed=True, version="1.18.0")

    def write_spec(box: FixedBox) -> None:
        assert box.toolkit_seen.installed, "nvidia-ctk is not there yet"
        box.specs = (SPEC,)
        box.engine_seen = EngineSeen(ENGINE, installed=True)

    box = FixedBox(engine_seen=ABSENT, toolkit_seen=ToolkitSeen(installed=False), specs=())
    effects = {
        ("systemctl", "enable", "--now", "docker"): start_engine,
        TOOLKIT: install_toolkit,
        GENERATE: write_spec,
    }
    return Machine(box, effects)


def test_a_bare_box_is_mended_in_an_order_that_works() -> None:
    machine = bare_machine()
    findings = machine.install()
    assert {one.name for one in findings if one.status == "failed"} == set()
    assert [argv[-1] for argv in machine.ran] == [
        "update",
        "docker.io",
        "docker",
        "nvidia-container-toolkit",
        "/etc/cdi",
        "--output=/etc/cdi/nvidia.yaml",
    ]
    assert machine.said == ["engine: mended", "toolkit: mended", "cdi spec: mended"]


def test_where_nothing_is_missing_nobody_is_asked() -> None:
    machine = Machine(FixedBox())
    machine.install()
    assert (machine.shown, machine.ran, machine.asked) == ([], [], 0)


def test_a_no_runs_nothing() -> None:
    machine = bare_machine()
    machine.agrees = False
    with pytest.raises(PrerequisiteError, match="nothing was installed"):
        machine.install()
    assert machine.ran == []


def test_who_is_not_root_sees_the_commands_and_runs_none() -> None:
    machine = bare_machine()
    with pytest.raises(PrerequisiteError, match="takes root") as caught:
        machine.install(root=False)
    assert "sudo" in caught.value.hint
    assert machine.shown
    assert (machine.ran, machine.asked) == ([], 0)


def test_a_command_that_fails_ends_it_with_its_last_line() -> None:
    machine = bare_machine()
    machine.code = 100
    with pytest.raises(PrerequisiteError, match="apt-get update ended with 100: E: no such package"):
        machine.install()
    assert len(machine.ran) == 1


def test_a_fix_that_mends_nothing_is_told_and_not_repeated() -> None:
    machine = bare_machine()
    machine.effects = {}
    with pytest.raises(PrerequisiteError, match="engine: no Docker Engine, after its fix has run"):
        machine.install()
    assert machine.ran.count(("systemctl", "enable", "--now", "docker")) == 1


def test_what_appears_after_a_fix_is_shown_and_asked_about_anew() -> None:
    machine = bare_machine()
    machine.box.toolkit_seen = ToolkitSeen(installed=True, version="1.18.0")
    machine.box.specs = (SPEC,)

    def start_old_engine(box: FixedBox) -> None:
        box.engine_seen = EngineSeen(replace(ENGINE, version="24.0.9", cdi=False, cdi_devices=()), installed=True)

    def configure(box: FixedBox) -> None:
        assert box.engine_seen.facts is not None
        box.engine_seen = EngineSeen(replace(box.engine_seen.facts, nvidia_runtime=True), installed=True)

    machine.effects[("systemctl", "enable", "--now", "docker")] = start_old_engine
    machine.effects[("systemctl", "restart", "docker")] = configure
    machine.install()
    assert machine.asked == 2
    assert machine.said == ["engine: mended", "gpu wiring: mended"]


def test_only_failures_of_the_box_are_mended_and_what_is_for_hands_is_left_to_them() -> None:
    machine = Machine(
        FixedBox(
            engine_seen=EngineSeen(problem="no permission", reason="permission", user="root", installed=True),
            registry_problem="no such host",
            free_bytes=0,
        )
    )
    findings = machine.install()
    assert machine.ran == []
    assert {one.name for one in findings if one.status == "failed"} >= {"engine", "model space"}


def test_a_command_that_two_failures_need_runs_once() -> None:
    box = FixedBox(engine_seen=EngineSeen(replace(ENGINE, cdi_devices=())), specs=())
    findings = tuple(box.examine().values())
    argvs = [command.argv for fix in fixes_of(findings) for command in fix.commands]
    assert len(argvs) == len(set(argvs))
    assert GENERATE in argvs


def test_an_unknown_distribution_has_no_fix_to_run() -> None:
    machine = bare_machine()
    machine.box.where = Distribution()
    findings = machine.install()
    assert {one.name for one in findings if one.status == "failed"} >= {"engine", "toolkit"}
    assert all(argv[0] not in {"apt-get", "dnf", "pacman"} for argv in machine.ran)
