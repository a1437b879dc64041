"""The checks gitlab-ci-semantics, gitlab-ci-translation and no-secrets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from gpurig.evaljobs.checks.documents import read_yaml
from gpurig.evaljobs.checks.gitlab.configuration import Configuration, read_configuration
from gpurig.evaljobs.checks.gitlab.secrets import secrets_in_text
from gpurig.evaljobs.checks.gitlab.semantics import ASPECTS, Aspect, problems
from gpurig.evaljobs.checks.gitlab.translation import compare
from gpurig.evaljobs.checks.parameters import Parameters, listed
from gpurig.evaljobs.checks.structure import Document
from gpurig.evaljobs.checks.subject import Answer, Finding, extract

_SHOWN = 3


class Semantics(Document):
    """Parameters of `gitlab-ci-semantics`.

    Attributes:
        aspects: what is looked at.
    """

    aspects: Annotated[tuple[Aspect, ...], BeforeValidator(listed), Field(min_length=1)] = tuple(
        aspect for aspect in ASPECTS if aspect != "images"
    )


class Translation(Document):
    """Parameters of `gitlab-ci-translation`.

    Attributes:
        source: where the workflow is: the name of one of the sample's variables, or "input" (its first fenced block).
        matrix: each job must run as often.
        order: each job must come behind those that it needs.
    """

    source: str = "input"
    matrix: bool = True
    order: bool = True


def has_sound_semantics(answer: Answer, parameters: Semantics) -> Finding:
    """Fails where a configuration is wrong in a way that its schema allows; the score is the share of sound aspects."""
    read = _configuration(answer, parameters)
    if isinstance(read, str):
        return Finding(read, score=0.0)
    found: list[str] = []
    sound = 0
    for aspect in parameters.aspects:
        here = list(problems(read, aspect))
        sound += not here
        found += [f"{one} [{aspect}]" for one in here]
    return Finding(_told(found), score=sound / len(parameters.aspects))


def is_translation(answer: Answer, parameters: Translation) -> Finding:
    """Fails where a job of the GitHub workflow is missing, runs more or less often, or waits for less."""
    text = extract(answer.input, "code-block") if parameters.source == "input" else answer.vars.get(parameters.source)
    if not isinstance(text, str):
        return Finding(f'the sample has no variable "{parameters.source}" that holds the workflow')
    workflow = read_yaml(text, version="1.2")
    if workflow.problem or not isinstance(workflow.data, dict) or not isinstance(workflow.data.get("jobs"), dict):
        return Finding(f"the workflow in {parameters.source} cannot be read: {workflow.problem or 'it has no jobs'}")
    read = _configuration(answer, parameters)
    if isinstance(read, str):
        return Finding(read, score=0.0)
    found = compare(workflow.data, read, matrix=parameters.matrix, order=parameters.order)
    return Finding(_told(found.problems), score=found.score)


def has_no_secrets(answer: Answer, parameters: Parameters) -> Finding:
    """Fails where the answer holds what looks like a token, a private key, or a password in an address."""
    found = list(secrets_in_text(extract(answer.output, parameters.extract)))
    return Finding((found and f"the answer holds {' and '.join(found)}") or "")


def _configuration(answer: Answer, parameters: Document) -> Configuration | str:
    """The answer's configuration, or why there is none."""
    read = read_yaml(extract(answer.output, parameters.extract))
    if read.problem:
        return read.problem
    data: Any = read.data
    return read_configuration(data) if isinstance(data, dict) else "the top of .gitlab-ci.yml must be a mapping of jobs"


def _told(found: Sequence[str]) -> str:
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more
