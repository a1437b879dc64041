"""A pipeline in English, in one of many wordings."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from demo_models.pipelines import Job, Pipeline


def render(pipeline: Pipeline, rng: random.Random) -> str:
    """What a person might ask for; the wording follows from `rng`."""
    if len(pipeline.jobs) == 1:
        job = pipeline.jobs[0]
        head = rng.choice(
            (
                "Write a GitLab CI job named {}.",
                "Write a GitLab CI job called {}.",
                "I need a GitLab CI job {}.",
                "Please create the job {} for GitLab CI.",
                "Add a job {} to our .gitlab-ci.yml.",
                "Give me a CI job named {}.",
            )
        ).format(job.name)
        return " ".join([head, *_sentences(job, rng)])
    count = {2: "two", 3: "three", 4: "four"}[len(pipeline.jobs)]
    head = rng.choice(
        (
            "Write a GitLab CI pipeline with {} jobs.",
            "I need a GitLab pipeline of {} jobs.",
            "Create {} jobs for GitLab CI.",
        )
    ).format(count)
    lines = [head]
    for index, job in enumerate(pipeline.jobs):
        number = ("First", "Second", "Third", "Fourth")[index]
        start = rng.choice((f"{number} job: {job.name}.", f"{number}, {job.name}.", f"{index + 1}. {job.name}."))
        lines.append(" ".join([start, *_sentences(job, rng)]))
    return "\n".join(lines)


def _sentences(job: Job, rng: random.Random) -> list[str]:
    base = [_say(rng, _STAGE, job.stage), _say(rng, _IMAGE, job.image), _script(job, rng)]
    rng.shuffle(base)
    rest = [*_surroundings(job, rng), *_conditions(job, rng)]
    rng.shuffle(rest)
    return [*base, *rest]


def _surroundings(job: Job, rng: random.Random) -> Iterator[str]:
    if job.tag:
        yield _say(rng, _TAG, job.tag)
    if job.services:
        yield _say(rng, _SERVICE, _listed(job.services))
    if job.variables:
        yield _say(rng, _VARIABLES, _listed([f"{name}={value}" for name, value in job.variables]))
    if job.cache:
        yield rng.choice(_CACHE).format(path=job.cache.path, key=job.cache.key)
    if job.needs:
        yield _say(rng, _NEEDS, _listed(job.needs))
    if job.artifacts:
        yield _say(rng, _ARTIFACTS, _listed(job.artifacts))


def _conditions(job: Job, rng: random.Random) -> Iterator[str]:
    if job.matrix:
        yield rng.choice(_MATRIX).format(name=job.matrix.name.upper(), values=_listed(job.matrix.values))
    if job.rule:
        yield _say(rng, {"branch": _BRANCH, "merge-request": _MERGE_REQUEST, "tag": _GIT_TAG}[job.rule], job.branch)
    if job.timeout:
        yield _say(rng, _TIMEOUT, str(job.timeout))
    if job.allow_failure:
        yield rng.choice(_ALLOW_FAILURE)


def _script(job: Job, rng: random.Random) -> str:
    axis = f"${job.matrix.name.upper()}" if job.matrix else ""
    quoted = [f"`{line.replace('{axis}', axis)}`" for line in job.script]
    text = rng.choice((", then ", " and then ", " and ")).join(quoted) if len(quoted) < 3 else _then(quoted)
    return _say(rng, _SCRIPT, text)


def _then(quoted: Sequence[str]) -> str:
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _say(rng: random.Random, phrasings: Sequence[str], value: str) -> str:
    return rng.choice(phrasings).format(value)


_STAGE = ("It is in the {} stage.", "It belongs to stage {}.", "Stage: {}.", "Put it in the {} stage.")
_IMAGE = ("Use the image {}.", "It uses {} as its image.", "Image: {}.", "The container image is {}.")
_SCRIPT = ("It runs {}.", "Run {}.", "The script is {}.", "It should run {}.", "It must execute {}.")
_TAG = ("It needs a runner tagged {}.", "Tag: {}.", "Only runners with the tag {} may take it.")
_SERVICE = ("It needs the service {}.", "Start {} as a service.", "Service: {}.", "With {} running beside it.")
_VARIABLES = ("Set {}.", "Define the variables {}.", "Variables: {}.", "With {} in its environment.")
_CACHE = ("Cache {path} under the key {key}.", "Keep {path} in the cache {key}.", "Cache key {key}, path {path}.")
_NEEDS = ("It needs {}.", "It starts after {}.", "It depends on {}.")
_MATRIX = ("Run it for each {name} of {values}.", "Matrix: {name} is {values}.", "Repeat it with {name} {values}.")
_ARTIFACTS = ("Keep {} as artifacts.", "Save {} as artifacts.", "Artifacts: {}.", "It uploads {}.")
_BRANCH = ("Only on the {} branch.", "Only run it on branch {}.", "It runs for {} alone.", "Limit it to branch {}.")
_MERGE_REQUEST = ("Only in merge requests.", "Only run it for merge requests.", "It is for merge requests.")
_GIT_TAG = ("Only for git tags.", "Run it only when a tag is pushed.", "It is for tags alone.")
_TIMEOUT = ("Stop it after {} minutes.", "Its timeout is {} minutes.", "It may take {} minutes.")
_ALLOW_FAILURE = ("It may fail.", "Allow it to fail.", "A failure is fine.")
