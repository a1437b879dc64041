"""examples/ci-jobs: the suite's samples with their checks, and the calibration set."""

from __future__ import annotations

import functools
import json
import random
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from demo_models import form, gitlab, tasks
from demo_models.pipelines import HARD, KINDS, Job, Kind, random_pipeline
from demo_models.realistic import realistic_pipeline
from demo_models.tasks import Task

_SUITE_SEED = 20260101
_CALIBRATION_SEED = 20260202
CALIBRATION_ROWS = 240
# The grader's recipe is tuned on this set, never on the calibration set.
_DEVELOPMENT_SEED = 20260303
DEVELOPMENT_ROWS = 1200
# Characters of a task and its answer: about 500 of the models' 640 tokens.
_LONGEST = 1150
_KEYS = (
    "tags",
    "services",
    "variables",
    "cache",
    "needs",
    "parallel",
    "artifacts",
    "rules",
    "timeout",
    "allow_failure",
)


@dataclass(frozen=True)
class SuiteTask:
    """A sample: its id, its task and the tags it is grouped by."""

    id: str
    task: Task
    tags: tuple[str, ...]


# kind, jobs, features of a job, how many of these
_PLAN: tuple[tuple[Kind, int, int, int, str], ...] = (
    ("write", 1, 0, 3, "easy"),
    ("write", 1, 1, 6, "easy"),
    ("write", 1, 2, 5, "medium"),
    ("write", 2, 1, 3, "medium"),
    ("write", 2, 2, 1, "hard"),
    ("write", 3, 1, 1, "hard"),
    ("translate", 1, 0, 3, "easy"),
    ("translate", 1, 1, 6, "easy"),
    ("translate", 1, 2, 5, "medium"),
    ("translate", 2, 1, 3, "medium"),
    ("translate", 2, 2, 1, "hard"),
    ("translate", 3, 1, 1, "hard"),
)


@functools.cache
def suite_tasks() -> tuple[SuiteTask, ...]:
    """The samples of the suite; chosen by a seed, none picked by hand."""
    rng = random.Random(_SUITE_SEED)
    made: list[SuiteTask] = []
    seen: set[str] = set()
    for kind, jobs, features, count, level in _PLAN:
        left = count
        while left:
            task = tasks.word_task(realistic_pipeline(rng, kind, jobs, features), rng)
            if task.pipeline.digest in seen:
                continue
            seen.add(task.pipeline.digest)
            left -= 1
            number = sum(one.task.pipeline.kind == kind for one in made) + 1
            name = f"{kind}-{number:02d}-{task.pipeline.jobs[0].name}"
            made.append(SuiteTask(name, task, (kind, level)))
    return tuple(made)


@functools.cache
def calibration_tasks() -> tuple[Task, ...]:
    """The questions of the calibration set."""
    return _mixed_tasks(_CALIBRATION_SEED, CALIBRATION_ROWS, {one.task.pipeline.digest for one in suite_tasks()})


@functools.cache
def development_tasks() -> tuple[Task, ...]:
    """The questions of the development set: of the calibration set's kinds, and none of its pipelines."""
    taken = {one.task.pipeline.digest for one in suite_tasks()}
    taken |= {task.pipeline.digest for task in calibration_tasks()}
    return _mixed_tasks(_DEVELOPMENT_SEED, DEVELOPMENT_ROWS, taken)


def _mixed_tasks(seed: int, rows: int, taken: AbstractSet[str]) -> tuple[Task, ...]:
    """Half as in training, a tenth longer, the others as in the suite; without the pipelines that are `taken`."""
    rng = random.Random(seed)
    made: dict[str, Task] = {}
    while len(made) < rows:
        kind = KINDS[len(made) % 2]
        where = len(made) % 10
        if where < 5:
            pipeline = random_pipeline(rng, kind)
        elif where < 6:
            pipeline = random_pipeline(rng, kind, HARD)
        else:
            pipeline = realistic_pipeline(rng, kind, rng.choice((1, 1, 2)), rng.choice((0, 1, 2, 3)))
        task = tasks.word_task(pipeline, rng)
        if pipeline.digest not in taken and len(task.text) + len(task.reference) < _LONGEST:
            made[pipeline.digest] = task
    return tuple(made.values())


@functools.cache
def held_out() -> frozenset[str]:
    """What training must not see."""
    tasks_of_sets = (*(one.task for one in suite_tasks()), *calibration_tasks(), *development_tasks())
    return frozenset(task.pipeline.digest for task in tasks_of_sets)


def calibration_rows() -> list[dict[str, str]]:
    """Graded answers, as calibration.jsonl has them."""
    return _graded(calibration_tasks(), _CALIBRATION_SEED + 1)


def development_rows() -> list[dict[str, str]]:
    """Graded answers like those of the calibration set; no file holds them."""
    return _graded(development_tasks(), _DEVELOPMENT_SEED + 1)


def _graded(questions: Sequence[Task], seed: int) -> list[dict[str, str]]:
    """Half of the answers right, half with one fault of form."""
    rng = random.Random(seed)
    rows = []
    for index, task in enumerate(questions):
        right = index // 2 % 2 == 0
        answer, why = (task.reference, "") if right else form.spoil(task, rng)
        rows.append(
            {
                "id": f"{task.pipeline.kind}-{index:03d}",
                "input": task.text,
                "output": answer.strip(),
                "verdict": tasks.GOOD if right else tasks.BAD,
                "why": why,
            }
        )
    return rows


def checks_of(task: Task) -> list[dict[str, Any]]:
    """What an answer must hold: every job, image, command and feature of the task, and no feature beyond it."""
    checks: list[dict[str, Any]] = []
    for job in task.pipeline.jobs:
        # Anchored to its job: pipelines of several jobs say the same thing in many places.
        start = rf"^{_escaped(job.name)}:\n(?: .*\n)*? +"
        script = gitlab.script_of(job)
        checks.append({"regex": {"pattern": f"{start}image: {_escaped(job.image)}$", "multiline": True}})
        checks += [{"contains": f"- {line}"} for line in script]
        lines = r"\s+- ".join(_escaped(line) for line in script)
        checks.append({"regex": {"pattern": rf"{start}script:\s+- {lines}(?!\s+- )$", "multiline": True}})
        checks += _feature_checks(job)
    unused = [key for key in _KEYS if not re.search(rf"^ +{key}:", task.reference, re.MULTILINE)]
    if unused:
        checks.append({"regex": {"pattern": f"^ +({'|'.join(unused)}):", "multiline": True, "expect": False}})
    return list({json.dumps(check): check for check in checks}.values())


def _escaped(text: str) -> str:
    """`re.escape` without what only its verbose mode needs."""
    return re.escape(text).replace("\\ ", " ").replace("\\-", "-")


def _feature_checks(job: Job) -> list[dict[str, Any]]:
    checks: list[dict[str, Any]] = []
    if job.stage:
        checks.append({"contains": f"stage: {job.stage}"})
    checks += [
        {"contains": f"- {item}"} for item in (*job.services, *job.needs, *job.artifacts, *filter(None, [job.tag]))
    ]
    checks += [{"contains": f"{name}: {value}"} for name, value in job.variables]
    if job.cache:
        checks += [{"contains": f"key: {job.cache.key}"}, {"contains": f"- {job.cache.path}"}]
    if job.matrix:
        checks.append({"contains": gitlab.matrix_of(job)})
    if job.rule:
        checks.append({"contains": f"if: {gitlab.rule_of(job)}"})
    if job.timeout:
        checks.append({"regex": rf"timeout: {job.timeout} ?m"})
    if job.allow_failure:
        checks.append({"contains": "allow_failure: true"})
    return checks


def samples() -> list[dict[str, Any]]:
    """The suite's samples, as samples.yaml has them."""
    return [
        {
            "id": one.id,
            "tags": list(one.tags),
            "input": one.task.text,
            "reference": one.task.reference,
            "checks": checks_of(one.task),
        }
        for one in suite_tasks()
    ]


def write(folder: Path) -> None:
    """Write samples.yaml and calibration.jsonl."""
    header = (
        "# The samples of suite.yaml. Written by scripts/train_demo_models.py suite: change it there.\n"
        "# A task is worded in English or as a GitHub workflow; the reference is what GitLab CI wants for it.\n"
    )
    (folder / "samples.yaml").write_text(header + yaml.dump(samples(), Dumper=_Dumper, sort_keys=False, width=1000))
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in calibration_rows())
    (folder / "calibration.jsonl").write_text(rows)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, which a person can read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
