"""Files are whole or absent, whatever fails and whenever the writer is killed."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpurig.common import files
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.files import LineLog, read_text, sha256_file, try_lock, whole_lines, write_atomic
from hypothesis import given
from hypothesis import strategies as st

LINES = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=30), max_size=8)


def test_a_written_file_has_its_mode_and_content(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.json"
    write_atomic(path, "secret", mode=0o600)
    assert path.read_text() == "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# Every call to the operating system that write_atomic makes, by where it is looked up.
CALLS: list[tuple[Any, str]] = [
    (Path, "mkdir"),
    (tempfile, "mkstemp"),
    (os, "fchmod"),
    (os, "fsync"),
    (Path, "replace"),
]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize(("owner", "name"), CALLS)
def test_when_any_call_fails_the_old_content_stays_and_nothing_is_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, code: int
) -> None:
    path = tmp_path / "config.toml"
    write_atomic(path, "old")

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, fails)
        with pytest.raises(PrerequisiteError) as caught:
            write_atomic(path, "new")
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.toml"]


def test_a_secret_is_never_readable_by_others_not_even_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real: Callable[[int], None] = os.fsync

    def look(descriptor: int) -> None:
        seen.extend(stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir())
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", look)
    write_atomic(tmp_path / "token", "glrt-x", mode=0o600)
    assert set(seen) == {0o600}


@given(lines=LINES, cut=st.integers(min_value=0, max_value=400))
def test_a_line_log_cut_anywhere_keeps_every_whole_line_and_goes_on(lines: list[str], cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        with LineLog(path) as log:
            for line in lines:
                log.append(line)
        payload = path.read_bytes()[:cut]
        path.write_bytes(payload)
        kept = [line.decode() for line in payload.split(b"\n")[:-1]]
        assert [line for _, line in whole_lines(path)] == kept
        with LineLog(path) as log:
            log.append("after")
        assert [line for _, line in whole_lines(path)] == [*kept, "after"]


def test_a_long_unfinished_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"first\n" + b"x" * 200_000)
    LineLog(path).close()
    assert path.read_bytes() == b"first\n"


def test_a_missing_log_has_no_lines(tmp_path: Path) -> None:
    assert list(whole_lines(tmp_path / "none.jsonl")) == []


def test_reading_names_the_file_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml"):
        read_text(tmp_path / "none.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: \xe9\n")
    with pytest.raises(InputError, match="not UTF-8") as caught:
        read_text(latin)
    assert "UTF-8" in caught.value.hint


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PrerequisiteError) as caught:
        LineLog(tmp_path / "file" / "log.jsonl")
    assert "is a file" in caught.value.hint or "path" in caught.value.hint


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_lock_is_held_by_one_and_free_again_when_that_one_ends(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(2))
    try:
        assert try_lock(first, tmp_path)
        assert not try_lock(second, tmp_path)
    finally:
        os.close(first)
    try:
        assert try_lock(second, tmp_path)
    finally:
        os.close(second)


@pytest.mark.parametrize(
    ("number", "outcome"),
    [(errno.EWOULDBLOCK, False), (errno.EACCES, False), (errno.ENOLCK, True), (errno.EOPNOTSUPP, True)],
)
def test_a_file_system_without_locks_refuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, outcome: bool
) -> None:
    monkeypatch.setattr("fcntl.flock", refusing(number))
    assert try_lock(0, tmp_path) is outcome


def test_a_lock_that_fails_is_told_with_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", refusing(errno.EIO))
    with pytest.raises(PrerequisiteError, match=r"cannot write .*: Input/output error"):
        try_lock(0, tmp_path)


def refusing(number: int) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return call
