"""Wrong answers: a right one with one thing broken, as models break it. The suite's checks must find every one."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import yaml

from demo_models import gitlab, words
from demo_models.pipelines import DEFAULT_STAGES, TRAINING, Job, Pipeline, random_job
from demo_models.tasks import Task

_LOADER = yaml.CSafeLoader
Corruption = Callable[[Task, random.Random], str | None]


def corrupt(task: Task, rng: random.Random) -> tuple[str, str]:
    """A wrong answer and the name of what is wrong with it; it does not mean the same as the right one."""
    while True:
        name = rng.choice(tuple(CORRUPTIONS))
        answer = CORRUPTIONS[name](task, rng)
        if answer is not None and not same_meaning(answer, task.reference):
            return answer.strip(), name


def same_meaning(one: str, other: str) -> bool:
    """Whether two texts are the same YAML; what is no YAML means nothing."""
    try:
        return bool(yaml.load(one, _LOADER) == yaml.load(other, _LOADER))  # noqa: S506, TID251 - a safe loader, in C
    except yaml.YAMLError:
        return False


def _changed(task: Task, rng: random.Random, change: Callable[[Job], Job | None]) -> str | None:
    jobs = list(task.pipeline.jobs)
    index = rng.randrange(len(jobs))
    changed = change(jobs[index])
    if changed is None:
        return None
    jobs[index] = changed
    return gitlab.render(Pipeline(task.pipeline.kind, tuple(jobs)))


def _stage(task: Task, rng: random.Random) -> str | None:
    def change(job: Job) -> Job | None:
        return replace(job, stage=rng.choice([s for s in DEFAULT_STAGES if s != job.stage])) if job.stage else None

    return _changed(task, rng, change)


def _image(task: Task, rng: random.Random) -> str | None:
    def change(job: Job) -> Job:
        name, _, tag = job.image.rpartition(":")
        return replace(
            job,
            image=rng.choice(
                (words.image(rng), f"{name}:{words.version(rng)}", f"{name}:latest", f"{_misspelt(name, rng)}:{tag}")
            ),
        )

    return _changed(task, rng, change)


def _missing_line(task: Task, rng: random.Random) -> str | None:
    def change(job: Job) -> Job | None:
        if len(job.script) < 2:
            return None
        kept = list(job.script)
        del kept[rng.randrange(len(kept))]
        return replace(job, script=tuple(kept))

    return _changed(task, rng, change)


def _swapped_lines(task: Task, rng: random.Random) -> str | None:
    def change(job: Job) -> Job | None:
        if len(job.script) < 2:
            return None
        at = rng.randrange(len(job.script) - 1)
        swapped = list(job.script)
        swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
        return replace(job, script=tuple(swapped))

    return _changed(task, rng, change)


def _invented_line(task: Task, rng: random.Random) -> str | None:
    def change(job: Job) -> Job:
        lines = list(job.script)
        lines.insert(rng.randrange(len(lines) + 1), words.command(rng))
        return replace(job, script=tuple(lines))

    return _changed(task, rng, change)


def _other_command(task: Task, rng: random.Random) -> str | None:
    def change(job: Job) -> Job:
        lines = list(job.script)
        at = rng.randrange(len(lines))
        lines[at] = rng.choice((words.command(rng), _misspelt(lines[at], rng), lines[at].rpartition(" ")[0] or "make"))
        return replace(job, script=tuple(lines))

    return _changed(task, rng, change)


_OPTIONAL: dict[str, Any] = {
    "tag": "", "services": (), "variables": (), "cache": None, "needs": (), "matrix": None, "artifacts": (),
    "rule": "", "timeout": 0, "allow_failure": False,
}  # fmt: skip


def _dropped_feature(task: Task, rng: random.Random) -> str | None:
    def change(job: Job) -> Job | None:
        used = [name for name, empty in _OPTIONAL.items() if getattr(job, name) != empty]
        if not used:
            return None
        name = rng.choice(used)
        if name == "matrix" and job.matrix is not None:
            # Without its axis the command keeps the text of the variable.
            plain = tuple(line.replace("{axis}", f"${job.matrix.name.upper()}") for line in job.script)
            return replace(job, matrix=None, script=plain)
        return replace(job, **{name: _OPTIONAL[name]})

    return _changed(task, rng, change)


def _invented_feature(task: Task, rng: random.Random) -> str | None:
    def change(job: Job) -> Job | None:
        other = random_job(rng, job.stage, TRAINING)
        names = [
            name for name, empty in _OPTIONAL.items()
            if name not in ("matrix", "needs") and getattr(job, name) == empty and getattr(other, name) != empty
        ]  # fmt: skip
        if not names:
            return None
        name = rng.choice(names)
        changed = replace(job, **{name: getattr(other, name)})
        return replace(changed, branch=other.branch) if name == "rule" else changed

    return _changed(task, rng, change)


def _other_value(task: Task, rng: random.Random) -> str | None:
    """A name, path, key, number or rule that is not the one asked for."""
    return _changed(task, rng, lambda job: rng.choice([*_renamed(job, rng), *_other_rules(job, rng)]))


def _renamed(job: Job, rng: random.Random) -> Iterator[Job]:
    yield replace(job, name=rng.choice((words.job_name(rng), _misspelt(job.name, rng))))
    if job.tag:
        yield replace(job, tag=words.word(rng))
    if job.services:
        yield replace(job, services=(words.service(rng),))
    for name, value in job.variables[:1]:
        yield replace(job, variables=((name, words.word(rng)), *job.variables[1:]))
        yield replace(job, variables=((words.variable(rng), value), *job.variables[1:]))
    if job.cache:
        yield replace(job, cache=replace(job.cache, key=words.word(rng)))
        yield replace(job, cache=replace(job.cache, path=words.path(rng)))
    if job.artifacts:
        yield replace(job, artifacts=(words.path(rng), *job.artifacts[1:]))


def _other_rules(job: Job, rng: random.Random) -> Iterator[Job]:
    if job.matrix:
        yield replace(job, matrix=replace(job.matrix, values=job.matrix.values[:-1]))
    if job.rule == "branch":
        yield replace(job, branch=words.word(rng))
        yield replace(job, rule="merge-request")
    elif job.rule:
        yield replace(job, rule="branch", branch="main")
    if job.timeout:
        yield replace(job, timeout=job.timeout + rng.choice((5, 10, 20, 30)))


def _indentation(task: Task, rng: random.Random) -> str:
    lines = task.reference.split("\n")
    at = rng.choice([index for index, line in enumerate(lines) if line.startswith("  ")])
    lines[at] = rng.choice((f"  {lines[at]}", lines[at][2:], f" {lines[at]}"))
    return "\n".join(lines)


WRONG_KEYS = {
    "script": ("run", "steps", "scripts", "commands"),
    "image": ("container", "docker", "images"),
    "rules": ("only", "when", "conditions"),
    "stage": ("stages", "phase", "step"),
    "needs": ("depends", "requires"),
    "artifacts": ("artifact", "upload"),
    "variables": ("env", "environment"),
    "cache": ("caches",),
    "tags": ("runs-on", "tag"),
    "services": ("service",),
    "parallel": ("strategy",),
    "timeout": ("timeout-minutes",),
    "allow_failure": ("continue-on-error",),
    "paths": ("path",),
}


def _keyword(task: Task, rng: random.Random) -> str | None:
    """A key of another CI system, or a misspelt one."""
    keys = [key for key in WRONG_KEYS if re.search(rf"^ +{key}:", task.reference, re.MULTILINE)]
    key = rng.choice(keys)
    return re.sub(rf"^( +){key}:", rf"\g<1>{rng.choice(WRONG_KEYS[key])}:", task.reference, count=1, flags=re.MULTILINE)


def _truncated(task: Task, rng: random.Random) -> str | None:
    lines = task.reference.split("\n")
    if rng.random() < 0.5:
        return "\n".join(lines[: rng.randrange(1, len(lines))])
    return task.reference[: rng.randrange(len(task.reference) // 4, len(task.reference) - 1)]


def _dropped_line(task: Task, rng: random.Random) -> str:
    lines = task.reference.split("\n")
    del lines[rng.randrange(len(lines))]
    return "\n".join(lines)


def _dropped_job(task: Task, rng: random.Random) -> str | None:
    jobs = list(task.pipeline.jobs)
    if len(jobs) < 2:
        return None
    del jobs[rng.randrange(len(jobs))]
    return gitlab.render(Pipeline(task.pipeline.kind, tuple(jobs)))


def _misspelt(text: str, rng: random.Random) -> str:
    """One letter changed, left out or doubled."""
    letters = [index for index, character in enumerate(text) if character.isalpha()]
    at = rng.choice(letters)
    return text[:at] + rng.choice((rng.choice("abdeiklmnorstu"), "", text[at] * 2)) + text[at + 1 :]


CORRUPTIONS: dict[str, Corruption] = {
    "wrong stage": _stage,
    "wrong image": _image,
    "missing script line": _missing_line,
    "swapped script lines": _swapped_lines,
    "invented script line": _invented_line,
    "other command": _other_command,
    "dropped feature": _dropped_feature,
    "invented feature": _invented_feature,
    "other value": _other_value,
    "broken indentation": _indentation,
    "wrong keyword": _keyword,
    "truncated": _truncated,
    "dropped line": _dropped_line,
    "dropped job": _dropped_job,
}
