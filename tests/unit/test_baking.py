"""The stream that puts models into an image, without an engine."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.files import sha256_file
from gpurig.common.models.origin import Origin, PinnedFile, write_origin
from gpurig.common.models.resolving import Search
from gpurig.images.baking import baked_tag, layer_tar
from gpurig.images.model_bom import models_bom
from gpurig.images.model_layer import ModelLayer, model_layer
from standins.cyclonedx import schema_errors
from standins.tiny_gguf import write_tiny_gguf


def _layer(folder: Path, *names: str) -> ModelLayer:
    return model_layer(names, Search.of_folders(folder), allowed_licenses=("unknown",))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for seed, name in enumerate("ab"):
        write_tiny_gguf(tmp_path / f"{name}.gguf", seed=seed + 1)
    return tmp_path


def test_the_tar_holds_every_file_as_it_is_and_nobody_but_root_may_write_it(models: Path) -> None:
    layer = _layer(models, "a", "b")
    sent: list[int] = []
    with tarfile.open(fileobj=io.BytesIO(b"".join(layer_tar(layer, sent.append)))) as archive:
        entries = {entry.name: entry for entry in archive}
        assert list(entries) == [
            "opt",
            "opt/gpurig",
            "opt/gpurig/models",
            *(f"opt/gpurig/models/{name}.gguf" for name in "ab"),
            "opt/gpurig/models.cdx.json",
        ]
        for name in "ab":
            held = archive.extractfile(f"opt/gpurig/models/{name}.gguf")
            assert held is not None
            assert held.read() == (models / f"{name}.gguf").read_bytes()
    assert {(entry.uid, entry.gid, entry.mtime, entry.mode & 0o022) for entry in entries.values()} == {(0, 0, 0, 0)}
    assert sum(sent) == layer.size_bytes


def test_the_layers_own_bill_of_materials_names_each_model_with_hash_license_and_source(models: Path) -> None:
    pinned = PinnedFile("a.gguf", sha256_file(models / "a.gguf"), (models / "a.gguf").stat().st_size)
    write_origin(models, "a", Origin("hf:me/it/a.gguf", "c0ffee", "apache-2.0", "2026-01-01T00:00:00Z", (pinned,)))
    document = json.loads(models_bom(_layer(models, "a", "b").files))
    assert schema_errors(document) == []
    assert [one["name"] for one in document["components"]] == ["a.gguf", "b.gguf"]
    [first, second] = document["components"]
    assert first["hashes"] == [{"alg": "SHA-256", "content": pinned.sha256}]
    assert first["licenses"] == [{"license": {"name": "apache-2.0"}}]
    assert first["properties"] == [{"name": "io.gpurig:source", "value": "hf:me/it/a.gguf@c0ffee"}]
    assert "licenses" not in second


def test_equal_models_are_an_equal_stream_wherever_they_lie(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    for name in "ab":
        (other / f"{name}.gguf").write_bytes((models / f"{name}.gguf").read_bytes())
    assert b"".join(layer_tar(_layer(models, "a", "b"))) == b"".join(layer_tar(_layer(other, "b", "a")))


@pytest.mark.parametrize("change", [b"", b"longer than it was", None])
def test_a_file_that_is_another_by_now_is_refused(models: Path, change: bytes | None) -> None:
    layer, file = _layer(models, "a"), models / "a.gguf"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if change is None else (data + change if change else data[:-5]))
    with pytest.raises(InputError, match="changed while it was read"):
        b"".join(layer_tar(layer))


def test_a_file_that_is_gone_is_said(models: Path) -> None:
    layer = _layer(models, "a")
    (models / "a.gguf").unlink()
    with pytest.raises((InputError, PrerequisiteError), match=r"a\.gguf"):
        b"".join(layer_tar(layer))


def test_the_name_says_that_there_are_models_and_follows_from_image_and_models(models: Path) -> None:
    one, both = _layer(models, "a"), _layer(models, "a", "b")
    names = {baked_tag(tag, layer) for tag in ("gpurig-job-cpu:0123", "gpurig-job-cpu:4567") for layer in (one, both)}
    assert len(names) == 4
    assert {name.partition(":")[0] for name in names} == {"gpurig-job-cpu-models"}
