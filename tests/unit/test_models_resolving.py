"""Which file a name means: image layer, volume, cache, download, in that order, and what is said of the others."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.common.models.catalogue import Catalogue
from gpurig.common.models.fetching import site_catalogues
from gpurig.common.models.origin import Origin, PinnedFile, origin_path, read_origin, write_origin
from gpurig.common.models.resolving import (
    Found,
    Place,
    Search,
    cache_folder,
    find_model,
    standard_places,
)
from gpurig.common.models.sources import bundled_folder
from gpurig.evaljobs.models import model_sha256, open_model
from gpurig.provisioning.facts import HostFacts
from gpurig.runner.models_here import look
from standins.pulling import digest
from standins.tiny_gguf import write_tiny_gguf

KINDS = ("image", "volume", "cache")


def places(root: Path) -> tuple[Place, ...]:
    return tuple(Place(kind, root / kind) for kind in KINDS)


def test_the_order_is_given_image_volume_box_cache(tmp_path: Path) -> None:
    found = standard_places((tmp_path,), tmp_path / "cache")
    assert [place.kind for place in found] == ["given", "image", "bundled", "volume", "box", "cache"]
    assert [str(place.folder) for place in found if place.kind in {"image", "volume", "box"}] == [
        "/opt/gpurig/models",
        "/models",
        "/var/lib/gpurig/models",
    ]
    assert found[2].folder == bundled_folder()


@pytest.mark.parametrize("count", range(1, 4))
def test_the_first_place_wins(tmp_path: Path, count: int) -> None:
    for kind in KINDS[-count:]:
        write_tiny_gguf(tmp_path / kind / "m.gguf")
    found = find_model("m", places(tmp_path))
    assert (found.kind, found.files) == (KINDS[-count], (tmp_path / KINDS[-count] / "m.gguf",))
    # The others hold the same bytes: nothing to tell.
    assert found.others == ()


def test_other_bytes_under_the_same_name_are_told(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "image" / "m.gguf")
    write_tiny_gguf(tmp_path / "volume" / "m.gguf", seed=2)
    write_tiny_gguf(tmp_path / "cache" / "m.gguf", context=100, name="longer name")
    found = find_model("m", places(tmp_path))
    assert found.kind == "image"
    assert found.others == (tmp_path / "volume" / "m.gguf", tmp_path / "cache" / "m.gguf")
    model = open_model("m", search=Search(places(tmp_path)), suite_folder=tmp_path)
    assert (model.ref.place, model.ref.others) == ("image", tuple(str(path) for path in found.others))


def test_one_file_in_two_places_is_one(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "image" / "m.gguf")
    (tmp_path / "volume").symlink_to(tmp_path / "image")
    assert find_model("m", places(tmp_path)).others == ()


def test_what_no_folder_has_is_fetched_and_what_is_there_is_not(tmp_path: Path) -> None:
    asked: list[str] = []

    def fetch(name: str) -> Found | None:
        asked.append(name)
        return Found(name, (write_tiny_gguf(tmp_path / "cache" / f"{name}.gguf"),), "download")

    search = Search(places(tmp_path), fetch)
    assert search.find("m").kind == "download"
    assert search.find("m").kind == "cache"
    assert asked == ["m"]


def test_a_name_that_is_nowhere_says_so_and_what_forbids_a_download(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match='no model "m"') as caught:
        Search(places(tmp_path), without_fetch="; --no-download forbids to fetch it").find("m")
    assert "--no-download" in caught.value.hint
    with pytest.raises(PrerequisiteError, match="no catalogue has it"):
        Search(places(tmp_path), lambda _: None).find("m")


def record(folder: Path, name: str, data: bytes, **values: str) -> Origin:
    fields = {"source": "hf:a/b/m.gguf", "revision": "c" * 40, "license": "MIT", "pulled": "2026-11-25T00:00:00Z"}
    origin = Origin(**fields | values, files=(PinnedFile(f"{name}.gguf", digest(data), len(data)),))
    write_origin(folder, name, origin)
    return origin


def test_a_record_says_where_the_file_came_from_unless_it_is_another_by_now(tmp_path: Path) -> None:
    file = write_tiny_gguf(tmp_path / "m.gguf")
    record(tmp_path, "m", file.read_bytes())
    search = Search.of_folders(tmp_path)
    assert open_model("m", search=search, suite_folder=tmp_path).ref.source == f"hf:a/b/m.gguf@{'c' * 40}"
    write_tiny_gguf(file, seed=2)
    assert open_model("m", search=search, suite_folder=tmp_path).ref.source == ""


def test_a_damaged_record_hides_the_origin_and_not_the_model(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf")
    for text in ("{", "[]", '{"version": 1}', '{"version": 9}', "\xff"):
        origin_path(tmp_path, "m").write_bytes(text.encode("latin-1"))
        assert open_model("m", search=Search.of_folders(tmp_path), suite_folder=tmp_path).ref.source == ""


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_origin(tmp_path, "m") is None
    origin = record(tmp_path, "m", b"data", license="")
    assert read_origin(tmp_path, "m") == origin


def test_a_split_models_hash_covers_every_part_in_order(tmp_path: Path) -> None:
    assert model_sha256(["a" * 64]) == "a" * 64
    assert model_sha256(["a", "b"]) == digest(b"a\nb\n")
    for number in (1, 2):
        write_tiny_gguf(tmp_path / f"m-0000{number}-of-00002.gguf", seed=number)
    whole = open_model("m", search=Search.of_folders(tmp_path), suite_folder=tmp_path)
    assert whole.path.name == "m-00001-of-00002.gguf"
    assert whole.ref.size_bytes == 2 * whole.path.stat().st_size
    shutil.copy(tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf")
    assert open_model("m", search=Search.of_folders(tmp_path), suite_folder=tmp_path).ref.sha256 != whole.ref.sha256


@pytest.fixture
def forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that this user may not look into, also where the tests run as root."""
    folder, stat, scan = tmp_path / "forbidden", os.stat, os.scandir

    def refuse(path: object) -> None:
        if str(path).startswith(str(folder)):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    def guarded(path: object = ".", *rest: object, **more: object) -> os.stat_result:
        refuse(path)
        return stat(path, *rest, **more)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr("os.stat", guarded)
    monkeypatch.setattr("os.scandir", lambda path=".": (refuse(path), scan(path))[1])
    monkeypatch.setattr("os.listdir", lambda path=".", listdir=os.listdir: (refuse(path), listdir(path))[1])
    return folder


def test_a_folder_that_this_user_may_not_see_is_passed_over(tmp_path: Path, forbidden: Path) -> None:
    write_tiny_gguf(tmp_path / "cache" / "m.gguf")
    found = find_model("m", (Place("box", forbidden), Place("cache", tmp_path / "cache")))
    assert found.kind == "cache"
    assert site_catalogues(site=forbidden / "models.toml") == ()


def test_a_folder_that_this_user_may_not_see_is_told_in_the_list(forbidden: Path) -> None:
    seen = look((Place("box", forbidden),), Catalogue(), HostFacts())
    assert "Permission denied" in seen.problems[forbidden]


def test_the_cache_is_the_users_own(tmp_path: Path) -> None:
    assert cache_folder({"HOME": str(tmp_path)}) == tmp_path / ".cache/gpurig/models"
    # A container's user may have no home: that harms only who needs the cache.
    assert cache_folder({}) == Path("/.cache/gpurig/models")
    assert cache_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/gpurig/models")
    assert cache_folder({"XDG_CACHE_HOME": "relative", "HOME": str(tmp_path)}) == tmp_path / ".cache/gpurig/models"
    assert cache_folder({"XDG_CACHE_HOME": "/c", "GPURIG_MODELS_CACHE": "/m"}) == Path("/m")
