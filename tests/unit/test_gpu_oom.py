"""Telling a job that ran out of the GPU's memory from one that failed otherwise, by what it wrote last."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from gpurig.common.terminal import harmless
from gpurig.evaljobs.llama_log import last_errors
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


class LlamaApi:
    """As much of llama-cpp-python's low-level API as its log takes."""

    def __init__(self) -> None:
        self.log: Callable[[int, bytes, None], None] = lambda *_: None

    def llama_log_callback(self, keep: Callable[[int, bytes, None], None]) -> Callable[[int, bytes, None], None]:
        return keep

    def llama_log_set(self, keep: Callable[[int, bytes, None], None], _: object) -> None:
        self.log = keep


@pytest.mark.parametrize(
    "lines",
    [
        [
            b"ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9.00 MiB on device 0: cudaMalloc failed: no",
            b"ggml_gallocr_reserve_n_impl: failed to allocate CUDA0 buffer of size 9437184",
            b"graph_reserve: failed to allocate compute buffers",
            b"llama_init_from_model: failed to initialize the context: failed to allocate compute pp buffers",
        ],
        [
            b"alloc_tensor_range: failed to allocate ROCm0 buffer of size 151851674624",
            b"llama_model_load: error loading model: unable to allocate ROCm0 buffer",
            b"llama_model_load_from_file_impl: failed to load model",
        ],
    ],
)
def test_what_gpurig_job_says_of_a_full_gpu_is_known(lines: list[bytes]) -> None:
    api = LlamaApi()
    errors = last_errors(api)
    for line in lines:
        api.log(4, line + b"\n", None)
    assert gpu_oom(f"error: llama.cpp cannot make a context of 512 tokens: {errors[-1]}".encode())
