"""The JSON Schema of suite.yaml, made of the models that read it and of the catalogue of checks.

Editors complete and underline by it (docs/suites.md). It is draft 7, which all of them know. What only the whole suite
shows (ids that differ, a metric that nothing measures, a template's names) is for `gpurig-job validate` to say.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gpurig.evaljobs.checks import CHECKS
from gpurig.evaljobs.checks.kind import Check
from gpurig.evaljobs.suites.datasets import DatasetSpec
from gpurig.evaljobs.suites.epochs import EpochsSpec
from gpurig.evaljobs.suites.suite import AdapterSpec, CalibrationSpec, SuiteFile

_REF = "#/definitions/{model}"
_ATTRIBUTE = re.compile(r"^    ([a-z_]+(?:, [a-z_]+)*): (.*)$")


def suite_schema() -> dict[str, Any]:
    """The schema, as JSON data."""
    models: tuple[type[BaseModel], ...] = (SuiteFile, DatasetSpec, EpochsSpec, AdapterSpec, CalibrationSpec)
    _, made = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    definitions: dict[str, Any] = made["$defs"]
    for model in _models(*models):
        if model.__name__ in definitions:
            _describe(definitions[model.__name__], model)
    for check in CHECKS.values():
        definitions |= _parameters(check)
    suite = definitions.pop("SuiteFile")
    # A generator may have its model from `defaults`, and nearly everything may come from an included file.
    definitions["GeneratorSpec"].pop("required")
    sample = {"$ref": _ref("Sample")}
    file = {"$ref": _ref("DatasetSpec")}
    name = {"type": "string", "minLength": 1}
    suite["properties"] |= {
        "include": {
            "description": "Files whose content is part of the suite; its own keys win.",
            "anyOf": [name, {"type": "array", "items": name}],
        },
        "samples": {
            "description": "A list of samples, or of files that hold more.",
            "anyOf": [name, file, {"type": "array", "minItems": 1, "items": {"anyOf": [name, file, sample]}}],
        },
    }
    definitions["DefaultsSpec"]["properties"]["generator"] = {"$ref": _ref("GeneratorSpec")}
    needs_model = {"required": ["model"]}
    schema: dict[str, Any] = _finished(
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            **suite,
            "required": ["version", "name"],
            "allOf": [
                {
                    "if": {"not": {"required": ["include"]}},
                    "then": {
                        "required": ["samples"],
                        "oneOf": [{"required": ["generator"]}, {"required": ["generators"]}],
                    },
                },
                {
                    "if": {"not": {"anyOf": [{"required": ["include"]}, {"required": ["defaults"]}]}},
                    "then": {
                        "properties": {
                            "generator": needs_model,
                            "generators": {"additionalProperties": needs_model},
                        }
                    },
                },
            ],
            "definitions": {
                **dict(sorted(definitions.items())),
                "Check": _check(),
                "Prompt": {
                    "description": "A Jinja2 template, or a prompt of the library.",
                    "anyOf": [
                        {"type": "string"},
                        _only("name", "A file in prompts/ (without its ending), or a key of `prompts`."),
                        _only("file", "A path from the suite's folder."),
                    ],
                },
            },
        }
    )
    return schema


def schema_text() -> str:
    """The schema as a file."""
    return json.dumps(suite_schema(), indent=1, ensure_ascii=False) + "\n"


def _ref(name: str) -> str:
    return _REF.format(model=name)


def _only(key: str, description: str) -> dict[str, Any]:
    """A mapping with one key, a text."""
    text = {"type": "string", "minLength": 1, "description": description}
    return {"type": "object", "properties": {key: text}, "required": [key], "additionalProperties": False}


def _check() -> dict[str, Any]:
    """An entry of `checks`: its name, or a mapping of one name to its value or its parameters."""
    names = [name for name, check in CHECKS.items() if not _required(check)]
    return {
        "description": "A check: its name, `name: value`, or `name: {parameter: value}`.",
        "anyOf": [
            {"enum": names},
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
                "properties": {name: _value(check) for name, check in CHECKS.items()},
            },
        ],
    }


def _value(check: Check) -> dict[str, Any]:
    """What may stand behind a check's name."""
    parameters = check.parameters.model_json_schema(ref_template=_REF)
    branches: list[dict[str, Any]] = [{"$ref": _ref(check.parameters.__name__)}]
    if check.shorthand:
        branches.append(parameters["properties"][check.shorthand])
    if not _required(check):
        branches.append({"type": "null"})
    return {"description": f"Passes where {re.sub(r'[`*]', '', check.passes)}.", "anyOf": branches}


def _required(check: Check) -> list[str]:
    required: list[str] = check.parameters.model_json_schema().get("required", [])
    return required


def _parameters(check: Check) -> dict[str, Any]:
    """The definition of a check's parameters, and of what they are made of."""
    schema = check.parameters.model_json_schema(ref_template=_REF)
    below = schema.pop("$defs", {})
    _describe(schema, check.parameters)
    return {check.parameters.__name__: schema, **below}


def _models(*roots: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The models that `roots` are made of, and they themselves."""
    waiting, seen = list(roots), set()
    while waiting:
        model = waiting.pop()
        if model in seen:
            continue
        seen.add(model)
        yield model
        for field in model.model_fields.values():
            waiting += _inside(field.annotation)


def _inside(annotation: Any) -> list[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _inside(part)]


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Give a model's schema its docstring's first sentence, and its properties what `Attributes:` says of them."""
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        texts |= _attributes(inspect.cleandoc(base.__dict__.get("__doc__") or ""))
    lines = inspect.cleandoc(model.__doc__ or "").split("\n\n")
    schema["description"] = " ".join(lines[0].split())
    aliases = {name: field.alias or name for name, field in model.model_fields.items()}
    for name, text in texts.items():
        place = schema.get("properties", {}).get(aliases.get(name, ""))
        if place is not None:
            place["description"] = text


def _attributes(doc: str) -> dict[str, str]:
    """What a docstring's `Attributes:` says, by name."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in doc.partition("Attributes:\n")[2].split("\n"):
        if not line.startswith("    "):
            names = []
        elif begun := _ATTRIBUTE.match(line):
            names = begun[1].split(", ")
            found |= dict.fromkeys(names, begun[2])
        else:
            for name in names:
                found[name] += f" {line.strip()}"
    return found


def _finished(value: Any, *, names: bool = False) -> Any:
    """The schema without pydantic's titles, which repeat the keys, and with references to what is defined here.

    Args:
        value: a part of the schema.
        names: whether its keys are names of a suite's own: one may be called title.
    """
    if isinstance(value, list):
        return [_finished(held) for held in value]
    if not isinstance(value, Mapping):
        return value
    if not names and "defined" in value:
        rest = {key: held for key, held in value.items() if key not in {"defined", "title"}}
        return {"allOf": [{"$ref": _ref(value["defined"])}], **rest} if rest else {"$ref": _ref(value["defined"])}
    finished = {
        key: _finished(held, names=not names and key in {"properties", "patternProperties", "definitions"})
        for key, held in value.items()
        if key != "title" or names
    }
    # What no pattern takes is no name.
    return {**finished, "additionalProperties": False} if not names and "patternProperties" in value else finished
