"""Tasks: what a model reads and what it should write, in the words of the suite's prompt templates."""

from __future__ import annotations

import random
from dataclasses import dataclass

from demo_models import english, github, gitlab
from demo_models.pipelines import KINDS, TRAINING, Difficulty, Kind, Pipeline, random_pipeline

# The same texts as in examples/ci-jobs/suite.yaml; a test compares them.
TASK, ANSWER, VERDICT = "<task>", "<ci>", "<verdict>"
TRANSLATE = "Translate this GitHub Actions workflow to GitLab CI."
GOOD, BAD = "good", "bad"


@dataclass(frozen=True)
class Task:
    """One question with its right answer."""

    pipeline: Pipeline
    text: str
    reference: str


def make_task(rng: random.Random, kind: Kind | None = None, difficulty: Difficulty = TRAINING) -> Task:
    """A task whose every choice follows from `rng`."""
    pipeline = random_pipeline(rng, rng.choice(KINDS) if kind is None else kind, difficulty)
    return word_task(pipeline, rng)


def word_task(pipeline: Pipeline, rng: random.Random) -> Task:
    """A pipeline as a task."""
    text = english.render(pipeline, rng) if pipeline.kind == "write" else f"{TRANSLATE}\n{github.render(pipeline)}"
    return Task(pipeline, text, gitlab.render(pipeline))


def generator_prompt(task: str) -> str:
    """What the generator continues."""
    return f"{TASK}{task}\n{ANSWER}"


def grader_prompt(answer: str) -> str:
    """What the grader continues with a verdict."""
    return f"{ANSWER}{answer.strip()}\n{VERDICT}"
