"""What is wrong with a suite, and where: file, line, field, and what would be right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gpurig.common.errors import InputError
from gpurig.evaljobs.suites.composition import Composition, Problem, compose_suite
from gpurig.evaljobs.suites.library import Library, prompt_ref, prompt_variables
from gpurig.evaljobs.suites.source import Location
from gpurig.evaljobs.suites.suite import GATE_METRICS, SuiteFile
from gpurig.evaljobs.suites.wording import in_words, meant

_MAX_SHOWN = 20


def validate_suite(path: Path) -> tuple[SuiteFile, tuple[Problem, ...]]:
    """Read suite.yaml, and the files it names, and hold them against the format.

    Returns:
        The suite, and what works but is probably not meant.

    Raises:
        SuiteError: with every problem found, in the order of the files and lines.
        InputError: the file cannot be read at all.
    """
    composed = compose_suite(path)
    data = composed.data
    problems = [*composed.problems]
    found = [*_duplicate_ids(composed), *_generator_missing(data)]
    named = data.get("prompts")
    library = Library(path.parent, named if isinstance(named, dict) else {})
    try:
        # Through JSON, because pydantic's strict mode takes lists for tuples there.
        suite = SuiteFile.model_validate_json(json.dumps(data), strict=True, context=library)
    except ValidationError as error:
        found += [
            one
            for entry in error.errors()
            for one in in_words(entry, data, SuiteFile)
            # Where a samples file could not be read, that there are no samples is no news.
            if not (problems and one[0] == ("samples",))
        ]
    else:
        found += [*_contradictions(suite), *_unusable_checks(suite, path.parent)]
        if not problems and not found:
            warnings = [composed.problem(location, message) for location, message in _doubts(suite)]
            return suite, _in_order(path, [*composed.warnings, *warnings])
    raise SuiteError(path, _in_order(path, [*problems, *(composed.problem(*one) for one in found)]))


def _in_order(path: Path, problems: list[Problem]) -> tuple[Problem, ...]:
    """By file, the suite's own first, and by line; each once."""
    return tuple(sorted(set(problems), key=lambda one: (one.path != path, str(one.path), one.line, one.field)))


def _duplicate_ids(composed: Composition) -> Iterator[tuple[Location, str]]:
    samples = composed.data.get("samples")
    first: dict[str, int] = {}
    for index, sample in enumerate(samples if isinstance(samples, list) else []):
        name = sample.get("id") if isinstance(sample, dict) else None
        if not isinstance(name, str):
            continue
        if name in first:
            one, other = (composed.problem(("samples", place, "id"), "") for place in (first[name], index))
            where = f"line {one.line}" if one.path == other.path else f"{one.path}:{one.line}"
            yield ("samples", index, "id"), f'"{name}" is there twice, first in {where}: ids must differ'
        else:
            first[name] = index


def _generator_missing(data: Any) -> Iterator[tuple[Location, str]]:
    if "generator" in data and data.get("generators"):
        yield ("generators",), "give generator or generators, not both"
    elif "generator" not in data and not data.get("generators"):
        yield ("generator",), "is missing: say which model answers"


def _contradictions(suite: SuiteFile) -> Iterator[tuple[Location, str]]:
    """What only the whole suite shows: gate rules about something that the run will not measure."""
    for name, spec in suite.named_generators.items():
        if spec.sampling.seed + suite.epochs.n > 2**32:
            where: Location = ("generators", name, "sampling") if name else ("generator", "sampling")
            yield (*where, "seed"), f"the seeds of {suite.epochs.n} epochs must all be under {2**32}"
    yield from _missing_variables(suite)
    kinds = {spec.kind for spec in suite.checks} | {spec.kind for sample in suite.samples for spec in sample.checks}
    known = (*GATE_METRICS, *(f"check_pass_rate.{kind}" for kind in sorted(kinds)))
    for index, rule in enumerate(suite.gate):
        location: Location = ("gate", index, "metric")
        if rule.generator is not None and rule.generator not in suite.generators:
            names = tuple(suite.generators)
            which = f" (known: {', '.join(names)})" if names else ": the suite has one, without a name"
            yield (
                ("gate", index, "generator"),
                f'unknown generator "{rule.generator}"{meant(rule.generator, names)}{which}',
            )
        if rule.metric.startswith("figure.") and kinds:
            continue  # which figures there are shows when the checks have run
        if rule.metric not in known:
            yield location, f'unknown metric "{rule.metric}"{meant(rule.metric, known)} (known: {", ".join(known)})'
        elif rule.metric.startswith("grade") and suite.grader is None:
            yield location, f'"{rule.metric}" needs a grader, and the suite has none'
        elif rule.metric == "check_pass_rate" and not kinds:
            yield location, '"check_pass_rate" needs checks, and the suite has none'
        elif rule.metric == "score_mean" and not kinds and suite.grader is None:
            yield location, '"score_mean" needs checks or a grader, and the suite has neither'


def _missing_variables(suite: SuiteFile) -> Iterator[tuple[Location, str]]:
    """What a prompt of the library declares and a sample lacks."""
    prompts = [spec.prompt for spec in suite.named_generators.values()]
    prompts += [suite.grader.prompt] if suite.grader else []
    for prompt in dict.fromkeys(prompts):
        ref = prompt_ref(prompt)
        for index, sample in enumerate(suite.samples if ref else ()):
            missing = [name for name in prompt_variables(prompt) if name not in {**suite.vars, **sample.vars}]
            if missing and ref:
                yield ("samples", index, "vars"), f'the prompt "{ref.name}" wants the variable "{missing[0]}"'


def _unusable_checks(suite: SuiteFile, folder: Path) -> Iterator[tuple[Location, str]]:
    """Checks that lack what they need beside the suite: a schema's file, a folder of documents."""
    for index, spec in enumerate(suite.checks):
        if problem := spec.parameters.problem(folder):
            yield ("checks", index, spec.kind), problem
    for number, sample in enumerate(suite.samples):
        for index, spec in enumerate(sample.checks):
            if problem := spec.parameters.problem(folder):
                yield ("samples", number, "checks", index, spec.kind), problem


def _doubts(suite: SuiteFile) -> Iterator[tuple[Location, str]]:
    """What works, and is probably not meant."""
    for name, spec in suite.named_generators.items():
        where: Location = ("generators", name) if name else ("generator",)
        if suite.epochs.n > 1 and spec.sampling.temperature == 0:
            yield where, f"temperature is 0: all {suite.epochs.n} epochs come to the same answer"
    if not suite.gate:
        yield (), "there is no gate: every run passes"
    if suite.grader is None and not suite.checks and not any(sample.checks for sample in suite.samples):
        yield (), "there are neither checks nor a grader: every answer passes"


class SuiteError(InputError):
    """A suite that is wrong.

    Attributes:
        problems: all of them; the details for people are cut.
    """

    def __init__(self, path: Path, problems: tuple[Problem, ...]) -> None:
        """The error of one problem is that problem."""
        details = [str(problem) for problem in problems[:_MAX_SHOWN]] if len(problems) > 1 else []
        if len(problems) > _MAX_SHOWN:
            details.append(f"… and {len(problems) - _MAX_SHOWN} more")
        message = f"{path}: {len(problems)} problems" if details else str(problems[0])
        super().__init__(message, hint="docs/suites.md describes the format", details=details)
        self.problems = problems
