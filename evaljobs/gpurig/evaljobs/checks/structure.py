"""Checks on the structure of an answer: yaml, gitlab-ci."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from gpurig.common.terminal import shorten
from gpurig.evaljobs.checks.subject import Answer, Extract, extract
from gpurig.evaljobs.checks.text import Parameters
from gpurig.evaljobs.suites.source import YamlProblemError, compose

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


# An answer is written by a model: what is larger is refused before it costs minutes.
MAX_CHARACTERS = 256 * 1024
MAX_VALUES = 20_000


class Document(Parameters):
    """Parameters of `yaml` and `gitlab-ci`: which part of the answer is the document."""

    extract: Extract = "code-block"


def is_yaml(answer: Answer, parameters: Document) -> str:
    """Fails where the answer is no YAML, or nothing but a line of text (which YAML would allow)."""
    return _parse(answer, parameters)[1]


def is_gitlab_ci(answer: Answer, parameters: Document) -> str:
    """Fails where the answer breaks GitLab's JSON schema of .gitlab-ci.yml; says at which path and how.

    The schema is the one GitLab publishes, as check-jsonschema carries it. `!reference` counts as a list.
    """
    data, problem = _parse(answer, parameters)
    if problem:
        return problem
    if not isinstance(data, dict):
        return "the top of .gitlab-ci.yml must be a mapping of jobs"
    return _worst(_gitlab_ci_schema(), _texts_as_keys(data))


def _parse(answer: Answer, parameters: Document) -> tuple[Any, str]:
    document = extract(answer.output, parameters.extract)
    if not document.strip():
        return None, "the answer is empty"
    if len(document) > MAX_CHARACTERS:
        return None, f"the document has {len(document)} characters, more than {MAX_CHARACTERS}"
    try:
        data = compose(document, max_values=MAX_VALUES)
    except YamlProblemError as error:
        where = f" in line {error.line}" if error.line else ""
        return None, f"no valid YAML{where}: {shorten(error.reason, 300)}"
    if not isinstance(data, dict | list):
        return None, "the answer is plain text, no YAML mapping or list"
    return data, ""


def _texts_as_keys(data: Any) -> Any:
    """The data as JSON has it: keys are texts (`8080:` and `true:` are none in YAML)."""
    if isinstance(data, dict):
        return {_key(key): _texts_as_keys(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_texts_as_keys(value) for value in data]
    return data


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) or key is None else str(key)


@functools.cache
def _gitlab_ci_schema() -> Validator:
    from check_jsonschema.builtin_schemas import get_builtin_schema  # noqa: PLC0415 - slow to import
    from jsonschema import Draft7Validator  # noqa: PLC0415 - slow to import

    return Draft7Validator(get_builtin_schema("vendor.gitlab-ci"))


def _worst(schema: Validator, data: Any) -> str:
    from jsonschema.exceptions import best_match  # noqa: PLC0415 - slow to import

    error = best_match(schema.iter_errors(data))
    if error is None:
        return ""
    path = ".".join(str(part) for part in error.absolute_path) or "the top"
    return f"{path}: {shorten(' '.join(error.message.split()), 300)}"
