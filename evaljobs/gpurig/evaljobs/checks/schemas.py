"""JSON schemas: those that check-jsonschema carries, and a suite's own."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurig.common.errors import InputError
from gpurig.common.files import read_text
from gpurig.evaljobs.checks.documents import read_yaml
from gpurig.evaljobs.checks.subject import shown

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

# A pattern of a schema that needs longer on one text is a mistake in the schema.
PATTERN_SECONDS = 1.0


class SchemaError(Exception):
    """A schema that cannot be used; one line."""


@functools.cache
def published(name: str) -> Validator:
    """A schema that check-jsonschema carries, for example "vendor.gitlab-ci"."""
    from check_jsonschema.builtin_schemas import get_builtin_schema  # noqa: PLC0415 - slow to import

    return validator(get_builtin_schema(name))


@functools.cache
def of_text(schema: str) -> Validator:
    """A schema from its JSON text.

    Raises:
        SchemaError: it is none.
    """
    return validator(json.loads(schema))


@functools.cache
def of_file(path: Path) -> Validator:
    """A schema from a JSON or YAML file.

    Raises:
        SchemaError: no such file, or no schema.
    """
    try:
        text = read_text(path)
    except InputError as error:
        raise SchemaError(str(error)) from error
    read = read_yaml(text, version="1.2")  # JSON is YAML
    if read.problem:
        raise SchemaError(f"{path}: {read.problem}")
    return validator(read.data)


def validator(schema: Any) -> Validator:
    """What holds data against a schema of the draft that it names (2020-12 where it names none).

    References lead nowhere outside of the schema: nothing is fetched.

    Raises:
        SchemaError: no valid schema.
    """
    from jsonschema import Draft202012Validator, exceptions, validators  # noqa: PLC0415 - slow to import
    from referencing import Registry  # noqa: PLC0415 - slow to import

    if not isinstance(schema, dict | bool):
        raise SchemaError("a JSON schema must be a mapping")
    kind = validators.validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)  # type: ignore[arg-type]  # true and false are schemas, too
    except exceptions.SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "the top"
        raise SchemaError(f"no valid JSON schema: {where}: {shown(error.message, 200)[1:-1]}") from error
    extend: Any = validators.extend
    bounded = extend(kind, {"pattern": _pattern, "patternProperties": _pattern_properties})
    made: Validator = bounded(schema, registry=Registry())
    return made


def worst(schema: Validator, data: Any) -> str:
    """The deepest fault of the data, with the path at which it stands; "" where there is none."""
    from jsonschema.exceptions import best_match  # noqa: PLC0415 - slow to import
    from referencing.exceptions import Unresolvable  # noqa: PLC0415 - slow to import

    try:
        error = best_match(schema.iter_errors(data))
    except Unresolvable as reference:
        return f"the schema refers to what is not in it: {shown(str(reference), 200)}"
    except RecursionError:
        return "the schema refers to itself without end"
    except TimeoutError:
        return f"a pattern of the schema took longer than {PATTERN_SECONDS:g} s on this answer: make it simpler"
    if error is None:
        return ""
    path = ".".join(str(part) for part in error.absolute_path) or "the top"
    return f"{shown(path, 120)[1:-1]}: {shown(error.message, 300)[1:-1]}"


def _pattern(validator: Any, pattern: str, instance: Any, _: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError  # noqa: PLC0415 - slow to import

    if validator.is_type(instance, "string") and not _matches(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, properties: Mapping[str, Any], instance: Any, _: Any) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, below in properties.items():
        for key, value in instance.items():
            if _matches(pattern, key):
                yield from validator.descend(value, below, path=key, schema_path=pattern)


def _matches(pattern: str, text: str) -> bool:
    import regex  # noqa: PLC0415 - heavy, and `--help` does not need it

    return regex.search(pattern, text, timeout=PATTERN_SECONDS) is not None
