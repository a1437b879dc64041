"""The bill of materials of a layer of models: CycloneDX 1.6, beside that of the programs (assets/steps/about.py).

It lies in the models' own layer and depends on nothing but the models, so the layer is the same upon every image.
The format: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from gpurig.images.model_layer import LayerFile

# Beside sbom.cdx.json of the image below.
PLACE = PurePosixPath("/opt/gpurig/models.cdx.json")


def models_bom(files: Iterable[LayerFile]) -> bytes:
    """The document; equal models give equal bytes, so it has no time in it."""
    components = [_component(file) for file in files if file.target.suffix == ".gguf"]
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "data", "name": "models", "bom-ref": "models"}},
        "components": components,
    }
    content = json.dumps(document, sort_keys=True).encode()
    document["serialNumber"] = uuid.UUID(hashlib.sha256(content).hexdigest()[:32], version=4).urn
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _component(file: LayerFile) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "name": file.target.name,
        "bom-ref": f"machine-learning-model:{file.target.name}",
        "hashes": [{"alg": "SHA-256", "content": file.sha256}],
    }
    if file.license:
        # By name: a vendor's own license has no SPDX identifier.
        component["licenses"] = [{"license": {"name": file.license}}]
    if file.source:
        component["properties"] = [{"name": "io.gpurig:source", "value": file.source}]
    return component
