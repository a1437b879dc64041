"""What the box tells: runner entries without their tokens, sizes, free space; each part failing on its own."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.waiting import wait_for
from gpurig.provisioning.disk import LocalDisk
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.state import Registration, State, save_state
from gpurig.runner.exporter.devices.figures import SourceError
from gpurig.runner.exporter.jobs.box_file import encode
from gpurig.runner.exporter.jobs.box_reading import disk, folder_bytes, image_bytes, read_runners, short_token
from gpurig.runner.exporter.jobs.box_watch import BoxWatch

TOKEN = "glrt-t3_Abcdefghi0123456789x"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(root=tmp_path)
    found.config_dir.mkdir(parents=True)
    return found


def _save(paths: Paths, **changes: Any) -> None:
    one = Registration(
        key="cpu",
        spec="1",
        url="https://gitlab.example.com",
        id=8,
        token=TOKEN,
        description="gpurig on ada: CPU [12345678]",
        tags=("gpurig", "cpu"),
        obtained_at=datetime(2026, 1, 1, tzinfo=UTC),
        expires_at=datetime(2027, 1, 1, tzinfo=UTC),
    )
    save_state(LocalDisk(), paths, State(registrations=(one.model_copy(update=changes),)))


# helpers/shorten_token.go and its tests.
@pytest.mark.parametrize(
    ("token", "short"),
    [
        ("glrt-t3_Abcdefghi0123456789x", "Abcdefghi"),
        ("glrt-Abcdefghi0123456789", "Abcdefghi"),
        ("t1_Abcdefghi0123456789", "Abcdefghi"),
        ("glrtr-Abcdefghi0123456789", "Abcdefghi"),
        ("GR1348941Abcdefghi0123456789", "Abcdefghi"),
        ("Abcdefghi0123456789", "Abcdefghi"),
        ("abc", "abc"),
        ("", ""),
    ],
)
def test_a_token_is_shortened_as_gitlab_runner_does_for_its_labels(token: str, short: str) -> None:
    assert short_token(token) == short


def test_runner_entries_are_told_without_their_tokens(paths: Paths) -> None:
    _save(paths)
    (entry,) = read_runners(paths) or ()
    assert (entry.id, entry.tags, entry.short) == (8, ("gpurig", "cpu"), "Abcdefghi")
    assert entry.expires_at == datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert TOKEN not in repr(entry)


def test_a_token_that_gitlab_runner_has_rotated_gives_the_label_of_its_containers(paths: Paths) -> None:
    _save(paths)
    paths.config.write_text('[[runners]]\nid = 8\ntoken = "glrt-t3_Newtokenx0123456789"\n')
    (entry,) = read_runners(paths) or ()
    assert entry.short == "Newtokenx"
    paths.config.write_text("[[runners\n")
    (entry,) = read_runners(paths) or ()
    assert entry.short == "Abcdefghi"


@pytest.mark.parametrize(
    ("written", "ends"),
    [
        ("2027-06-01T00:00:00Z", datetime(2027, 6, 1, tzinfo=UTC)),
        # Go's zero time, which gitlab-runner writes where it knows none.
        ("0001-01-01T00:00:00Z", datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_token_that_gitlab_runner_has_rotated_ends_when_gitlab_runner_says(
    paths: Paths, written: str, ends: datetime
) -> None:
    _save(paths)
    text = f'[[runners]]\nid = 8\ntoken = "glrt-t3_Newtokenx0123456789"\ntoken_expires_at = {written}\n'
    paths.config.write_text(text)
    (entry,) = read_runners(paths) or ()
    assert entry.expires_at == ends.timestamp()


def test_a_box_that_is_not_set_up_has_no_runner_entries(paths: Paths) -> None:
    assert read_runners(paths) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"registrations": [1]}', '{"registrations": [{"id": "x"}]}', "null"])
def test_a_damaged_state_is_a_problem(paths: Paths, text: str) -> None:
    paths.state.write_text(text)
    with pytest.raises(SourceError, match="damaged or of another version"):
        read_runners(paths)


def test_images_are_counted_by_kind() -> None:
    hashed = {"io.gpurig.content-hash": "1"}
    images = [
        {"Id": "1", "Size": 10, "Labels": {**hashed, "io.gpurig.backend": "cuda"}, "RepoTags": ["gpurig-job-cuda:1"]},
        {"Id": "2", "Size": 20, "Labels": {**hashed, "io.gpurig.backend": "cpu"}, "RepoTags": None},
        {"Id": "3", "Size": 40, "Labels": hashed, "RepoTags": ["gpurig-exporter:1"]},
        {"Id": "4", "Size": 80, "Labels": None, "RepoTags": ["gitlab/gitlab-runner:alpine-v19.4.0"]},
        {"Id": "5", "Size": 160, "Labels": {"other": "1"}, "RepoTags": ["debian:12"]},
        {"Id": "6", "Size": "x", "Labels": hashed, "RepoTags": ["gpurig-exporter:2"]},
    ]
    assert image_bytes(images, {"4"}) == {"job": 30, "exporter": 40, "runner": 80}


def test_a_folder_counts_each_file_once_and_follows_no_link(tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "qwen").mkdir(parents=True)
    (models / "qwen" / "a.gguf").write_bytes(b"x" * 1000)
    (models / "b.gguf").write_bytes(b"x" * 100)
    os.link(models / "b.gguf", models / "c.gguf")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d").write_bytes(b"x" * 10_000)
    (models / "link").symlink_to(tmp_path / "elsewhere")
    (models / "loop").symlink_to(models)
    assert folder_bytes(models) == 1100
    assert folder_bytes(tmp_path / "none") is None


def test_a_folder_with_too_much_in_it_is_a_problem_not_an_hour_of_work(tmp_path: Path) -> None:
    for number in range(11):
        (tmp_path / str(number)).touch()
    with pytest.raises(SourceError, match="more than 10 entries"):
        folder_bytes(tmp_path, most_entries=10)


def test_free_space_is_that_of_ordinary_users(tmp_path: Path) -> None:
    told, found = os.statvfs(tmp_path), disk("models", tmp_path)
    assert found.total_bytes == told.f_blocks * told.f_frsize
    assert 0 <= found.free_bytes <= found.total_bytes
    with pytest.raises(SourceError, match="cannot tell the free space"):
        disk("models", tmp_path / "none")


def test_each_part_fails_on_its_own_and_no_token_comes_through(paths: Paths) -> None:
    _save(paths)
    paths.models.mkdir(parents=True)
    (paths.models / "a.gguf").write_bytes(b"x" * 1000)
    said: list[str] = []
    watched = BoxWatch(paths.root / "none.sock", paths, say=said.append)
    watched.start()
    try:
        assert wait_for(
            lambda: watched.facts().model_bytes is not None and "images" in watched.facts().problems, timeout_s=10
        )
        facts = watched.facts()
        assert set(facts.problems) == {"engine", "images", "engine-disk"}
        assert facts.model_bytes == 1000
        assert [one.purpose for one in facts.disks] == ["models"]
        assert facts.runners is not None
        assert TOKEN not in encode(facts) + "".join(said)
    finally:
        watched.stop()
    assert not [one for one in threading.enumerate() if one.name in {"box-watch", "job-watch"}]


def test_a_part_that_is_broken_ends_no_other(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.state.write_text("{}")
    monkeypatch.setattr("gpurig.runner.exporter.jobs.box_watch.folder_bytes", lambda _: {}["x"])
    watched = BoxWatch(paths.root / "none.sock", paths, engine_dir=paths.root)
    watched.start()
    try:
        assert wait_for(lambda: "models" in watched.facts().problems, timeout_s=10)
        facts = dataclasses.replace(watched.facts(), written_at=0.0)
        assert facts.problems["models"] == "KeyError: 'x'"
        assert "damaged" in facts.problems["state"]
        assert {one.purpose for one in facts.disks} == {"models", "engine"}
        assert json.loads(encode(facts))["problems"]
    finally:
        watched.stop()
