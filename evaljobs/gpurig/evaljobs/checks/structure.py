"""Checks on the structure of an answer: yaml, json, json-schema, gitlab-ci, github-workflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from gpurig.evaljobs.checks import schemas
from gpurig.evaljobs.checks.documents import Read, read_json, read_yaml, texts_as_keys
from gpurig.evaljobs.checks.gitlab.configuration import with_references
from gpurig.evaljobs.checks.parameters import Parameters
from gpurig.evaljobs.checks.subject import Answer, Extract, Finding, extract


class Document(Parameters):
    """Parameters of checks on a document: which part of the answer it is."""

    extract: Extract = "code-block"


class Json(Document):
    """Parameters of `json`.

    Attributes:
        type: what the whole document must be.
    """

    type: Literal["any", "object", "array"] = "any"


class JsonSchema(Document):
    """Parameters of `json-schema`.

    Attributes:
        schema_: the schema itself, or the name of its file (JSON or YAML), relative to the suite's folder.
        format: what the document is written in.
    """

    schema_: dict[str, Any] | str = Field(alias="schema")
    format: Literal["json", "yaml"] = "json"

    @field_validator("schema_")
    @classmethod
    def _usable(cls, schema: dict[str, Any] | str) -> dict[str, Any] | str:
        if isinstance(schema, dict):
            try:
                schemas.validator(schema)
            except schemas.SchemaError as error:
                raise ValueError(str(error)) from error
        return schema

    def files(self) -> tuple[str, ...]:
        """The schema's file."""
        return (self.schema_,) if isinstance(self.schema_, str) else ()

    def problem(self, folder: Path) -> str:
        """Why the schema's file is none."""
        try:
            self.validator(folder)
        except schemas.SchemaError as error:
            return str(error)
        return ""

    def validator(self, folder: Path) -> Any:
        """What holds data against it.

        Raises:
            SchemaError: it cannot be used.
        """
        if isinstance(self.schema_, str):
            return schemas.of_file(folder / self.schema_)
        return schemas.of_text(json.dumps(self.schema_))


def is_yaml(answer: Answer, parameters: Document) -> Finding:
    """Fails where the answer is no YAML, or nothing but a line of text (which YAML would allow)."""
    return Finding(_yaml(answer, parameters).problem)


def is_json(answer: Answer, parameters: Json) -> Finding:
    """Fails where the answer is no JSON, or not of the wanted type."""
    read = _json(answer, parameters)
    kinds = {"object": dict, "array": list}
    if not read.problem and parameters.type != "any" and not isinstance(read.data, kinds[parameters.type]):
        return Finding(f"expected a JSON {parameters.type}, found {_kind(read.data)}")
    return Finding(read.problem)


def follows_json_schema(answer: Answer, parameters: JsonSchema) -> Finding:
    """Fails where the answer breaks the suite's schema; says at which path and how."""
    read = _json(answer, parameters) if parameters.format == "json" else _yaml(answer, parameters, "1.2")
    if read.problem:
        return Finding(read.problem)
    try:
        schema = parameters.validator(answer.folder)
    except schemas.SchemaError as error:
        return Finding(f"the schema cannot be used: {error}")
    return Finding(schemas.worst(schema, texts_as_keys(read.data)))


def is_gitlab_ci(answer: Answer, parameters: Document) -> Finding:
    """Fails where the answer breaks GitLab's JSON schema of .gitlab-ci.yml; says at which path and how.

    The schema is the one GitLab publishes, as check-jsonschema carries it. A `!reference` is what it names.
    """
    read = _yaml(answer, parameters)
    if read.problem:
        return Finding(read.problem)
    if not isinstance(read.data, dict):
        return Finding("the top of .gitlab-ci.yml must be a mapping of jobs")
    data = texts_as_keys(with_references(read.data))
    return Finding(schemas.worst(schemas.published("vendor.gitlab-ci"), data))


def is_github_workflow(answer: Answer, parameters: Document) -> Finding:
    """Fails where the answer breaks the schema of GitHub's workflow files; says at which path and how.

    The schema is SchemaStore's, as check-jsonschema carries it. GitHub reads YAML 1.2: `on` is text there.
    """
    read = _yaml(answer, parameters, "1.2")
    if read.problem:
        return Finding(read.problem)
    if not isinstance(read.data, dict):
        return Finding("the top of a workflow must be a mapping")
    return Finding(schemas.worst(schemas.published("vendor.github-workflows"), texts_as_keys(read.data)))


def _yaml(answer: Answer, parameters: Document, version: str = "1.1") -> Read:
    return read_yaml(extract(answer.output, parameters.extract), version=version)


def _json(answer: Answer, parameters: Document) -> Read:
    return read_json(extract(answer.output, parameters.extract))


def _kind(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    return "a text" if isinstance(value, str) else "a number"
