"""What pydantic finds wrong, in words that say what would be right."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel

from gpurig.common.terminal import shorten
from gpurig.evaljobs.suites.source import Location

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


def in_words(entry: Any, data: Any, model: type[BaseModel]) -> Iterator[tuple[Location, str]]:
    """A pydantic error as locations and messages of our own.

    Args:
        entry: one of `ValidationError.errors()`.
        data: what was validated.
        model: what it was held against.
    """
    location = _within(tuple(part for part in entry["loc"] if part != "[key]"), data)
    kind, given = entry["type"], entry["input"]
    if kind == "check":
        for below, message in entry["ctx"]["problems"]:
            yield (*location, *below), message
    elif kind == "too_short" and _value_at(data, location):
        return  # there are some, all of them wrong: each is reported by itself
    elif kind in _WORDS:
        yield location, _WORDS[kind].format(**{**entry.get("ctx", {}), "given": shown(given)})
    elif kind == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        yield location, f"unknown key{meant(str(location[-1]), known)} (known: {', '.join(known)})"
    elif kind == "string_type":
        quote = "" if isinstance(given, dict | list) or given is None else ": put it in quotes"
        yield location, f"must be text, not {shown(given)}{quote}"
    elif kind == "string_pattern_mismatch":
        characters = ". _ - / : +" if location[-1] == "id" else ". _ -"
        yield location, f"{shown(given)} must be letters, digits and {characters} only, a letter or digit first"
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


def meant(given: str, known: tuple[str, ...]) -> str:
    """The known word that was probably meant, as the end of a message; empty where none is near."""
    near = difflib.get_close_matches(given, known, n=1)
    return f'; did you mean "{near[0]}"?' if near else ""


def shown(value: Any) -> str:
    """A value as a message names it."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f'the text "{shorten(value, 60)}"'
    return json.dumps(value)
