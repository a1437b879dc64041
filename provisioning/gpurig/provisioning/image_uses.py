"""Which instances of gpurig need an image: told to the engine by a further name of the image.

The engine is the one place that instances under different roots share, and a name can be added and removed while
containers run.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gpurig.provisioning.engine import translated

if TYPE_CHECKING:
    import docker

_PREFIX = "gpurig-uses/"
_CONFLICT = 409


def users_of(client: docker.DockerClient, name: str) -> frozenset[str]:
    """The box ids of the instances that need the image of that name; none where the engine lacks it."""
    import docker.errors  # noqa: PLC0415 - heavy

    with translated(f"looking for the image {name}"):
        try:
            tags = client.images.get(name).tags
        except docker.errors.ImageNotFound:
            return frozenset()
    end = f":{_hash(name)}"
    return frozenset(
        tag.removeprefix(_PREFIX).removesuffix(end) for tag in tags if tag.startswith(_PREFIX) and tag.endswith(end)
    )


def use(client: docker.DockerClient, name: str, user: str) -> None:
    """Say that the instance `user` needs it; nothing where that is known."""
    with translated(f"marking the image {name} as used"):
        client.api.tag(name, f"{_PREFIX}{user}", _hash(name))


def release(client: docker.DockerClient, name: str, user: str) -> None:
    """Say that it does not any more; nothing where it never did, or the image is gone."""
    import docker.errors  # noqa: PLC0415

    with translated(f"releasing the image {name}"):
        try:
            client.images.remove(f"{_PREFIX}{user}:{_hash(name)}", noprune=True)
        except docker.errors.ImageNotFound:
            return
        except docker.errors.APIError as error:
            # It was the image's last name, and a container runs from it.
            if error.status_code != _CONFLICT:
                raise


def _hash(name: str) -> str:
    """A tag that stands for an image's name: an image may have several."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]
