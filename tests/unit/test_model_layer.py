"""Names become the files of an image's layer of models, and the same models are the same layer."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.models.origin import Origin, PinnedFile, write_origin
from gpurig.common.models.resolving import Place, Search, find_model
from gpurig.common.models.sources import bundled_folder
from gpurig.images.model_layer import ModelLayer, model_layer
from standins.pulling import digest
from standins.tiny_gguf import write_tiny_gguf


def pulled(folder: Path, name: str, *, seed: int = 1, license_: str = "MIT") -> Path:
    file = write_tiny_gguf(folder / f"{name}.gguf", seed=seed)
    data = file.read_bytes()
    files = (PinnedFile(file.name, digest(data), len(data)),)
    write_origin(folder, name, Origin("hf:a/b/m.gguf", "c" * 40, license_, "2026-11-25T00:00:00Z", files))
    return file


def layer(folder: Path, *names: str, **options: object) -> ModelLayer:
    return model_layer(names, Search.of_folders(folder), **options)  # type: ignore[arg-type]  # its options


def test_the_layer_holds_the_models_and_the_records_of_their_pulls(tmp_path: Path) -> None:
    file = pulled(tmp_path, "a")
    pulled(tmp_path, "b", seed=2)
    made = layer(tmp_path, "b", "a")
    assert made.folder == PurePosixPath("/opt/gpurig/models")
    assert [str(each.target) for each in made.files] == ["a.gguf", "a.origin.json", "b.gguf", "b.origin.json"]
    assert made.models["a.gguf"] == digest(file.read_bytes())
    assert made.size_bytes == sum(each.path.stat().st_size for each in made.files)


def test_what_is_copied_is_found_in_the_image_under_the_same_name(tmp_path: Path) -> None:
    pulled(tmp_path / "box", "a")
    image = tmp_path / "image"
    image.mkdir()
    for each in layer(tmp_path / "box", "a").files:
        (image / each.target).write_bytes(each.path.read_bytes())
    found = find_model("a", (Place("image", image), Place("volume", tmp_path / "box")))
    assert (found.kind, found.others, found.origin.source) == ("image", (), "hf:a/b/m.gguf")


def test_the_same_models_are_the_same_layer_and_other_bytes_another(tmp_path: Path) -> None:
    pulled(tmp_path / "1", "a")
    pulled(tmp_path / "2", "a")
    pulled(tmp_path / "3", "a", seed=2)
    digests = [layer(tmp_path / folder, "a").digest for folder in "123"]
    assert digests[0] == digests[1] != digests[2]


def test_a_record_of_a_file_that_was_replaced_stays_behind(tmp_path: Path) -> None:
    pulled(tmp_path, "a")
    write_tiny_gguf(tmp_path / "a.gguf", seed=9)
    assert [str(each.target) for each in layer(tmp_path, "a").files] == ["a.gguf"]


def test_a_bundled_model_is_in_every_image_already() -> None:
    made = model_layer(["demo-grader"], Search((Place("bundled", bundled_folder()),)))
    assert made.files == ()


def test_an_image_gives_its_models_to_others_so_licenses_count(tmp_path: Path) -> None:
    pulled(tmp_path, "a", license_="gemma")
    with pytest.raises(InputError, match="gives the model to others") as caught:
        layer(tmp_path, "a")
    assert "--allow-license gemma" in caught.value.hint
    assert layer(tmp_path, "a", allowed_licenses=["gemma"]).notes
    write_tiny_gguf(tmp_path / "mine.gguf")
    with pytest.raises(InputError, match="not known"):
        layer(tmp_path, "mine")


def test_a_model_that_nobody_has_or_that_is_damaged_is_said_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match='no model "a"'):
        layer(tmp_path, "a")
    file = pulled(tmp_path, "a")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match="damaged"):
        layer(tmp_path, "a")
