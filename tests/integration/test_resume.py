"""A run that is killed at any point goes on where it was: nothing lost, nothing done twice, the same files."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpurig.common import files
from gpurig.common.waiting import wait_for
from gpurig.evaljobs.stages import run_stages
from gpurig.evaljobs.store import CHECKS, GENERATIONS, GRADES, read_records
from standins.eval_box import EvalBox, suite_data, timeless
from standins.scripted_engine import ScriptedProvider

SAMPLES = 4
FILES = (GENERATIONS, CHECKS, GRADES)
# Every file begins with the line of the run.
APPENDS = len(FILES) * (1 + SAMPLES)


def killed_at(append: int, part: float) -> Callable[[int, bytes], int]:
    """`os.write` that kills the process at the append of that number, after that part of its bytes."""
    counter = itertools.count()
    write = os.write

    def fatal(descriptor: int, data: bytes) -> int:
        if next(counter) < append:
            return write(descriptor, data)
        write(descriptor, data[: round(len(data) * part)])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    return fatal


def run_in_child(work: Callable[[], object]) -> int:
    """The signal that ended a child that did `work`; 0 where it did all of it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def run_until_killed(box: EvalBox, append: int, part: float, monkeypatch: pytest.MonkeyPatch) -> int:
    def work() -> None:
        monkeypatch.setattr(files.os, "write", killed_at(append, part))
        run_stages(box.settings())

    return run_in_child(work)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> EvalBox:
    box = EvalBox(tmp_path_factory.mktemp("undisturbed"), suite_data(SAMPLES))
    run_stages(box.settings())
    return box


def another(undisturbed: EvalBox, out: Path) -> EvalBox:
    """The same suite and models, writing to another folder."""

    class Elsewhere(EvalBox):
        def __post_init__(self) -> None:
            shutil.copytree(undisturbed.models, self.models)
            self.save()

    return Elsewhere(out, undisturbed.data)


# A whole line without its end is as bad as half of one, and a whole line with its end is a finished sample.
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("append", range(APPENDS))
def test_a_run_that_is_killed_at_any_append_goes_on_to_the_same_files(
    undisturbed: EvalBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, append: int, part: float
) -> None:
    box = another(undisturbed, tmp_path)
    assert run_until_killed(box, append, part, monkeypatch) == signal.SIGKILL
    finished = append + (part == 1.0)
    provider = ScriptedProvider()
    run_stages(box.settings(provider))
    for name in FILES:
        assert box.records(name) == undisturbed.records(name)
    # Of the appends before the kill, those that were samples of a model are not asked for again.
    per_file = 1 + SAMPLES
    generated = min(max(finished - 1, 0), SAMPLES)
    graded = min(max(finished - 2 * per_file - 1, 0), SAMPLES)
    assert len(provider.asked) == 2 * SAMPLES - generated - graded


def test_a_run_that_is_killed_again_and_again_ends_at_the_same_files(
    undisturbed: EvalBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = another(undisturbed, tmp_path)
    # Every attempt finishes one line more, and leaves half of the next.
    attempts = 0
    while run_until_killed(box, 1, 0.5, monkeypatch):
        attempts += 1
        assert attempts <= APPENDS
    assert attempts == APPENDS - 1
    for name in FILES:
        assert box.records(name) == undisturbed.records(name)


def test_records_are_readable_at_every_byte_of_a_write(undisturbed: EvalBox, tmp_path: Path) -> None:
    whole = (undisturbed.out / GENERATIONS).read_bytes()
    suite = undisturbed.suite()
    ends = [index for index, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(0, len(whole) + 1, 7):
        (tmp_path / GENERATIONS).write_bytes(whole[:size])
        lines = sum(end < size for end in ends)
        assert len(read_records(tmp_path, suite).generations) == max(lines - 1, 0)


def slow_suite() -> dict[str, Any]:
    """Enough tokens to be killed among them."""
    data = suite_data(8)
    data["generator"]["sampling"] = {"max_tokens": 80, "temperature": 1.0, "seed": 3}
    return data


def spawn(box: EvalBox, *words: str) -> int:
    """Start `gpurig-job` with llama.cpp as a process of its own."""
    argv = [sys.executable, "-m", "gpurig.evaljobs", *words, str(box.root), "--out", str(box.out)]
    argv += ["--models-dir", str(box.models), "--threads", "1"]
    silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    return os.posix_spawn(sys.executable, argv, dict(os.environ), file_actions=silent)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed_and_resumed(box: EvalBox, name: str, lines: int, *options: str) -> list[dict[str, Any]]:
    """Kill a run once its file `name` has that many lines, and run it again; the lines that were there before."""
    process = spawn(box, "eval", *options)
    assert wait_for(lambda: lines_of(box.out / name) >= lines, timeout_s=60, interval_s=0.005)
    os.kill(process, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(process, 0)[1])
    text = (box.out / name).read_text()
    before = [json.loads(line) for line in text[: text.rindex("\n") + 1].splitlines()]
    assert os.waitpid(spawn(box, "eval", *options), 0)[1] == 0
    return before


@pytest.mark.parametrize(("name", "lines"), [(GENERATIONS, 1), (GENERATIONS, 3), (GRADES, 2)])
def test_a_killed_process_with_llama_cpp_goes_on_to_the_same_files(tmp_path: Path, name: str, lines: int) -> None:
    pytest.importorskip("llama_cpp", reason="the eval extra is not installed")
    box = EvalBox(tmp_path / "killed", slow_suite())
    reference = EvalBox(tmp_path / "reference", slow_suite())
    assert os.waitpid(spawn(reference, "eval", "--exact"), 0)[1] == 0
    killed_and_resumed(box, name, lines, "--exact")
    for file in FILES:
        assert timeless(box.out / file) == timeless(reference.out / file)


@pytest.mark.parametrize("lines", [1, 3, 5])
def test_what_was_answered_together_before_a_kill_is_not_answered_again(tmp_path: Path, lines: int) -> None:
    pytest.importorskip("llama_cpp", reason="the eval extra is not installed")
    box = EvalBox(tmp_path / "killed", slow_suite())
    before = killed_and_resumed(box, GENERATIONS, lines, "--parallel", "3")
    after = [json.loads(line) for line in (box.out / GENERATIONS).read_text().splitlines()]
    generations = {line["sample"]: line for line in after if line["record"] == "generation"}
    assert set(generations) == {sample["id"] for sample in box.data["samples"]}
    assert sum(line["record"] == "generation" for line in after) == len(generations)
    for line in before:
        if line["record"] == "generation":
            assert generations[line["sample"]] == line
