"""The stage check."""

from __future__ import annotations

from collections.abc import Iterator

from gpurig.evaljobs.checking import answer_to, check_packages
from gpurig.evaljobs.checks import run_check
from gpurig.evaljobs.keys import check_basis, check_key
from gpurig.evaljobs.records import Checked
from gpurig.evaljobs.stages.stage import RunSettings, StageOutcome, StageWork, answered_trials, finish, whose
from gpurig.evaljobs.store import CHECKS, read_stage


def check(settings: RunSettings) -> StageOutcome:
    """Run the checks over every generation; one that has no answer or no checks is passed over.

    Raises:
        InputError: a sample was not generated, or for another version of the suite; a damaged record file.
        PrerequisiteError: a permission is missing.
    """
    generations = answered_trials(settings)
    samples = {trial.id: trial.sample for trial in settings.trials if trial.id in generations}
    specs = {name: settings.suite.checks_of(sample) for name, sample in samples.items()}
    samples = {name: sample for name, sample in samples.items() if specs[name]}
    packages = {name: check_packages(specs[name]) for name in samples}
    bases = {name: check_basis(settings.suite, sample, generations[name]) for name, sample in samples.items()}
    keys = {name: check_key(basis, packages[name]) for name, basis in bases.items()}

    def records(names: tuple[str, ...]) -> Iterator[Checked]:
        for name in names:
            answer = answer_to(samples[name], generations[name], settings.suite.folder)
            yield Checked(
                **whose(generations[name]),
                key=keys[name],
                basis=bases[name],
                outcomes=tuple(run_check(spec, answer) for spec in specs[name]),
                packages=packages[name],
            )

    content = read_stage(settings.out / CHECKS, Checked)
    return finish(
        StageWork("check", content, keys, records, lambda record: record, lambda _: False, dear=False), settings
    )
