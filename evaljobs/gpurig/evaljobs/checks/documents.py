"""Answers as data: YAML and JSON that a model wrote, read within bounds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gpurig.common.terminal import shorten
from gpurig.evaljobs.suites.source import MAX_DEPTH, YamlProblemError, compose, compose_core

# An answer is written by a model: what is larger is refused before it costs minutes.
MAX_CHARACTERS = 256 * 1024
MAX_VALUES = 20_000


@dataclass(frozen=True)
class Read:
    """A document as data; `problem` says in one line why it is none, and is "" where it is."""

    data: Any = None
    problem: str = ""


def read_yaml(document: str, *, version: str = "1.1") -> Read:
    """A YAML mapping or list. A line of text, which YAML would allow, is a problem.

    Args:
        document: one YAML document.
        version: of YAML: "1.1", as GitLab reads it, or "1.2" (its core schema), in which `on` is text.
    """
    if problem := _unreadable(document):
        return Read(problem=problem)
    try:
        data = (compose_core if version == "1.2" else compose)(document, max_values=MAX_VALUES)
    except YamlProblemError as error:
        where = f" in line {error.line}" if error.line else ""
        return Read(problem=f"no valid YAML{where}: {shorten(error.reason, 300)}")
    if not isinstance(data, dict | list):
        return Read(problem="the answer is plain text, no YAML mapping or list")
    return Read(data)


def read_json(document: str) -> Read:
    """A JSON value, as RFC 8259 has it: no NaN, no key twice, at most `MAX_DEPTH` levels and `MAX_VALUES` values."""
    if problem := _unreadable(document):
        return Read(problem=problem)
    try:
        data = json.loads(document, object_pairs_hook=_without_twins, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        return Read(problem=f"no valid JSON in line {error.lineno}, column {error.colno}: {error.msg}")
    except ValueError as error:
        return Read(problem=f"no valid JSON: {shorten(str(error), 200)}")
    except RecursionError:
        return Read(problem=f"no valid JSON: nested deeper than {MAX_DEPTH} levels")
    return Read(data, _beyond(data))


def texts_as_keys(data: Any) -> Any:
    """The data as JSON has it: keys are texts (`8080:` and `true:` are none in YAML)."""
    if isinstance(data, dict):
        return {_key(key): texts_as_keys(value) for key, value in data.items()}
    if isinstance(data, list):
        return [texts_as_keys(value) for value in data]
    return data


def _unreadable(document: str) -> str:
    if not document.strip():
        return "the answer is empty"
    if len(document) > MAX_CHARACTERS:
        return f"the document has {len(document)} characters, more than {MAX_CHARACTERS}"
    return ""


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    for key, value in pairs:
        if key in answer:
            raise ValueError(f'key "{shorten(key, 60)}" is there twice in one object')
        answer[key] = value
    return answer


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _beyond(data: Any) -> str:
    """What is too deep or too much of it; level by level, because deep data must not need a deep stack."""
    level, count = [data], 0
    for _ in range(MAX_DEPTH):
        count += len(level)
        if count > MAX_VALUES:
            return f"the document has more than {MAX_VALUES} values"
        level = [
            value
            for held in level
            if isinstance(held, dict | list)
            for value in (held.values() if isinstance(held, dict) else held)
        ]
        if not level:
            return ""
    return f"no valid JSON: nested deeper than {MAX_DEPTH} levels"


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) or key is None else str(key)
