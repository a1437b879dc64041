"""The images that gpurig made and an engine has."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from gpurig.common.errors import PrerequisiteError
from gpurig.common.version import __version__
from gpurig.images.job_image import LABEL_ARCHS, LABEL_MODELS, LABEL_TARGET
from gpurig.images.plan import LABEL_BACKEND, LABEL_HASH, LABEL_VERSION
from gpurig.provisioning.engine import translated

if TYPE_CHECKING:
    import docker
    from docker.models.images import Image

# "other" is of this version and for another box, another base, or other sources; "old" of another version.
Standing = Literal["current", "other", "old"]


@dataclass(frozen=True)
class ListedImage:
    """An image of gpurig's on an engine.

    Attributes:
        tag: the name by its content; another one where it lost that.
        names: further names, a registry's among them.
        backend: "cuda", "rocm", "cpu"; "" for the exporter's image.
        target: "eval" or "finetune"; "" for the exporter's image.
        archs: "sm-89", "gfx1100".
        models: the file names of the models that it carries.
        version: gpurig's that made it.
        size_bytes: on the disk, with what it shares with others.
        standing: what this box makes of it.
    """

    tag: str
    id: str
    names: tuple[str, ...]
    backend: str
    target: str
    archs: tuple[str, ...]
    models: tuple[str, ...]
    version: str
    size_bytes: int
    created: datetime
    standing: Standing


def find_image(client: docker.DockerClient, tag: str) -> Image:
    """An image that the engine has.

    Raises:
        PrerequisiteError: it has none of that name, or does not answer.
    """
    import docker.errors  # noqa: PLC0415 - heavy

    with translated(f"looking for the image {tag}"):
        try:
            return client.images.get(tag)
        except docker.errors.ImageNotFound as error:
            raise PrerequisiteError(
                f"the engine has no image {tag}",
                hint="gpurig images build builds it; gpurig images list shows what is there",
            ) from error


def list_images(client: docker.DockerClient, current: Collection[str]) -> tuple[ListedImage, ...]:
    """What the engine has, current ones first, then the newest.

    Args:
        client: the engine.
        current: the tags that this box would build now.

    Raises:
        PrerequisiteError: the engine does not answer.
    """
    with translated("listing images"):
        # Not images.list(), which asks for each image by itself.
        found = client.api.images(filters={"label": LABEL_HASH})
    listed = [one for raw in found if (one := _listed(raw, current))]
    return tuple(sorted(listed, key=lambda one: (one.standing != "current", -one.created.timestamp(), one.tag)))


def _listed(raw: dict[str, object], current: Collection[str]) -> ListedImage | None:
    tags = raw.get("RepoTags")
    names = [str(tag) for tag in tags if tag != "<none>:<none>"] if isinstance(tags, list) else []
    labels = raw.get("Labels")
    if not names or not isinstance(labels, dict):
        # A step of the classic builder, which is its cache.
        return None
    content = str(labels.get(LABEL_HASH, ""))
    own = [name for name in names if "/" not in name and content.startswith(name.rpartition(":")[2])]
    tag = (own or names)[0]
    version = str(labels.get(LABEL_VERSION, ""))
    return ListedImage(
        tag=tag,
        id=str(raw.get("Id", "")),
        names=tuple(name for name in names if name != tag),
        backend=str(labels.get(LABEL_BACKEND, "")),
        target=str(labels.get(LABEL_TARGET, "")),
        archs=tuple(str(labels.get(LABEL_ARCHS, "")).split()),
        models=_models(str(labels.get(LABEL_MODELS, ""))),
        version=version,
        size_bytes=int(str(raw.get("Size", 0))),
        created=datetime.fromtimestamp(int(str(raw.get("Created", 0))), UTC),
        standing="current" if tag in current else "other" if version == __version__ else "old",
    )


def _models(label: str) -> tuple[str, ...]:
    try:
        models = json.loads(label or "{}")
    except ValueError:
        return ()
    return tuple(sorted(models)) if isinstance(models, dict) else ()
