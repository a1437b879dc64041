"""Whether a GitLab configuration has what a GitHub workflow has: its jobs, how often each runs, their order.

GitHub's matrix (`include` and `exclude` among it) is counted as GitHub's workflow syntax reference describes it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpurig.evaljobs.checks.gitlab.configuration import Configuration, Job
from gpurig.evaljobs.checks.gitlab.semantics import needed_jobs, parallel_count
from gpurig.evaljobs.checks.subject import shown

_MOST_COMBINATIONS = 4096


@dataclass(frozen=True)
class SourceJob:
    """A job of the workflow.

    Attributes:
        names: by which it may be called: its id and its `name`, without separators and in lower case.
        count: how often it runs; None where an expression decides.
        needs: ids of jobs that come before it.
    """

    id: str
    names: tuple[str, ...]
    count: int | None
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Correspondence:
    """How far a configuration corresponds to a workflow: a problem for each job that does not, of so many jobs."""

    problems: tuple[str, ...]
    jobs: int

    @property
    def score(self) -> float:
        """The share of the source's jobs that are there as they should be."""
        return max(0.0, 1 - len(self.problems) / self.jobs) if self.jobs else 0.0


def compare(workflow: Mapping[str, Any], configuration: Configuration, *, matrix: bool, order: bool) -> Correspondence:
    """Hold a configuration against the workflow that it was translated from.

    Args:
        workflow: as data, `on` being a text.
        configuration: resolved.
        matrix: whether each job must run as often.
        order: whether each job must come behind those that it needs.
    """
    sources = {job.id: job for job in source_jobs(workflow)}
    found = _counterparts(sources.values(), configuration)
    problems = []
    for job in sources.values():
        problem = _problem(job, found, configuration, matrix=matrix, order=order)
        if problem:
            problems.append(problem)
    return Correspondence(tuple(problems), len(sources))


def source_jobs(workflow: Mapping[str, Any]) -> Iterator[SourceJob]:
    """The jobs of a GitHub workflow."""
    jobs = workflow.get("jobs")
    for name, job in jobs.items() if isinstance(jobs, dict) else ():
        if not isinstance(job, dict):
            continue
        title = job.get("name")
        names = [str(name)]
        if isinstance(title, str):
            # What an expression adds to a name differs from run to run.
            names.append(re.sub(r"\$\{\{[^}]*\}\}", "", title))
        needs = job.get("needs")
        needs = [needs] if isinstance(needs, str) else needs
        yield SourceJob(
            str(name),
            tuple(dict.fromkeys(plain for one in names if (plain := plain_name(one)))),
            matrix_count(job.get("strategy")),
            tuple(str(one) for one in needs) if isinstance(needs, list) else (),
        )


def matrix_count(strategy: Any) -> int | None:
    """How often a job of that `strategy` runs; None where an expression decides, or where it is too large to count."""
    if strategy is None:
        return 1
    matrix = strategy.get("matrix") if isinstance(strategy, dict) else None
    if matrix is None:
        return 1
    if not isinstance(matrix, dict):
        return None
    axes = {key: value for key, value in matrix.items() if key not in {"include", "exclude"}}
    include, exclude = matrix.get("include", []), matrix.get("exclude", [])
    lists = [*axes.values(), include, exclude]
    if not all(isinstance(one, list) for one in lists):
        return None
    count = 1
    for values in axes.values():
        count *= len(values)
    if count * (1 + len(include) + len(exclude)) > _MOST_COMBINATIONS:
        return None
    products = itertools.product(*axes.values()) if axes else ()
    combinations = [dict(zip(axes, values, strict=True)) for values in products]
    kept = [one for one in combinations if not any(_covers(entry, one) for entry in exclude)]
    # An entry whose values contradict every combination is one of its own; any other adds to those it fits.
    alone = sum(
        not any(all(key not in axes or one[key] == value for key, value in entry.items()) for one in kept)
        for entry in include
        if isinstance(entry, dict)
    )
    return len(kept) + alone


def _covers(entry: Any, combination: Mapping[str, Any]) -> bool:
    return isinstance(entry, dict) and all(combination.get(key) == value for key, value in entry.items())


def plain_name(name: str) -> str:
    """A job's name as it is compared: letters and digits in lower case."""
    return "".join(one for one in name.casefold() if one.isalnum())


def _counterparts(sources: Collection[SourceJob], configuration: Configuration) -> dict[str, tuple[Job, ...]]:
    """The jobs that stand for each one of the workflow: of its name, or else of names that begin with it ("test-3.12").

    A job that has the name of another one of the workflow stands for that one alone.
    """
    plain = [(plain_name(name), job) for name, job in configuration.jobs.items()]
    named = {name for source in sources for name in source.names}
    found = {}
    for source in sources:
        same = tuple(job for name, job in plain if name in source.names)
        found[source.id] = same or tuple(
            job for name, job in plain if name not in named and name.startswith(source.names)
        )
    return found


def _problem(
    source: SourceJob,
    found: Mapping[str, tuple[Job, ...]],
    configuration: Configuration,
    *,
    matrix: bool,
    order: bool,
) -> str:
    jobs = found[source.id]
    if not jobs:
        return f"the job {shown(source.id, 60)} of the workflow is missing"
    runs = sum(_runs(job) for job in jobs)
    if matrix and source.count is not None and runs != source.count:
        return f"{shown(source.id, 60)} runs {source.count} times in the workflow, and {runs} times here"
    for needed in source.needs if order else ():
        for before in found.get(needed, ()):
            if not all(_behind(job, before, configuration) for job in jobs):
                return f"{shown(source.id, 60)} waits for {shown(needed, 60)} in the workflow, and not here"
    return ""


def _runs(job: Job) -> int:
    count = parallel_count(job.keywords["parallel"]) if "parallel" in job.keywords else 1
    return count if count is not None else 1


def _behind(job: Job, before: Job, configuration: Configuration) -> bool:
    """Whether a job waits for another, by its needs and theirs, or by the stages' order where it has none."""
    stages = {stage: place for place, stage in enumerate(configuration.stages)}
    waiting, seen = [job.name], {job.name}
    while waiting:
        here = configuration.jobs[waiting.pop()]
        needs = needed_jobs(here, configuration)
        if needs is None and stages.get(before.stage, 0) < stages.get(here.stage, 0):
            return True
        for name in needs or ():
            if name == before.name:
                return True
            if name in configuration.jobs and name not in seen:
                seen.add(name)
                waiting.append(name)
    return False
