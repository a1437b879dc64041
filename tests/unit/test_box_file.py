"""The box's facts as a file: what is written is read, what is hostile, old or strange is refused."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.common.terminal import harmless
from gpurig.runner.exporter.devices.figures import SourceError
from gpurig.runner.exporter.jobs.box_file import STALE_S, BoxReader, BoxWriter, decode, encode
from gpurig.runner.exporter.jobs.model import BoxFacts, Disk, JobContainer, JobKey, RunnerEntry
from hypothesis import given
from hypothesis import strategies as st

KEY = JobKey("17", "42", "9", "abcdefghi")
FACTS = BoxFacts(
    written_at=0.0,
    containers=(
        JobContainer("a" * 64, KEY, "build", 1.5, 9.25, 137, "host"),
        JobContainer("b" * 64, KEY, "service", 2.0, None, None, None),
    ),
    runners=(RunnerEntry(8, "ada: RTX 4090 [12345678]", ("gpurig", "vram-24gb"), 1.8e9, "abcdefghi"),),
    image_bytes={"job": 10**9, "exporter": 10**8},
    model_bytes=0,
    disks=(Disk("models", 5, 10),),
    problems={"images": "the engine answers 500: ä"},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "facts.json"


def test_what_was_written_is_read(path: Path) -> None:
    BoxWriter(path).write(FACTS)
    read = BoxReader(path).read()
    assert dataclasses.replace(read, written_at=0.0) == FACTS
    assert read.written_at == path.stat().st_mtime
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_heartbeat_writes_nothing_and_shows_that_somebody_looks(path: Path) -> None:
    writer, reader = BoxWriter(path), BoxReader(path)
    writer.write(FACTS)
    first = path.stat()
    os.utime(path, (1.0, 1.0))
    with pytest.raises(SourceError, match="has not written"):
        reader.read()
    writer.write(dataclasses.replace(FACTS, written_at=99.0))
    assert path.stat().st_ino == first.st_ino
    assert reader.read().containers == FACTS.containers


def test_a_change_and_a_file_that_is_gone_are_written(path: Path) -> None:
    writer, reader = BoxWriter(path), BoxReader(path)
    writer.write(FACTS)
    writer.write(dataclasses.replace(FACTS, model_bytes=7))
    assert reader.read().model_bytes == 7
    path.unlink()
    writer.write(dataclasses.replace(FACTS, model_bytes=7))
    assert reader.read().model_bytes == 7


def test_a_folder_that_cannot_be_written_is_told_and_mended_later(tmp_path: Path) -> None:
    writer = BoxWriter(tmp_path / "box" / "facts.json")
    (tmp_path / "box").write_text("")
    with pytest.raises(PrerequisiteError):
        writer.write(FACTS)
    (tmp_path / "box").unlink()
    writer.write(FACTS)
    assert BoxReader(tmp_path / "box" / "facts.json").read().model_bytes == 0


def test_the_same_file_is_read_once(path: Path) -> None:
    BoxWriter(path).write(FACTS)
    reader = BoxReader(path)
    assert reader.read() is reader.read()


def test_a_file_that_nobody_writes_any_more_is_no_news(path: Path) -> None:
    BoxWriter(path).write(FACTS)
    written = path.stat().st_mtime
    BoxReader(path, now=lambda: written + STALE_S - 1).read()
    with pytest.raises(SourceError, match=r"has not written .* for 61 s"):
        BoxReader(path, now=lambda: written + STALE_S + 1).read()
    BoxReader(path, now=lambda: written - 3600).read()


def test_no_file_says_who_should_write_it(path: Path) -> None:
    with pytest.raises(SourceError, match="the watcher has not written it yet"):
        BoxReader(path).read()


def test_neither_a_link_nor_a_pipe_is_read(path: Path, tmp_path: Path) -> None:
    BoxWriter(tmp_path / "real").write(FACTS)
    path.symlink_to(tmp_path / "real")
    with pytest.raises(SourceError, match="cannot read"):
        BoxReader(path).read()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SourceError):
        BoxReader(path).read()


def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encode(FACTS))
    return document


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(version=2),
        lambda one: one.pop("containers"),
        lambda one: one.update(containers={}),
        lambda one: one.update(containers=one["containers"] * 2000),
        lambda one: one["containers"][0].update(id="a" * 63),
        lambda one: one["containers"][0].update(id=["a" * 64]),
        lambda one: one["containers"][0].update(started_at="1"),
        lambda one: one["containers"][0].update(started_at=-1),
        lambda one: one["containers"][0].update(started_at=True),
        lambda one: one["containers"][0].update(started_at=1e999),
        lambda one: one["containers"][0].update(ended_at=float("nan")),
        lambda one: one["containers"][0].update(exit_code=1.5),
        lambda one: one["containers"][0].update(exit_code=10**30),
        lambda one: one["containers"][0].update(oom="disk"),
        lambda one: one["containers"][0].update(oom=["gpu"]),
        lambda one: one["containers"][0].update(oom_detail="x" * 5000),
        lambda one: one["containers"][0]["job"].update(job_id='1"} 1\n'),
        lambda one: one["containers"][0]["job"].update(project_id="../../etc"),
        lambda one: one["containers"][0]["job"].update(runner="\x1b[2J"),
        lambda one: one.update(runners=[1]),
        lambda one: one["runners"][0].update(id=-1),
        lambda one: one.update(image_bytes={"job\n": 1}),
        lambda one: one.update(image_bytes=[1]),
        lambda one: one.update(model_bytes="7"),
        lambda one: one["disks"][0].update(free_bytes=None),
        lambda one: one.update(problems={"x": 1}),
    ],
)
def test_what_is_not_of_the_form_is_refused(change: Change) -> None:
    document = _document()
    change(document)
    with pytest.raises(SourceError):
        decode(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b" " * (4 * 1024 * 1024 + 1)])
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(SourceError):
        decode(data)


@given(st.text(max_size=200))
def test_nothing_that_a_terminal_obeys_comes_through(text: str) -> None:
    try:
        facts = decode(encode(dataclasses.replace(FACTS, problems={"engine": text})).encode(errors="surrogatepass"))
    except SourceError:
        return
    assert facts.problems["engine"] == harmless(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.sampled_from(["containers", "runners", "image_bytes", "model_bytes", "disks", "problems"]))
def test_any_other_document_is_facts_or_refused(value: Any, key: str) -> None:
    document = {**_document(), key: value}
    try:
        facts = decode(json.dumps(document).encode())
    except SourceError:
        return
    encode(facts)
