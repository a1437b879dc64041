"""Models baked into a job image: one more layer upon it, which every engine can add and no build has to read.

A box's jobs see its models folder; a runner elsewhere (GitLab.com's) has none, and an image that carries its models is
pulled once and needs no download in a job. The files go from disk to the engine as a stream: a model has gigabytes.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from gpurig.common.errors import InputError
from gpurig.common.files import read_problem
from gpurig.images.build import BuiltImage, present
from gpurig.images.job_image import LABEL_MODELS
from gpurig.images.model_bom import PLACE, models_bom
from gpurig.images.model_layer import LayerFile, ModelLayer
from gpurig.provisioning.engine import translated

if TYPE_CHECKING:
    import docker

_CHUNK = 2**20


def baked_tag(tag: str, layer: ModelLayer) -> str:
    """The name of the image `tag` with the models of `layer`: what it is made of decides it, as for every image."""
    name, _, content = tag.rpartition(":")
    bom = hashlib.sha256(models_bom(layer.files)).hexdigest()
    return f"{name}-models:{hashlib.sha256(f'{content} {layer.digest} {bom}'.encode()).hexdigest()[:16]}"


def ensure_baked(
    client: docker.DockerClient, tag: str, layer: ModelLayer, *, on_bytes: Callable[[int], None] = lambda _: None
) -> BuiltImage:
    """The image `tag` with the models, unless the engine has it.

    An interrupted one leaves no image and no container.

    Args:
        client: the engine, which has `tag`.
        tag: the job image.
        layer: the models.
        on_bytes: called with the bytes of each piece that the engine got.

    Raises:
        InputError: a file changed while it was read. PrerequisiteError: it cannot be read, or the engine failed.
    """
    baked = baked_tag(tag, layer)
    there = present(client, baked)
    if there:
        return BuiltImage(tag=baked, id=there, built=False)
    with translated("baking models into an image"):
        base = client.images.get(tag)
        container = client.containers.create(str(base.id))
        try:
            container.put_archive("/", layer_tar(layer, on_bytes))
            models = {**json.loads(base.labels.get(LABEL_MODELS) or "{}"), **layer.models}
            # A label's value in quotes, with backslashes before those inside: JSON writes the same.
            change = f"LABEL {LABEL_MODELS}={json.dumps(json.dumps(models, sort_keys=True))}"
            name, _, content = baked.rpartition(":")
            image = container.commit(name, content, changes=[change])
        finally:
            container.remove(force=True)
    return BuiltImage(tag=baked, id=str(image.id), built=True)


def layer_tar(layer: ModelLayer, on_bytes: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    """The layer as a tar, piece by piece: no times, root's, so that equal models are an equal layer.

    Raises:
        InputError: a file is not what it was when the layer was planned. PrerequisiteError: it cannot be read.
    """
    # The folders above too: the engine would give those it touches the time of today, and each layer another hash.
    for folder in (*reversed(layer.folder.parents), layer.folder):
        if folder.name:
            entry = tarfile.TarInfo(str(folder).lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            yield entry.tobuf(tarfile.GNU_FORMAT)
    for file in layer.files:
        entry = tarfile.TarInfo(str(layer.folder / file.target).lstrip("/"))
        entry.size, entry.mode = file.size_bytes, 0o644
        yield entry.tobuf(tarfile.GNU_FORMAT)
        for piece in _pieces(file):
            on_bytes(len(piece))
            yield piece
        yield b"\0" * (-file.size_bytes % tarfile.BLOCKSIZE)
    bom = models_bom(layer.files)
    entry = tarfile.TarInfo(str(PLACE).lstrip("/"))
    entry.size, entry.mode = len(bom), 0o644
    yield entry.tobuf(tarfile.GNU_FORMAT) + bom + b"\0" * (-len(bom) % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _pieces(file: LayerFile) -> Iterator[bytes]:
    digest, size = hashlib.sha256(), 0
    try:
        with file.path.open("rb") as stream:
            while piece := stream.read(_CHUNK):
                size += len(piece)
                digest.update(piece)
                if size > file.size_bytes:
                    break
                yield piece
    except OSError as error:
        raise read_problem(file.path, error) from error
    if digest.hexdigest() != file.sha256:
        raise InputError(f"{file.path} changed while it was read", hint="run it again when nothing writes to it")
