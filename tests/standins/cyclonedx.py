"""CycloneDX's own JSON schema, as the judge of SBOMs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cyclonedx.schema
from jsonschema import Draft7Validator
from referencing import Registry, Resource

_FOLDER = Path(cyclonedx.schema.__file__).parent / "_res"


def schema_errors(document: dict[str, Any]) -> list[str]:
    """What the schema of CycloneDX 1.6 has against a document; it is read from files, never fetched."""

    parts = {path.name: json.loads(path.read_text()) for path in _FOLDER.glob("*.SNAPSHOT.schema.json")}
    registry: Registry[Any] = Registry().with_resources(
        (f"http://cyclonedx.org/schema/{name}", Resource.from_contents(content)) for name, content in parts.items()
    )
    validator = Draft7Validator(parts["bom-1.6.SNAPSHOT.schema.json"], registry=registry)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
