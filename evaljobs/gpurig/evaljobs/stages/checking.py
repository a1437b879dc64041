"""The stage check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from gpurig.evaljobs.checking import Question, answer_to, check_packages, model_names, prepared
from gpurig.evaljobs.checks import run_check
from gpurig.evaljobs.checks.files import Digests
from gpurig.evaljobs.keys import check_basis, check_key
from gpurig.evaljobs.records import Checked
from gpurig.evaljobs.stages.stage import (
    RunSettings,
    StageOutcome,
    StageWork,
    answered_trials,
    finish,
    stage_model,
    whose,
)
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
    models = {name: stage_model(name, settings) for name in dict.fromkeys(model_names([*chain(*specs.values())]))}
    packages = {name: check_packages(specs[name], models) for name in samples}
    digests = Digests()
    bases = {name: check_basis(settings.suite, sample, generations[name], digests) for name, sample in samples.items()}
    keys = {name: check_key(basis, packages[name]) for name, basis in bases.items()}

    def records(names: tuple[str, ...]) -> Iterator[Checked]:
        folder = settings.suite.folder
        questions = [Question(answer_to(samples[name], generations[name], folder), specs[name]) for name in names]
        resources = prepared(
            questions,
            models=models,
            provider=settings.provider,
            environ=settings.environ,
            threads=settings.threads,
            allowed=settings.allowed,
        )
        for name, question in zip(names, questions, strict=True):
            answer = replace(question.answer, resources=resources)
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
