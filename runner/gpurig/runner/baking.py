"""What `gpurig images build --model` does: the models of this box, and the image that carries them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable
from typing import Any

import click

from gpurig.common.models.resolving import Place, Search, cache_folder
from gpurig.common.models.sources import bundled_folder
from gpurig.common.progress import ByteProgress
from gpurig.common.terminal import harmless
from gpurig.images.baking import baked_tag, ensure_baked
from gpurig.images.model_layer import ModelLayer, model_layer
from gpurig.provisioning.docker_engine import DockerEngine
from gpurig.provisioning.engine import translated
from gpurig.provisioning.paths import Paths


def models_to_bake(names: Iterable[str], licenses: Collection[str], paths: Paths) -> ModelLayer | None:
    """The layer with models that this box has, each hashed now; None where every image has them already.

    Args:
        names: as suites have them.
        licenses: names of licenses that the user accepts.
        paths: of the instance whose folder of models is looked in first.

    Raises:
        InputError: a damaged model, or one whose license is not accepted. PrerequisiteError: no folder has it.
    """
    places = (
        Place("box", paths.models),
        Place("cache", cache_folder(os.environ)),
        Place("bundled", bundled_folder()),
    )
    search = Search(places, without_fetch="; `gpurig models pull` brings those of the catalogue", elsewhere="")
    layer = model_layer(names, search, allowed_licenses=licenses)
    for note in layer.notes:
        click.echo(f"gpurig: {harmless(note)}", err=True)
    return layer if layer.files else None


def bake(engine: DockerEngine, image: dict[str, Any], layer: ModelLayer) -> dict[str, Any]:
    """The image with the models, as the document of the image that it stands on with what differs.

    Raises:
        InputError, PrerequisiteError: see ensure_baked.
    """
    started, sent = time.monotonic(), 0
    with contextlib.ExitStack() as shown:
        progress: ByteProgress | None = None

        def count(size: int) -> None:
            # From the first byte on: there is none where the engine has the image.
            nonlocal sent, progress
            progress = progress or shown.enter_context(ByteProgress("baking", layer.size_bytes))
            sent += size
            progress.reach(sent)

        had = ensure_baked(engine.client, image["tag"], layer, on_bytes=count)
    with translated("looking at the image"):
        size = int(engine.client.images.get(had.id).attrs.get("Size", 0))
    return {
        **image,
        "tag": had.tag,
        "id": had.id,
        "size_bytes": size,
        "built": had.built,
        "models": layer.models,
        "seconds": round(time.monotonic() - started, 1),
    }


def baking_document(tag: str, layer: ModelLayer | None) -> dict[str, Any]:
    """What a plan says of the models; nothing where none are baked."""
    return {} if layer is None else {"baked_tag": baked_tag(tag, layer), "models": layer.models}
