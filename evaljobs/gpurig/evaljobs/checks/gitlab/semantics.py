"""What is wrong with a configuration that its schema allows; each problem in one line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

from gpurig.evaljobs.checks.gitlab import expressions
from gpurig.evaljobs.checks.gitlab.configuration import Configuration, Job
from gpurig.evaljobs.checks.gitlab.secrets import secrets_in_text, secrets_in_variables
from gpurig.evaljobs.checks.subject import shown

Aspect = Literal["jobs", "stages", "needs", "dependencies", "extends", "rules", "secrets", "matrix", "images"]
ASPECTS: tuple[Aspect, ...] = get_args(Aspect)

# GitLab's own limits.
_MOST_NEEDS, _MOST_PARALLEL = 50, 200
_MATRIX_NAME = re.compile(r"^(?P<job>.+): \[.*\]$|^(?P<numbered>.+) \d+/\d+$")
_IMAGE = re.compile(
    r"^(?:[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::[0-9]+)?/)*[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$"
)


def problems(configuration: Configuration, aspect: Aspect) -> Iterator[str]:
    """What is wrong under one aspect, in the order of the jobs."""
    return _ASPECTS[aspect](configuration)


def _jobs(configuration: Configuration) -> Iterator[str]:
    if not configuration.jobs and not configuration.open:
        yield "there is no job that runs: a job whose name begins with a dot is a template"
    for job in configuration.jobs.values():
        runs = [key for key in ("script", "run", "trigger") if job.keywords.get(key)]
        if not runs and not (configuration.open and "extends" in _written(configuration, job)):
            yield f"{_name(job)}: has neither script nor run nor trigger"
        elif len(runs) > 1:
            yield f"{_name(job)}: has {' and '.join(runs)}, of which a job takes one"


def _stages(configuration: Configuration) -> Iterator[str]:
    if configuration.open:
        return
    for job in configuration.jobs.values():
        if job.stage not in configuration.stages:
            known = ", ".join(shown(stage, 30)[1:-1] for stage in configuration.stages[:20])
            yield f"{_name(job)}: stage {shown(job.stage, 60)} does not exist (there are {known})"
    if configuration.jobs and all(job.stage in {".pre", ".post"} for job in configuration.jobs.values()):
        yield "all jobs are in .pre and .post: such a pipeline does not run"


def _needs(configuration: Configuration) -> Iterator[str]:
    graph: dict[str, tuple[str, ...]] = {}
    for job in configuration.jobs.values():
        needs = [*_needed(job.keywords.get("needs")), *_needed_by_rules(job)]
        own = [name for name, _ in _needed(job.keywords.get("needs"), whole=True)]
        if len(own) > _MOST_NEEDS:
            yield f"{_name(job)}: needs {len(own)} jobs; GitLab takes {_MOST_NEEDS}"
        for twice in sorted({name for name in own if own.count(name) > 1} if len(own) <= _MOST_NEEDS else ()):
            yield f"{_name(job)}: needs {shown(twice, 60)} twice"
        for name, optional in needs:
            yield from _need(configuration, job, name, optional=optional)
        graph[job.name] = tuple(_base(name, configuration) for name, _ in needs)
    if circle := _circle(graph):
        yield f"needs go in a circle: {' → '.join(shown(name, 40) for name in circle)}"


def _need(configuration: Configuration, job: Job, name: str, *, optional: bool) -> Iterator[str]:
    base = _base(name, configuration)
    if name in configuration.templates:
        yield f"{_name(job)}: needs {shown(name, 60)}, which is a template and never runs"
    elif base not in configuration.jobs:
        if not optional and not configuration.open:
            yield f"{_name(job)}: needs {shown(name, 60)}, which does not exist"
    elif base != job.name and _later(configuration, base, job):
        stages = f"stage {shown(configuration.jobs[base].stage, 30)} is behind {shown(job.stage, 30)}"
        yield f"{_name(job)}: needs {shown(name, 60)}, whose {stages}"


def _dependencies(configuration: Configuration) -> Iterator[str]:
    for job in configuration.jobs.values():
        dependencies = job.keywords.get("dependencies")
        names = [str(one) for one in dependencies] if isinstance(dependencies, list) else []
        written = job.keywords.get("needs")
        needs = {_base(name, configuration) for name, _ in _needed(written)}
        for name in names:
            base = _base(name, configuration)
            if base not in configuration.jobs:
                if not configuration.open:
                    yield f"{_name(job)}: depends on {shown(name, 60)}, which does not exist"
            elif isinstance(written, list) and base not in needs:
                yield f"{_name(job)}: depends on {shown(name, 60)}, which is not among its needs"
            elif not isinstance(written, list) and not _later(configuration, job.name, configuration.jobs[base]):
                yield f"{_name(job)}: depends on {shown(name, 60)}, which is not in an earlier stage"


def _extends(configuration: Configuration) -> Iterator[str]:
    yield from configuration.problems


def _rules(configuration: Configuration) -> Iterator[str]:
    workflow = configuration.data.get("workflow")
    if isinstance(workflow, dict):
        yield from _rule_list("workflow", workflow.get("rules"), ("always", "never"))
    for job in configuration.jobs.values():
        rules = job.keywords.get("rules")
        if "rules" in job.keywords and (old := [key for key in ("only", "except") if key in job.keywords]):
            yield f"{_name(job)}: has rules and {' and '.join(old)}, of which a job takes one kind"
        yield from _rule_list(_name(job), rules, _WHEN)
        if job.keywords.get("when") == "delayed" and "start_in" not in job.keywords:
            yield f"{_name(job)}: is delayed and does not say start_in"
        for key in ("only", "except"):
            refs = job.keywords.get(key)
            variables = refs.get("variables") if isinstance(refs, dict) else None
            for text in variables if isinstance(variables, list) else ():
                yield from _expression(f"{_name(job)}: {key}:variables", text)


_WHEN = ("on_success", "on_failure", "always", "never", "manual", "delayed")


def _rule_list(where: str, rules: Any, when: tuple[str, ...]) -> Iterator[str]:
    for number, rule in enumerate(rules if isinstance(rules, list) else (), 1):
        if not isinstance(rule, dict):
            continue
        if "if" in rule:
            yield from _expression(f"{where}: rule {number}", rule["if"])
        wanted = rule.get("when")
        if wanted is not None and wanted not in when:
            yield f"{where}: rule {number}: when: {shown(str(wanted), 40)} is none of {', '.join(when)}"
        if wanted == "delayed" and "start_in" not in rule:
            yield f"{where}: rule {number}: is delayed and does not say start_in"


def _expression(where: str, text: Any) -> Iterator[str]:
    if not isinstance(text, str):
        yield f"{where}: if must be a text, not {shown(str(text), 40)}"
        return
    try:
        expressions.parse(text)
    except expressions.ExpressionError as error:
        yield f"{where}: {shown(text, 80)} is no expression: {error}"


def _secrets(configuration: Configuration) -> Iterator[str]:
    for where, held in configuration.data.items():
        for text in _texts(held):
            for found in secrets_in_text(text):
                yield f"{shown(where, 60)}: {found} stands in it: put it into a masked variable"
    top = configuration.data.get("variables")
    for where, variables in (("variables", top), *_job_variables(configuration)):
        if isinstance(variables, dict):
            for found in secrets_in_variables(variables):
                yield f"{where}: {found}: put it into a masked variable of the project"


def _job_variables(configuration: Configuration) -> Iterator[tuple[str, Any]]:
    for name, held in configuration.data.items():
        if isinstance(held, dict) and name not in {"variables", "include"}:
            yield shown(name, 60), held.get("variables")
            for service in held["services"] if isinstance(held.get("services"), list) else ():
                if isinstance(service, dict):
                    yield shown(name, 60), service.get("variables")


def _matrix(configuration: Configuration) -> Iterator[str]:
    for job in configuration.jobs.values():
        parallel = job.keywords.get("parallel")
        if parallel is None:
            continue
        count = parallel_count(parallel)
        if count is None:
            yield f"{_name(job)}: parallel must be a number, or a matrix: a list of variables with their values"
        elif not 1 <= count <= _MOST_PARALLEL:
            yield f"{_name(job)}: parallel comes to {count} jobs; GitLab takes 1 to {_MOST_PARALLEL}"


def parallel_count(parallel: Any) -> int | None:
    """How many jobs `parallel` makes of one; None where it is neither a number nor a matrix."""
    if isinstance(parallel, int) and not isinstance(parallel, bool):
        return parallel
    matrix = parallel.get("matrix") if isinstance(parallel, dict) else None
    if not isinstance(matrix, list) or not matrix:
        return None
    count = 0
    for entry in matrix:
        if not isinstance(entry, dict) or not entry or any(isinstance(one, dict) for one in entry.values()):
            return None
        count += math.prod(len(one) if isinstance(one, list) else 1 for one in entry.values())
    return count


def _images(configuration: Configuration) -> Iterator[str]:
    for job in configuration.jobs.values():
        image = job.keywords.get("image")
        name = image.get("name") if isinstance(image, dict) else image
        if "trigger" in job.keywords:
            continue
        if not isinstance(name, str) or not name.strip():
            if not configuration.open:
                yield f"{_name(job)}: no image is named, for it or for all jobs"
        elif "$" not in name and not _IMAGE.match(name):
            yield f"{_name(job)}: {shown(name, 80)} is no image's name"


_ASPECTS: Mapping[Aspect, Callable[[Configuration], Iterator[str]]] = {
    "jobs": _jobs,
    "stages": _stages,
    "needs": _needs,
    "dependencies": _dependencies,
    "extends": _extends,
    "rules": _rules,
    "secrets": _secrets,
    "matrix": _matrix,
    "images": _images,
}


def needed_jobs(job: Job, configuration: Configuration) -> tuple[str, ...] | None:
    """The jobs of this pipeline that a job needs; None where the stages' order decides."""
    written = job.keywords.get("needs")
    return tuple(_base(name, configuration) for name, _ in _needed(written)) if isinstance(written, list) else None


def _needed(needs: Any, *, whole: bool = False) -> list[tuple[str, bool]]:
    """The jobs of this pipeline that are needed, each with whether it may be missing.

    Args:
        needs: as it is written.
        whole: without those of which a part is needed (`parallel:matrix`), which may stand there several times.
    """
    found = []
    for need in needs if isinstance(needs, list) else ():
        if isinstance(need, str):
            found.append((need, False))
        elif isinstance(need, dict) and isinstance(need.get("job"), str):
            # `pipeline` and `project` name jobs of another pipeline.
            left_out = {"pipeline", "project", "parallel"} if whole else {"pipeline", "project"}
            if not left_out & need.keys():
                found.append((need["job"], need.get("optional") is True))
    return found


def _needed_by_rules(job: Job) -> list[tuple[str, bool]]:
    rules = job.keywords.get("rules")
    lists = [rule.get("needs") for rule in rules if isinstance(rule, dict)] if isinstance(rules, list) else []
    return [need for needs in lists for need in _needed(needs)]


def _base(name: str, configuration: Configuration) -> str:
    """The job of which `name` is one of several: "test: [3.12]" and "test 1/3" are of "test"."""
    if name in configuration.jobs:
        return name
    found = _MATRIX_NAME.match(name)
    return (found["job"] or found["numbered"]) if found else name


def _later(configuration: Configuration, name: str, than: Job) -> bool:
    """Whether a job's stage comes behind another's."""
    stages = configuration.stages
    one, other = configuration.jobs[name].stage, than.stage
    return one in stages and other in stages and stages.index(one) > stages.index(other)


def _circle(graph: Mapping[str, tuple[str, ...]]) -> list[str]:
    """A way from a job back to itself; empty where there is none. Without recursion: chains may be long."""
    done: set[str] = set()
    for start in graph:
        path, waiting = [start], [iter(graph[start])]
        on_path = {start}
        while waiting and start not in done:
            following = next(waiting[-1], None)
            if following is None:
                waiting.pop()
                left = path.pop()
                on_path.discard(left)
                done.add(left)
            elif following in on_path:
                return [*path[path.index(following) :], following]
            elif following in graph and following not in done:
                path.append(following)
                on_path.add(following)
                waiting.append(iter(graph[following]))
    return []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, held in value.items():
            yield str(key)
            yield from _texts(held)
    elif isinstance(value, list):
        for held in value:
            yield from _texts(held)


def _written(configuration: Configuration, job: Job) -> Mapping[str, Any]:
    held = configuration.data.get(job.name)
    return held if isinstance(held, dict) else {}


def _name(job: Job) -> str:
    return shown(job.name, 60)
