"""Building, over an engine that says what a test wants."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import requests
import urllib3
from docker.errors import APIError, ImageNotFound
from gpurig.common.errors import PrerequisiteError
from gpurig.images.build import ensure_image
from gpurig.images.plan import ImagePlan

PLAN = ImagePlan(
    tag="gpurig-thing:0123", dockerfile="Dockerfile", context=b"tar", build_args={"A": "1"}, labels={"l": "2"}
)


class Engine:
    """As much of a Docker client as building uses."""

    def __init__(self, events=(), *, present=False, makes=True, others=()):
        self.makes = makes
        self.others = others
        self.events = events
        self.present = present
        self.builds: list[dict] = []
        self.images = SimpleNamespace(get=self._get)
        # Over no socket: `docker buildx` would not find it.
        self.api = SimpleNamespace(build=self._build, base_url="http://e", get_adapter=lambda url: None)

    def _get(self, tag):
        if not self.present and tag not in self.others:
            raise ImageNotFound(tag)
        return SimpleNamespace(id="sha256:aa")

    def _build(self, **arguments):
        self.builds.append(arguments)
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            yield event
        self.present = self.makes


FAILED_COMMAND = [
    {"stream": "Step 1/2 : RUN pip install\n"},
    {"stream": " ---> Running in abc\n"},
    {"stream": "Collecting foo\n"},
    {"stream": "ERROR: No matching distribution found for foo\n"},
    {"error": "The command '/bin/sh -c pip install' returned a non-zero code: 1", "errorDetail": {}},
]


def test_an_image_that_is_there_is_not_built_again():
    engine = Engine(present=True)
    built = ensure_image(engine, PLAN, on_line=pytest.fail)
    assert (built.built, built.id, engine.builds) == (False, "sha256:aa", [])


def test_a_missing_image_is_built_with_what_the_plan_says(tmp_path):
    engine = Engine([{"stream": "Step 1/1 : FROM x\n"}, {"aux": {"ID": "sha256:aa"}}])
    lines: list[str] = []
    log = tmp_path / "logs" / "build.log"
    built = ensure_image(engine, PLAN, on_line=lines.append, log=log)
    assert built.built
    [arguments] = engine.builds
    assert arguments["fileobj"].read() == b"tar"
    assert (arguments["tag"], arguments["dockerfile"]) == (PLAN.tag, "Dockerfile")
    assert (arguments["buildargs"], arguments["labels"]) == ({"A": "1"}, {"l": "2"})
    assert lines[0] == "[1/1] FROM x"
    assert log.read_text(encoding="utf-8").splitlines() == lines


def test_a_failed_build_names_the_reason_and_keeps_the_log(tmp_path):
    log = tmp_path / "build.log"
    with pytest.raises(PrerequisiteError) as caught:
        ensure_image(Engine(FAILED_COMMAND), PLAN, on_line=lambda _: None, log=log)
    assert "No matching distribution found for foo" in caught.value.message
    assert "exit code 1" in caught.value.message
    assert str(log) in caught.value.hint
    assert "Collecting foo" in log.read_text(encoding="utf-8")


def test_without_a_log_path_only_a_failure_leaves_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ensure_image(Engine(), PLAN, on_line=lambda _: None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PrerequisiteError) as caught:
        ensure_image(Engine(FAILED_COMMAND), PLAN, on_line=lambda _: None)
    [kept] = tmp_path.iterdir()
    assert str(kept) in caught.value.hint


@pytest.mark.parametrize(
    ("event", "hint"),
    [
        ({"error": "write /var/lib/x: no space left on device"}, "disk space"),
        ({"error": "pull access denied for nope, repository does not exist"}, "that image's name"),
        (
            {"error": "Get https://registry.example/v2/: dial tcp: lookup registry.example: no such host"},
            "proxy or mirror",
        ),
        (APIError("500 Server Error", explanation="manifest unknown"), "that image's name"),
        (requests.exceptions.ConnectionError("the engine went away"), "log"),
        (urllib3.exceptions.ProtocolError("Connection broken: IncompleteRead"), "log"),
    ],
)
def test_a_failure_has_the_hint_that_fits(event, hint, tmp_path):
    with pytest.raises(PrerequisiteError) as caught:
        ensure_image(Engine([event]), PLAN, on_line=lambda _: None, log=tmp_path / "log")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("error", "there"),
    [
        ("Get https://registry.example/v2/: dial tcp: lookup registry.example: no such host", "base:1"),
        ("nvidia/cuda:12: failed to resolve source metadata: dial tcp: i/o timeout", ""),
    ],
    ids=["named by its registry alone", "named, and neither is in the engine's own store"],
)
def test_of_several_images_that_a_build_begins_with_the_missing_one_is_named(error, there, tmp_path):
    images = {"BASE_IMAGE": "base:1", "TOOLKIT_IMAGE": "nvidia/cuda:12"}
    engine = Engine([{"error": error}], others={there})
    with pytest.raises(PrerequisiteError, match="does not have the image nvidia/cuda:12 to build on"):
        ensure_image(engine, dataclasses.replace(PLAN, build_args=images), log=tmp_path / "log")


def test_an_engine_that_goes_away_is_told_as_that(tmp_path):
    engine = Engine([requests.exceptions.ConnectionError("EOF")])
    plan = dataclasses.replace(PLAN, build_args={"BASE_IMAGE": "base:1"})

    def look(tag):
        if engine.builds:
            raise requests.exceptions.ConnectionError("Connection refused")
        raise ImageNotFound(tag)

    engine.images.get = look
    with pytest.raises(PrerequisiteError, match="building gpurig-thing:0123 failed: the engine went away"):
        ensure_image(engine, plan, log=tmp_path / "log")


def test_terminal_codes_in_the_output_do_not_reach_the_terminal(tmp_path):
    lines: list[str] = []
    events = [{"stream": "\x1b[31mred\x1b[0m \x1b]0;title\x07\rnext\n"}, {"status": "Pulling", "id": "ab12"}]
    ensure_image(Engine(events), PLAN, on_line=lines.append, log=tmp_path / "log")
    assert lines == ["red \\x1b]0;title\\x07", "next", "ab12 Pulling"]


def test_a_pulls_progress_bars_are_left_out(tmp_path):
    lines: list[str] = []
    events = [{"status": "Downloading", "id": "ab12", "progress": "[=>  ]"}]
    ensure_image(Engine(events), PLAN, on_line=lines.append, log=tmp_path / "log")
    assert lines == []


def test_a_log_that_cannot_be_written_stops_before_the_build(tmp_path):
    (tmp_path / "file").touch()
    engine = Engine()
    with pytest.raises(PrerequisiteError, match="cannot write"):
        ensure_image(engine, PLAN, on_line=lambda _: None, log=tmp_path / "file" / "log")
    assert engine.builds == []


def test_a_build_that_ends_without_an_image_is_a_failure(tmp_path):
    with pytest.raises(PrerequisiteError, match="without an image"):
        ensure_image(Engine(makes=False), PLAN, on_line=lambda _: None, log=tmp_path / "log")


def test_an_interrupted_build_leaves_no_temporary_log(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        ensure_image(Engine([{"stream": "a\n"}]), PLAN, on_line=_interrupt)
    assert list(tmp_path.iterdir()) == []


def test_what_a_reader_of_the_lines_raises_is_not_taken_for_a_broken_log(tmp_path):
    def gone(_line: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        ensure_image(Engine([{"stream": "a\n"}]), PLAN, on_line=gone, log=tmp_path / "log")


def test_a_line_that_the_engine_cut_is_one_line(tmp_path):
    lines: list[str] = []
    events = [{"stream": "ls: "}, {"stream": "cannot access"}, {"stream": "\nnext"}, {"aux": {}}]
    ensure_image(Engine(events), PLAN, on_line=lines.append, log=tmp_path / "log")
    assert lines == ["ls: cannot access", "next"]


def _interrupt(_line):
    raise KeyboardInterrupt
