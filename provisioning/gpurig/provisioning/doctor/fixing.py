"""Running the fixes that doctor names: shown first, agreed to, and each proven after it ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpurig.common.errors import PrerequisiteError
from gpurig.common.process import Finished
from gpurig.provisioning.distribution import Command
from gpurig.provisioning.doctor.examination import CHECKS, Examination, examine
from gpurig.provisioning.doctor.finding import Finding

# A fix can uncover the next: an engine that was not there says nothing about its CDI.
_MOST_ROUNDS = 5
_BOX = tuple(check for check in CHECKS if check.area == "box")


@dataclass(frozen=True)
class Fix:
    """What mends one failed check.

    Attributes:
        finding: what failed.
        commands: in order; none of them is for hands only.
    """

    finding: Finding
    commands: tuple[Command, ...]


@dataclass(frozen=True)
class Hands:
    """What running fixes needs of the world.

    Attributes:
        run: runs a program without a shell; raises PrerequisiteError where it cannot.
        show: shows the fixes of a round.
        agree: asks whether they may run.
        say: tells what became of one.
    """

    run: Callable[[Sequence[str]], Finished]
    show: Callable[[Sequence[Fix]], None]
    agree: Callable[[], bool]
    say: Callable[[str], None]


def fixes_of(findings: Sequence[Finding]) -> tuple[Fix, ...]:
    """The fixes of the failed checks of this box, those for hands only left out; each command once."""
    known: set[tuple[str, ...]] = set()
    fixes = []
    for finding in findings:
        if finding.status != "failed" or finding.area != "box" or any(one.by_hand for one in finding.commands):
            continue
        fresh = tuple(one for one in finding.commands if one.argv not in known)
        known |= {one.argv for one in fresh}
        if fresh:
            fixes.append(Fix(finding, fresh))
    return tuple(fixes)


def install_missing(
    look: Callable[[], Examination], hands: Hands, *, root: bool, dry_run: bool = False
) -> tuple[Finding, ...]:
    """Run the fixes, round by round, until none is left; what fails after that has no fix that a program can run.

    Args:
        look: a fresh look at the box.
        hands: what it acts through.
        root: this process is root.
        dry_run: show the first round's fixes, and run none.

    Returns:
        The findings on this box of the last look.

    Raises:
        PrerequisiteError: not root; the user said no; a command failed, or did not mend what it should have.
    """
    tried: set[str] = set()
    for _ in range(_MOST_ROUNDS):
        findings = examine(look(), _BOX)
        fixes = [fix for fix in fixes_of(findings) if fix.finding.name not in tried]
        if not fixes:
            return findings
        hands.show(fixes)
        if dry_run:
            return findings
        if not root:
            raise PrerequisiteError(
                "installing what is missing takes root", hint="run the same with sudo, or the commands by hand"
            )
        if not hands.agree():
            raise PrerequisiteError("nothing was installed", hint="run the commands by hand; gpurig doctor shows them")
        for fix in fixes:
            tried.add(fix.finding.name)
            _mend(fix, look, hands)
    return examine(look(), _BOX)


def _mend(fix: Fix, look: Callable[[], Examination], hands: Hands) -> None:
    for command in fix.commands:
        done = hands.run(command.argv)
        if done.code != 0:
            said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise PrerequisiteError(
                f"{command.text(root=True)} ended with {done.code}" + (f": {said[-1][:200]}" if said else ""),
                hint=fix.finding.hint or "gpurig doctor shows what is wrong now",
            )
    # Only what was mended is looked at again here; the next round looks at everything.
    again = examine(look(), [check for check in CHECKS if check.name == fix.finding.name])
    still = next((one for one in again if one.status == "failed"), None)
    if still is not None:
        raise PrerequisiteError(f"{fix.finding.name}: {still.message}, after its fix has run", hint=still.hint)
    hands.say(f"{fix.finding.name}: mended")
