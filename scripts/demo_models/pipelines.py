"""Abstract pipelines: what a task asks for, before it is worded for anyone."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass, replace
from typing import Literal

from demo_models import words

Kind = Literal["write", "translate"]
Rule = Literal["", "branch", "merge-request", "tag"]

KINDS: tuple[Kind, ...] = ("write", "translate")
DEFAULT_STAGES = ("build", "test", "deploy")
_MATRIX = {
    "python": ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14"),
    "node": ("18", "20", "22", "24"),
    "go": ("1.21", "1.22", "1.23", "1.24"),
    "ruby": ("3.2", "3.3", "3.4"),
    "arch": ("amd64", "arm64", "riscv64"),
    "backend": ("cpu", "cuda", "rocm"),
    "shard": ("one", "two", "three", "four"),
}


@dataclass(frozen=True)
class Matrix:
    """One axis: `name` in lower case, and its values."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Cache:
    """What is kept between pipelines."""

    key: str
    path: str


@dataclass(frozen=True)
class Job:
    """A job. Empty fields are features that it does not use.

    Attributes:
        script: commands; `{axis}` stands for the matrix's value.
        branch: for rule "branch".
        timeout: minutes; 0 is none.
    """

    name: str
    image: str
    script: tuple[str, ...]
    stage: str = ""
    tag: str = ""
    services: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    cache: Cache | None = None
    needs: tuple[str, ...] = ()
    matrix: Matrix | None = None
    artifacts: tuple[str, ...] = ()
    rule: Rule = ""
    branch: str = ""
    timeout: int = 0
    allow_failure: bool = False


@dataclass(frozen=True)
class Pipeline:
    """A task: jobs, and whether they are described in English or as a GitHub workflow."""

    kind: Kind
    jobs: tuple[Job, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of everything it says; what is held out is recognised by it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Difficulty:
    """How many jobs, and how many features a job has at most."""

    jobs: tuple[int, ...] = (1, 1, 1, 2)
    features: tuple[int, ...] = (0, 1, 1, 2, 2, 3)


SHORT = Difficulty(jobs=(1,), features=(0, 0, 1))
TRAINING = Difficulty()
HARD = Difficulty(jobs=(2, 3), features=(1, 2, 3))

_FEATURES = (
    "tag", "services", "variables", "cache", "matrix", "artifacts", "rule", "rule", "timeout", "allow_failure",
)  # fmt: skip


def random_pipeline(rng: random.Random, kind: Kind, difficulty: Difficulty = TRAINING) -> Pipeline:
    """A pipeline whose every choice follows from `rng`."""
    jobs: list[Job] = []
    stages = sorted(rng.choices(range(3), k=3))
    for index in range(rng.choice(difficulty.jobs)):
        stage = DEFAULT_STAGES[stages[index]]
        taken = {job.name for job in jobs}
        job = random_job(rng, stage if kind == "write" else "", difficulty)
        while job.name in taken:
            job = random_job(rng, stage if kind == "write" else "", difficulty)
        # GitLab refuses a pipeline whose job needs one that a rule left out.
        if jobs and not jobs[-1].rule and rng.random() < 0.7:
            job = replace(job, needs=(jobs[-1].name,))
        jobs.append(job)
    return Pipeline(kind, tuple(jobs))


def random_job(rng: random.Random, stage: str, difficulty: Difficulty) -> Job:
    """A job without needs."""
    features = set(rng.sample(_FEATURES, rng.choice(difficulty.features)))
    script = list(dict.fromkeys(words.command(rng) for _ in range(rng.choice((1, 1, 2, 2, 3)))))
    matrix = None
    if "matrix" in features:
        axis = rng.choice(sorted(_MATRIX))
        matrix = Matrix(axis, tuple(sorted(rng.sample(_MATRIX[axis], rng.choice((2, 2, 3))), key=_MATRIX[axis].index)))
        if rng.random() < 0.5:
            script[-1] += rng.choice((" --{axis}", " -e {axis}", " {axis}")).replace("--{axis}", f"--{axis} {{axis}}")
    rule: Rule = rng.choice(("branch", "branch", "merge-request", "tag")) if "rule" in features else ""
    return Job(
        name=words.job_name(rng),
        image=words.image(rng),
        script=tuple(script),
        stage=stage,
        tag=words.tag(rng) if "tag" in features else "",
        services=(words.service(rng),) if "services" in features else (),
        variables=_variables(rng) if "variables" in features else (),
        cache=Cache(words.word(rng), words.path(rng)) if "cache" in features else None,
        matrix=matrix,
        artifacts=tuple(dict.fromkeys(words.path(rng) for _ in range(rng.choice((1, 1, 2)))))
        if "artifacts" in features
        else (),
        rule=rule,
        branch=rng.choice(("main", "main", "develop", words.word(rng))) if rule == "branch" else "",
        timeout=rng.randrange(5, 100, 5) if "timeout" in features else 0,
        allow_failure="allow_failure" in features,
    )


def _variables(rng: random.Random) -> tuple[tuple[str, str], ...]:
    made = {words.variable(rng): words.value(rng) for _ in range(rng.choice((1, 1, 2)))}
    return tuple(made.items())
