"""Models baked into an image on a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gpurig.common.errors import InputError
from gpurig.common.files import sha256_file
from gpurig.common.models.resolving import Search
from gpurig.images import baking
from gpurig.images.baking import baked_tag, ensure_baked
from gpurig.images.model_layer import ModelLayer, model_layer
from standins.tiny_gguf import write_tiny_gguf

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker


@pytest.fixture
def layer(tmp_path: Path) -> ModelLayer:
    write_tiny_gguf(tmp_path / "baked-here.gguf", seed=77)
    return model_layer(["baked-here"], Search.of_folders(tmp_path), allowed_licenses=("unknown",))


@pytest.fixture
def bases(engine: docker.DockerClient, base_image: str) -> Iterator[list[str]]:
    """Two images that differ in a label alone, named as ours are."""
    from docker.errors import ImageNotFound

    names = []
    for number in "12":
        container = engine.containers.create(base_image, user="1000:1000")
        try:
            change = [f'LABEL io.gpurig.models="{{\\"own.gguf\\": \\"{number * 64}\\"}}"', "USER 1000:1000"]
            container.commit("gpurig-bake-base", number, changes=change)
        finally:
            container.remove()
        names.append(f"gpurig-bake-base:{number}")
    yield names
    for image in engine.images.list("gpurig-bake-base-models"):
        names += image.tags
    for name in names:
        try:
            engine.images.remove(name, force=True)
        except ImageNotFound:
            continue


def test_the_image_carries_the_model_where_jobs_look_for_it(engine, bases, layer, tmp_path):
    sent: list[int] = []
    made = ensure_baked(engine, bases[0], layer, on_bytes=sent.append)
    assert (made.built, made.tag, sum(sent)) == (True, baked_tag(bases[0], layer), layer.size_bytes)
    said = engine.containers.run(
        made.tag, ["sh", "-c", "sha256sum /opt/gpurig/models/*; stat -c '%U %a' /opt/gpurig/models/*"], remove=True
    ).decode()
    wanted = sha256_file(tmp_path / "baked-here.gguf")
    assert said.split() == [wanted, "/opt/gpurig/models/baked-here.gguf", "root", "644"]
    image = engine.images.get(made.tag)
    assert json.loads(image.labels["io.gpurig.models"]) == {"own.gguf": "1" * 64, "baked-here.gguf": wanted}
    assert image.attrs["Config"]["User"] == "1000:1000"
    again = ensure_baked(engine, bases[0], layer, on_bytes=pytest.fail)
    assert (again.built, again.id) == (False, made.id)


def test_the_models_are_one_layer_and_the_same_one_upon_every_image(engine, bases, layer):
    layers = []
    for base in bases:
        image = engine.images.get(ensure_baked(engine, base, layer).tag)
        below, held = engine.images.get(base).attrs["RootFS"]["Layers"], image.attrs["RootFS"]["Layers"]
        assert held[:-1] == below
        layers.append(held[-1])
    # What a registry has of the one it need not be sent for the other.
    assert layers[0] == layers[1]


def test_a_file_that_changes_leaves_no_image_and_no_container(engine, bases, layer, tmp_path):
    before = {container.id for container in engine.containers.list(all=True)}
    (tmp_path / "baked-here.gguf").write_bytes(b"other bytes")
    with pytest.raises(InputError, match="changed while it was read"):
        ensure_baked(engine, bases[0], layer)
    assert not engine.images.list("gpurig-bake-base-models")
    assert {container.id for container in engine.containers.list(all=True)} <= before


def test_an_engine_that_fails_half_way_leaves_nothing(engine, bases, layer, monkeypatch):
    def broken(*_: object) -> Iterator[bytes]:
        yield b"no tar at all" * 1000
        raise KeyboardInterrupt

    monkeypatch.setattr(baking, "layer_tar", broken)
    before = {container.id for container in engine.containers.list(all=True)}
    with pytest.raises(KeyboardInterrupt):
        ensure_baked(engine, bases[0], layer)
    assert not engine.images.list("gpurig-bake-base-models")
    assert {container.id for container in engine.containers.list(all=True)} <= before
