"""Names become files' names, and references name sources: nothing in them leads anywhere else."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from gpurig.common.errors import InputError
from gpurig.common.models.names import check_name, find_in, local_files, model_name, part_files
from gpurig.common.models.reference import HubReference, PackageReference, PathReference, parse_reference
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,30}", fullmatch=True).filter(
    lambda name: not name.lower().endswith(".gguf")
)
REVISIONS = st.none() | st.just("main") | st.from_regex(r"[0-9a-f]{40}", fullmatch=True)
FILES = st.from_regex(r"([a-z0-9]{1,6}/){0,2}[A-Za-z0-9._-]{1,20}\.gguf", fullmatch=True).filter(
    lambda file: not any(part in {".", ".."} for part in file.split("/"))
)


@given(st.text(max_size=40))
def test_what_is_taken_for_a_name_is_a_plain_file_name(text: str) -> None:
    try:
        name = check_name(text)
    except InputError:
        return
    file = Path(f"/models/{name}.gguf")
    assert file.parent == Path("/models")
    assert not file.name.startswith(".")


@given(NAMES, st.integers(min_value=1, max_value=99))
def test_a_models_files_are_found_by_its_name(name: str, count: int) -> None:
    files = local_files(check_name(name), count)
    assert len(files) == count
    assert count == 1 or {model_name(file) for file in files} == {name}
    assert all(part_files(file) == files for file in files) or count == 1


@pytest.mark.parametrize("file", ["m-00000-of-00002.gguf", "m-00003-of-00002.gguf", "m-00001-of-99999.gguf"])
def test_a_part_that_cannot_be_is_refused(file: str) -> None:
    with pytest.raises(InputError, match="no part of a split model"):
        part_files(file)


def test_a_split_model_counts_only_whole_and_odd_names_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "m-00001-of-00002.gguf").touch()
    (tmp_path / "m-00001-of-00000.gguf").touch()
    assert find_in(tmp_path, "m") == ()
    (tmp_path / "m-00002-of-00002.gguf").touch()
    assert [path.name for path in find_in(tmp_path, "m")] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert find_in(tmp_path, "?") == ()
    assert find_in(tmp_path / "m-00001-of-00002.gguf", "m") == ()


@given(st.from_regex(r"[A-Za-z0-9][\w.-]{0,9}/[A-Za-z0-9][\w.-]{0,9}", fullmatch=True), FILES, REVISIONS)
def test_a_reference_reads_back_as_it_was_written(repository: str, file: str, revision: str | None) -> None:
    if not repository.isascii():
        return
    reference = HubReference(repository, file, revision)
    assert parse_reference(str(reference)) == reference


def test_a_package_may_lie_in_a_project_with_a_long_path() -> None:
    assert parse_reference("gitlab:a/b/c/models/1.0/m.gguf") == PackageReference("a/b/c", "models", "1.0", "m.gguf")
    assert parse_reference("gitlab:42/models/1.0/m.gguf") == PackageReference("42", "models", "1.0", "m.gguf")


def test_a_path_is_a_path_and_a_name_a_name() -> None:
    assert parse_reference("./m.gguf") == PathReference(Path("m.gguf"))
    assert parse_reference("m.gguf") == PathReference(Path("m.gguf"))
    assert parse_reference("models/") == PathReference(Path("models"))
    assert parse_reference("qwen3-4b-q4_k_m") == "qwen3-4b-q4_k_m"


@pytest.mark.parametrize(
    "text",
    [
        "hf:team/mine.gguf",
        "hf:team/mine/../../etc/x.gguf",
        "hf:team/mine/x.gguf@",
        "hf:team/mine/x.safetensors",
        "hf:../mine/x.gguf",
        "hf:team/mine/x.gguf@a b",
        "gitlab:models/1.0/m.gguf",
        "gitlab:team/app/models/1.0/m.txt",
        "gitlab:../app/mo dels/1.0/m.gguf",
        "s3:bucket",
    ],
)
def test_what_only_looks_like_a_reference_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_reference(text)
    assert caught.value.hint


@given(st.text(max_size=60))
def test_no_text_is_a_bug(text: str) -> None:
    for prefix in ("", "hf:", "gitlab:"):
        with contextlib.suppress(InputError):
            parse_reference(prefix + text)
