"""Build contexts: equal files give equal bytes, and nothing else gets in."""

from __future__ import annotations

import importlib
import io
import sys
import tarfile
from pathlib import Path

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.images.context import ContextFile, asset_file, pack, package_files
from hypothesis import given
from hypothesis import strategies as st

NAME = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=8)
FILES = st.dictionaries(
    st.tuples(NAME, NAME).map(lambda parts: f"{parts[0]}/{parts[1]}.py"),
    st.binary(max_size=600),
    min_size=1,
    max_size=8,
)


def _members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive.getmembers()}


@given(FILES, st.randoms(use_true_random=False))
def test_a_context_does_not_depend_on_the_order_of_its_files(files, random):
    given_order = [ContextFile(path, data) for path, data in files.items()]
    shuffled = given_order.copy()
    random.shuffle(shuffled)
    assert pack(given_order) == pack(shuffled)


@given(FILES)
def test_a_context_holds_every_file_whole_and_no_times_or_owners(files):
    packed = pack([ContextFile(path, data) for path, data in files.items()])
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive.getmembers():
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == (0o755 if member.isdir() else 0o644)
        assert {
            member.name: archive.extractfile(member).read() for member in archive.getmembers() if member.isfile()
        } == files


def test_a_folder_is_there_before_its_files_and_also_when_empty():
    names = list(_members(pack([ContextFile("a/b/c.py", b"")], folders=("x/models",))))
    assert names == ["a", "a/b", "x", "x/models", "a/b/c.py"]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../outside", "a/../../b"])
def test_a_path_outside_of_the_context_is_refused(path):
    with pytest.raises(ValueError, match="build context"):
        pack([ContextFile(path, b"")])


def test_two_files_with_one_path_are_refused():
    with pytest.raises(ValueError, match="build context"):
        pack([ContextFile("a", b"1"), ContextFile("a", b"2")])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the namespace's shape with things in it that must not be shipped."""
    root = tmp_path / "portion" / "gpurigtest" / "portion"
    for name in (
        "__init__.py",
        "py.typed",
        "sub/code.py",
        "sub/assets/page.html",
        "assets/models/tiny.gguf",
        "assets/models/.part.gguf",
        "sub/__pycache__/code.cpython-311.pyc",
        ".hidden/secret.py",
        ".env",
        "#code.py#",
        "code.py~",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "portion"))
    importlib.invalidate_caches()
    return root


@pytest.mark.parametrize(
    ("assets", "expected"),
    [
        (False, {"__init__.py", "py.typed", "sub/code.py", "sub/assets/page.html"}),
        (True, {"__init__.py", "py.typed", "sub/code.py", "sub/assets/page.html", "assets/models/tiny.gguf"}),
    ],
)
def test_a_package_ships_its_files_and_no_leavings(package, assets, expected):
    files = package_files("gpurigtest.portion", assets=assets)
    assert {file.path for file in files} == {f"portion/gpurigtest/portion/{name}" for name in expected}
    sys.modules.pop("gpurigtest", None)


def test_a_package_lies_in_the_context_where_the_repository_has_it():
    paths = {file.path for file in package_files("gpurig.common", assets=True)}
    assert "common/gpurig/common/errors.py" in paths
    assert all(path.startswith("common/gpurig/common/") for path in paths)


def test_a_package_that_is_not_installed_is_a_missing_prerequisite():
    with pytest.raises(PrerequisiteError, match=r"gpurig\.nowhere is missing"):
        package_files("gpurig.nowhere", assets=True)


def test_an_asset_keeps_its_name_in_the_repository():
    file = asset_file("gpurig.images", "requirements/job.lock")
    assert file.path == "requirements/job.lock"
    assert b"llama-cpp-python==" in file.data
