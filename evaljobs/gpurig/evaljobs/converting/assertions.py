"""promptfoo's assertions as checks, as far as their meanings meet."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import PydanticCustomError

from gpurig.evaljobs.checks import CHECKS, parse_check

# promptfoo: csv.ts, BaseAssertionTypesSchema; what a compact assertion in an `__expected` cell may begin with.
_COMPACT = re.compile(
    r"(?P<type>(?:not-)?[a-z][a-z:-]*[a-z])(?:\((?P<threshold>[0-9]+(?:\.[0-9]+)?)\))?(?::(?P<value>.*))?", re.DOTALL
)
_LISTS = ("contains-all", "contains-any", "icontains-all", "icontains-any")
RUBRICS = ("llm-rubric", "model-graded-closedqa", "factuality", "g-eval")
_CODE = ("javascript", "python", "ruby", "webhook")
# What an assertion may say that a check has no place for.
_PASSED_OVER = {
    "metric": "named metrics are not there; the check's kind names its metric",
    "transform": "an answer is checked as it is",
    "contextTransform": "an answer is checked as it is",
    "provider": "checks have no model of their own",
    "rubricPrompt": "the grader's prompt is the suite's",
    "config": "it has no meaning here",
}


class NoCheckError(Exception):
    """An assertion that no check stands for; the text says why."""


@dataclass
class Converted:
    """What an assertion came to.

    Attributes:
        check: as a suite writes it; None for a rubric.
        rubric: what the grader should judge by.
        notes: what means something else than it did, or has no place.
    """

    check: Any = None
    rubric: str = ""
    notes: list[str] = field(default_factory=list)


def convert_assertion(given: Mapping[str, Any]) -> Converted:
    """The check that an assertion stands for; its value's variables are in their places already.

    Raises:
        NoCheckError: there is none.
    """
    kind = given.get("type")
    if not isinstance(kind, str):
        raise NoCheckError("it has no type")
    value = given.get("value")
    if isinstance(value, str) and value.startswith("file://"):
        raise NoCheckError("its value stands in another file")
    made = Converted()
    if kind in RUBRICS:
        if kind != "llm-rubric":
            made.notes.append(f"{kind} became a rubric")
        made.rubric = str(value or "")
        if not made.rubric:
            raise NoCheckError("it has no value")
    else:
        name, parameters = _parameters(_Given(kind, value, given.get("threshold"), made.notes))
        weight = given.get("weight")
        if isinstance(weight, int | float) and weight != 1:
            parameters["weight"] = weight
        made.check = _written(name, parameters)
        _demand_valid(made.check)
    made.notes += [f"{key}: {why}" for key, why in _PASSED_OVER.items() if key in given]
    return made


def compact_assertion(text: str) -> dict[str, Any]:
    """An assertion as a cell of promptfoo's CSV files has it: "contains: x", "is-json", or the expected text."""
    for short, kind in (("fn:", "javascript"), ("eval:", "javascript"), ("grade:", "llm-rubric")):
        if text.startswith(short):
            return {"type": kind, "value": text.removeprefix(short).strip()}
    found = _COMPACT.fullmatch(text.strip())
    known = found and (found["type"].removeprefix("not-") in _KNOWN)
    if not found or not known:
        return {"type": "equals", "value": text}
    value: Any = (found["value"] or "").strip()
    if found["type"] in _LISTS:
        value = [part.strip() for part in value.split(",")]
    made: dict[str, Any] = {"type": found["type"], "value": value}
    return {**made, "threshold": float(found["threshold"])} if found["threshold"] else made


@dataclass(frozen=True)
class _Given:
    """An assertion as a converter gets it; what has another meaning afterwards goes into `notes`."""

    kind: str
    value: Any
    threshold: Any
    notes: list[str]


def _parameters(given: _Given) -> tuple[str, dict[str, Any]]:
    """The check's name and its parameters."""
    converter = _CONVERTERS.get(given.kind)
    if converter is not None:
        return converter(given)
    positive = given.kind.removeprefix("not-")
    if positive in _CODE:
        raise NoCheckError(f"{positive} runs code: write it as a check of your own")
    if positive in RUBRICS:
        raise NoCheckError("a rubric that must not hold: turn its words round")
    raise NoCheckError(f"no check means {given.kind}")


def _contains(given: _Given) -> tuple[str, dict[str, Any]]:
    negated = given.kind.startswith("not-")
    positive = given.kind.removeprefix("not-")
    parameters: dict[str, Any] = {"text": _texts(given.value)}
    if positive.endswith("-any") and not negated:
        parameters["match"] = "any"
    if positive.startswith("icontains"):
        parameters["ignore_case"] = True
    return ("not-contains" if negated else "contains"), parameters


def _regex(given: _Given) -> tuple[str, dict[str, Any]]:
    given.notes.append("JavaScript's regular expressions and Python's differ in places: try it")
    return "regex", {"pattern": _text(given.value)} | ({"expect": False} if given.kind.startswith("not-") else {})


def _json(given: _Given) -> tuple[str, dict[str, Any]]:
    part = {"extract": "whole"} if given.kind == "is-json" else {}
    if given.kind == "contains-json":
        given.notes.append("the JSON must be the first code block, or the whole answer")
    value = given.value
    if value in (None, ""):
        return "json", part
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise NoCheckError("its value is no JSON schema") from error
    if not isinstance(value, dict):
        raise NoCheckError("its value is no JSON schema")
    return "json-schema", {"schema": value, **part}


def _words(given: _Given) -> tuple[str, dict[str, Any]]:
    value = given.value
    if isinstance(value, dict) and value and set(value) <= {"min", "max"}:
        return "length", {**value, "unit": "words"}
    if isinstance(value, int | str) and str(value).isdecimal():
        return "length", {"min": int(value), "max": int(value), "unit": "words"}
    raise NoCheckError("its value is neither a number nor {min, max}")


def _latency(given: _Given) -> tuple[str, dict[str, Any]]:
    """Promptfoo counts milliseconds from asking to answering; the check what an answer cost of the computing."""
    given.notes.append("it counts an answer's share of the computing, not the time that it took with others")
    return "latency", {"seconds": _number(given.threshold) / 1000}


def _edits(given: _Given) -> tuple[str, dict[str, Any]]:
    """Promptfoo's threshold is a number of edits, the check's a share of the longer text."""
    reference = _text(given.value)
    edits = 5.0 if given.threshold is None else _number(given.threshold)
    given.notes.append(f"up to {edits:g} edits became a share of the reference's length")
    return "edit-distance", {"threshold": max(0.0, 1 - edits / len(reference)), "reference": reference}


def _overlap(given: _Given) -> tuple[str, dict[str, Any]]:
    threshold = 0.75 if given.threshold is None and given.kind == "rouge-n" else given.threshold
    threshold = 0.5 if threshold is None else threshold
    name = given.kind
    if name == "rouge-n":
        name = "rouge-l"
        given.notes.append("ROUGE-N became ROUGE-L: the longest common subsequence, not common words")
    return name, {"threshold": _number(threshold), "reference": _texts(given.value)}


# That none of several texts is there is what `not-contains` says of them, so `not-contains-any` meets it and
# `not-contains-all` does not.
_CONVERTERS: Mapping[str, Callable[[_Given], tuple[str, dict[str, Any]]]] = {
    "equals": lambda given: ("equals", {"text": _text(given.value)}),
    **dict.fromkeys(("contains", "contains-all", "contains-any", "not-contains", "not-contains-any"), _contains),
    **dict.fromkeys(("icontains", "icontains-all", "icontains-any", "not-icontains", "not-icontains-any"), _contains),
    "regex": _regex,
    "not-regex": _regex,
    "starts-with": lambda given: ("starts-with", {"text": _texts(given.value)}),
    "not-starts-with": lambda given: ("regex", {"pattern": r"\A" + re.escape(_text(given.value)), "expect": False}),
    "is-json": _json,
    "contains-json": _json,
    "word-count": _words,
    "latency": _latency,
    "levenshtein": _edits,
    "bleu": _overlap,
    "rouge-n": _overlap,
}
_KNOWN = (
    *("equals", "contains", "icontains", *_LISTS, "regex", "starts-with", "is-json", "contains-json", "word-count"),
    *(*_CODE, *RUBRICS, "is-xml", "contains-xml", "is-html", "contains-html", "is-sql", "contains-sql", "similar"),
    *("latency", "cost", "levenshtein", "rouge-n", "bleu", "gleu", "meteor", "perplexity", "perplexity-score"),
    *("classifier", "moderation", "select-best", "answer-relevance", "context-recall", "context-relevance"),
    *("context-faithfulness", "is-refusal", "guardrails", "is-valid-openai-tools-call", "finish-reason"),
)


def _text(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise NoCheckError("its value is no text")


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise NoCheckError("its threshold is no number")


def _texts(value: Any) -> Any:
    if isinstance(value, list) and value:
        return [_text(one) for one in value]
    return _text(value)


def _written(name: str, parameters: dict[str, Any]) -> Any:
    """As a person would write it: the name alone, `name: value`, or with all parameters."""
    short = CHECKS[name].shorthand
    if not parameters:
        return name
    if list(parameters) == [short] and not isinstance(parameters[short], dict):
        return {name: parameters[short]}
    return {name: parameters}


def _demand_valid(check: Any) -> None:
    try:
        parse_check(check)
    except PydanticCustomError as error:
        problems = (error.context or {}).get("problems", ())
        raise NoCheckError("; ".join(message for _, message in problems) or "its value does not fit") from error
