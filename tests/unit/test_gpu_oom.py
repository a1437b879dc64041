"""Telling a job that ran out of the GPU's memory from one that failed otherwise, by what it wrote last."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path

import pytest
from gpurig.common.terminal import harmless
from gpurig.runner.exporter.jobs.gpu_oom import gpu_oom
from hypothesis import given
from hypothesis import strategies as st

TEXTS = tomllib.loads((Path(__file__).parents[1] / "fixtures" / "gpu-oom.toml").read_text())
REAL, OTHER = TEXTS["oom"], TEXTS["other"]


@pytest.mark.parametrize("text", REAL)
def test_what_programs_write_is_known(text: str) -> None:
    before = b"collecting torch\n" * 50
    found = gpu_oom(before + text.encode() + b"\nERROR: Job failed: exit code 1\n")
    assert found
    assert found in " ".join(text.split())
    assert len(found) <= 200


@pytest.mark.parametrize("text", OTHER)
def test_other_failures_are_not_taken_for_it(text: str) -> None:
    assert gpu_oom(text.encode()) == ""


def test_a_second_failure_after_one_that_was_mended_counts() -> None:
    text = OTHER[-1] + "\nCUDA error: out of memory\n  current device: 0, in function alloc at ggml-cuda.cu:475\n"
    assert gpu_oom(text.encode()) == "CUDA error: out of memory"


def test_colours_do_not_hide_a_message_and_do_not_come_through() -> None:
    text = b"\x1b[0;31mError\x1b[0m: CUDA \x1b[1mout of memory\x1b[0m. Tried to allocate 2.00 GiB.\x1b]0;hi\x07"
    assert gpu_oom(text) == "CUDA out of memory. Tried to allocate 2.00 GiB."


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_nothing_that_a_terminal_obeys_comes_through(before: bytes, after: bytes) -> None:
    text = before + b"CUDA out of memory. Tried to allocate 2.00 GiB" + after + b" of which \xe2\x80\xae 1"
    assert gpu_oom(text) == harmless(gpu_oom(text))


@pytest.mark.parametrize(
    "piece",
    [b"CUDA out of memory. Tried to allocate ", b"shape[1,", b"\x1b]", b"\x1b[", b"Out of memory allocating 1,"],
)
def test_a_hostile_log_is_searched_in_a_moment(piece: bytes) -> None:
    text = piece * (256 * 1024 // len(piece))
    start = time.perf_counter()
    gpu_oom(text)
    assert time.perf_counter() - start < 5
