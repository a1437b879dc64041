"""What is wrong with a suite, and where: file, line, field, and what would be right."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ValidationError

from gpurig.common.errors import InputError
from gpurig.common.terminal import shorten
from gpurig.evaljobs.suites.source import Location, Source, read_source
from gpurig.evaljobs.suites.suite import GATE_METRICS, SuiteFile

_MAX_SHOWN = 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        field: where in the data, for example "samples[3].checks[0]".
    """

    path: Path
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        """One line, as compilers write it."""
        where = f"{self.path}:{self.line}: "
        return f"{where}{self.field}: {self.message}" if self.field else f"{where}{self.message}"


@dataclass(frozen=True)
class _Sources:
    """suite.yaml and, where it names one, the file of its samples."""

    main: Source
    samples: Source | None

    @property
    def data(self) -> Any:
        if self.samples is None:
            return self.main.data
        return {**self.main.data, "samples": self.samples.data}

    def problem(self, location: Location, message: str) -> Problem:
        if self.samples is not None and location[:1] == ("samples",) and len(location) > 1:
            return Problem(self.samples.path, self.samples.line(location[1:]), _field(location), message)
        return Problem(self.main.path, self.main.line(location), _field(location), message)


def validate_suite(path: Path) -> SuiteFile:
    """Read suite.yaml, and the samples file it names, and hold them against the format.

    Raises:
        InputError: with every problem found, in the order of the lines.
    """
    sources = _read(path)
    data = sources.data
    problems = [
        sources.problem(location, message)
        for location, message in (*_duplicate_ids(data, sources), *_generator_missing(data))
    ]
    try:
        # Through JSON, because pydantic's strict mode takes lists for tuples there.
        suite = SuiteFile.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        problems += [
            sources.problem(location, message)
            for entry in error.errors()
            for location, message in _in_words(entry, data)
        ]
    else:
        problems += [sources.problem(location, message) for location, message in _contradictions(suite)]
        if not problems:
            return suite
    raise _error(path, sorted(set(problems), key=lambda problem: (str(problem.path), problem.line, problem.field)))


def _read(path: Path) -> _Sources:
    main = read_source(path)
    if not isinstance(main.data, dict):
        raise InputError(
            f"{path}:1: a suite must be a mapping with version, name, generator and samples",
            hint="docs/suites.md describes the format",
        )
    named = main.data.get("samples")
    if not isinstance(named, str):
        return _Sources(main, None)
    file = path.parent / named
    if not file.is_file():
        raise InputError(
            f"{path}:{main.line(('samples',))}: samples: there is no file {file}",
            hint="the path is relative to the suite's folder",
        )
    samples = read_source(file)
    if not isinstance(samples.data, list):
        raise InputError(f"{file}:1: must be a list of samples", hint="begin each sample with '- id: …'")
    return _Sources(main, samples)


def _duplicate_ids(data: Any, sources: _Sources) -> Iterator[tuple[Location, str]]:
    samples = data.get("samples")
    first: dict[str, int] = {}
    for index, sample in enumerate(samples if isinstance(samples, list) else []):
        name = sample.get("id") if isinstance(sample, dict) else None
        if not isinstance(name, str):
            continue
        if name in first:
            line = sources.problem(("samples", first[name], "id"), "").line
            yield ("samples", index, "id"), f'"{name}" is there twice, first in line {line}: ids must differ'
        else:
            first[name] = index


def _generator_missing(data: Any) -> Iterator[tuple[Location, str]]:
    if "generator" in data and data.get("generators"):
        yield ("generators",), "give generator or generators, not both"
    elif "generator" not in data and not data.get("generators"):
        yield ("generator",), "is missing: say which model answers"


def _contradictions(suite: SuiteFile) -> Iterator[tuple[Location, str]]:
    """What only the whole suite shows: gate rules about something that the run will not measure."""
    for name, spec in suite.named_generators.items():
        if spec.sampling.seed + suite.epochs.n > 2**32:
            where: Location = ("generators", name, "sampling") if name else ("generator", "sampling")
            yield (*where, "seed"), f"the seeds of {suite.epochs.n} epochs must all be under {2**32}"
    kinds = {spec.kind for spec in suite.checks} | {spec.kind for sample in suite.samples for spec in sample.checks}
    known = (*GATE_METRICS, *(f"check_pass_rate.{kind}" for kind in sorted(kinds)))
    for index, rule in enumerate(suite.gate):
        location: Location = ("gate", index, "metric")
        if rule.generator is not None and rule.generator not in suite.generators:
            names = tuple(suite.generators)
            which = f" (known: {', '.join(names)})" if names else ": the suite has one, without a name"
            yield (
                ("gate", index, "generator"),
                f'unknown generator "{rule.generator}"{_meant(rule.generator, names)}{which}',
            )
        if rule.metric not in known:
            yield location, f'unknown metric "{rule.metric}"{_meant(rule.metric, known)} (known: {", ".join(known)})'
        elif rule.metric.startswith("grade") and suite.grader is None:
            yield location, f'"{rule.metric}" needs a grader, and the suite has none'
        elif rule.metric == "check_pass_rate" and not kinds:
            yield location, '"check_pass_rate" needs checks, and the suite has none'


# pydantic's error types in words; {given} is what stands there.
_WORDS = {
    "missing": "is missing",
    "string_too_short": "must not be empty",
    "too_short": "there are none: write at least one",
    "int_type": "must be a whole number, not {given}",
    "int_from_float": "must be a whole number, not {given}",
    "float_type": "must be a number, not {given}",
    "bool_type": "must be true or false, not {given}",
    "tuple_type": "must be a list, not {given}",
    "dict_type": "must be a mapping, not {given}",
    "model_type": "must be a mapping, not {given}",
    "greater_than": "must be greater than {gt}, not {given}",
    "greater_than_equal": "must be at least {ge}, not {given}",
    "less_than": "must be less than {lt}, not {given}",
    "less_than_equal": "must be at most {le}, not {given}",
    "literal_error": "must be {expected}, not {given}",
}


def _in_words(entry: Any, data: Any) -> Iterator[tuple[Location, str]]:
    """A pydantic error as locations and messages of our own."""
    location = _within(tuple(part for part in entry["loc"] if part != "[key]"), data)
    kind, given = entry["type"], entry["input"]
    if kind == "check":
        for below, message in entry["ctx"]["problems"]:
            yield (*location, *below), message
    elif kind == "too_short" and _value_at(data, location):
        return  # there are some, all of them wrong: each is reported by itself
    elif kind in _WORDS:
        yield location, _WORDS[kind].format(**{**entry.get("ctx", {}), "given": _shown(given)})
    elif kind == "extra_forbidden":
        known = _fields_at(SuiteFile, location[:-1])
        yield location, f"unknown key{_meant(str(location[-1]), known)} (known: {', '.join(known)})"
    elif kind == "string_type":
        quote = "" if isinstance(given, dict | list) or given is None else ": put it in quotes"
        yield location, f"must be text, not {_shown(given)}{quote}"
    elif kind == "string_pattern_mismatch":
        characters = ". _ - / : +" if location[-1] == "id" else ". _ -"
        yield location, f"{_shown(given)} must be letters, digits and {characters} only, a letter or digit first"
    else:
        yield location, str(entry["msg"]).removeprefix("Value error, ")


def _value_at(data: Any, location: Location) -> Any:
    for part in location:
        data = data[part]
    return data


def _within(location: Location, data: Any) -> Location:
    """`location` without the parts that pydantic adds for the branches of a union."""
    kept: list[str | int] = []
    here = data
    for position, part in enumerate(location):
        if isinstance(here, dict) and (part in here or position == len(location) - 1):
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        else:
            continue
        kept.append(part)
    return tuple(kept)


def _fields_at(model: type[BaseModel], location: Location) -> tuple[str, ...]:
    """The fields of the model that stands at `location` below `model`."""
    annotation: Any = model
    for part in location:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = annotation.model_fields[str(part)].annotation
        else:
            # The values of a mapping, the items of a list.
            annotation = typing.get_args(annotation)[1 if typing.get_origin(annotation) is dict else 0]
        annotation = _unwrapped(annotation)
    return tuple(annotation.model_fields)


def _unwrapped(annotation: Any) -> Any:
    """An annotation without `Annotated` and without `| None`."""
    if typing.get_origin(annotation) is Annotated:
        return _unwrapped(typing.get_args(annotation)[0])
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return _unwrapped(next(part for part in typing.get_args(annotation) if part is not type(None)))
    return annotation


def _meant(given: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(given, known, n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f'the text "{shorten(value, 60)}"'
    return json.dumps(value)


def _field(location: Location) -> str:
    answer = ""
    for part in location:
        answer += f"[{part}]" if isinstance(part, int) else f"{'.' if answer else ''}{part}"
    return answer


def _error(path: Path, problems: list[Problem]) -> InputError:
    hint = "docs/suites.md describes the format"
    if len(problems) == 1:
        return InputError(str(problems[0]), hint=hint)
    details = [str(problem) for problem in problems[:_MAX_SHOWN]]
    if len(problems) > _MAX_SHOWN:
        details.append(f"… and {len(problems) - _MAX_SHOWN} more")
    return InputError(f"{path}: {len(problems)} problems", hint=hint, details=details)
