"""Pushing an image of the engine to a registry, layer by layer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpurig.common.errors import PrerequisiteError
from gpurig.images.build_events import clean
from gpurig.images.listing import find_image
from gpurig.images.registry import Login, Place, push_problem
from gpurig.provisioning.engine import translated

if TYPE_CHECKING:
    import docker

# Moves with every push of an image of that name; the content hash beside it never does.
MOVING_TAG = "latest"
_SENT, _THERE = "Pushed", ("Layer already exists", "Mounted from")


@dataclass(frozen=True)
class Layer:
    """A layer on its way.

    Attributes:
        id: the short one that the engine shows.
        state: "waiting", "sending", "retrying", "sent" or "present" (the registry had it).
        sent_bytes: what went out so far, before compression; all of it where it is "sent".
        total_bytes: its size before compression; 0 where not yet told.
    """

    id: str
    state: str
    sent_bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True)
class Pushed:
    """An image that a registry has now.

    Attributes:
        names: under which it is there: by content, and the one that moves.
        digest: of its manifest, "sha256:…".
        layers: each with what was done about it.
    """

    names: tuple[str, ...]
    digest: str
    layers: tuple[Layer, ...]


@dataclass
class PushReader:
    """Reads the events of the engine's push.

    Attributes:
        layers: by id, in the order in which the engine named them.
        digest: the manifest's; "" until the end.
        error: the engine's words where it failed.
    """

    layers: dict[str, Layer] = field(default_factory=dict)
    digest: str = ""
    error: str = ""

    def feed(self, event: Mapping[str, Any]) -> Layer | None:
        """The layer that an event is about, as it is now."""
        if event.get("error"):
            self.error = clean(" ".join(str(event["error"]).split()))
        aux = event.get("aux")
        if isinstance(aux, dict):
            self.digest = str(aux.get("Digest", ""))
        name, status = str(event.get("id", "")), str(event.get("status", ""))
        detail = event.get("progressDetail")
        # The last event has the tag for an id, and no detail.
        if not name or not isinstance(detail, dict):
            return None
        known = self.layers.get(name, Layer(name, "waiting"))
        total = max(int(detail.get("total") or 0), int(detail.get("current") or 0), known.total_bytes)
        if status == _SENT:
            layer = Layer(name, "sent", total, total)
        elif status.startswith(_THERE):
            layer = Layer(name, "present", 0, total)
        elif status.startswith("Retrying"):
            layer = Layer(name, "retrying", 0, total)
        elif status == "Pushing":
            layer = Layer(name, "sending", int(detail.get("current") or 0), total)
        else:
            layer = Layer(name, known.state, known.sent_bytes, total)
        self.layers[name] = layer
        return layer


def push_image(
    client: docker.DockerClient,
    tag: str,
    place: Place,
    *,
    login: Login | None,
    on_layer: Callable[[Layer], None] = lambda _: None,
) -> Pushed:
    """Push an image under the name of its content, then under one that moves with every push.

    The engine sends no layer that the registry has. Its names in the registry are not left on the engine.

    Args:
        client: the engine.
        tag: the image on it, "gpurig-job-cpu:0123456789abcdef".
        place: where to.
        login: None for what Docker's configuration knows of that registry.
        on_layer: called with a layer whenever something about it has changed.

    Raises:
        PrerequisiteError: the engine lacks the image or does not answer, or does not trust the registry.
        RemoteError: the registry refuses, or is not reached.
    """
    repository, _, version = tag.rpartition(":")
    name = place.name(repository.rpartition("/")[2])
    image = find_image(client, tag)
    names = tuple(f"{name}:{one}" for one in (version, MOVING_TAG))
    first = PushReader()
    for full in names:
        reader = first if full == names[0] else PushReader()
        with _named(client, image, full):
            for event in _events(client, full, login):
                layer = reader.feed(event)
                if layer is not None and reader is first:
                    on_layer(layer)
                if reader.error:
                    raise push_problem(full, place, reader.error)
    return Pushed(names=names, digest=first.digest, layers=tuple(first.layers.values()))


def _events(client: docker.DockerClient, full: str, login: Login | None) -> Iterator[Mapping[str, Any]]:
    import urllib3  # noqa: PLC0415

    repository, _, tag = full.rpartition(":")
    credentials = {"username": login.username, "password": login.password} if login else None
    try:
        with translated(f"pushing {full}"):
            yield from client.api.push(repository, tag=tag, stream=True, decode=True, auth_config=credentials)
    except urllib3.exceptions.HTTPError as error:
        # docker-py reads the stream below requests.
        raise PrerequisiteError(
            f"pushing {full}: the engine went away ({type(error).__name__})", hint="check that it runs: docker version"
        ) from error


@contextlib.contextmanager
def _named(client: docker.DockerClient, image: Any, full: str) -> Iterator[None]:
    """Give the image a name for as long as it takes; one that it had before stays."""
    import docker.errors  # noqa: PLC0415

    repository, _, tag = full.rpartition(":")
    had = full in image.tags
    with translated(f"naming the image {full}"):
        image.tag(repository, tag)
    try:
        yield
    finally:
        if not had:
            with translated(f"taking back the name {full}"), contextlib.suppress(docker.errors.ImageNotFound):
                client.images.remove(full, noprune=True)
