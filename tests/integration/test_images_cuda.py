"""The CUDA image, built for real on an engine without a GPU; only where GPU_IMAGES=1 says that there is time for it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from gpurig.images.build import ensure_image
from gpurig.images.job_image import plan_job_image
from gpurig.images.job_spec import Wish, choose_job_image

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def cuda_image(engine: docker.DockerClient, base_image: str) -> str:
    """The image for one card; llama.cpp's CUDA kernels compile for a quarter of an hour, or longer."""
    if os.environ.get("GPU_IMAGES") != "1":
        pytest.skip("GPU_IMAGES is not 1: CUDA kernels compile for a quarter of an hour")
    spec = choose_job_image("cuda", [], Wish(archs=("sm-89",)))
    return ensure_image(engine, plan_job_image(spec, base_image=base_image)).tag


def _said(engine: docker.DockerClient, image: str, *command: str) -> tuple[int, str]:
    container = engine.containers.create(image, list(command), network_mode="none")
    try:
        container.start()
        code = container.wait(timeout=120)["StatusCode"]
        return code, container.logs().decode()
    finally:
        container.remove(force=True)


@pytest.mark.timeout(3 * 3600)
def test_without_a_gpu_the_self_check_ends_with_4_at_once_and_says_what_it_was_built_for(engine, cuda_image):
    start = time.monotonic()
    code, text = _said(engine, cuda_image, "gpurig-job", "selfcheck")
    assert time.monotonic() - start < 2
    assert code == 4
    assert "needed: 580 or newer" in text
    assert "arch built: sm-89" in text


@pytest.mark.timeout(3 * 3600)
def test_it_has_the_three_libraries_and_neither_the_drivers_nor_a_compiler(engine, cuda_image):
    names = " -o ".join(f"-name '{name}'" for name in ("libcu[db]*", "libnv*", "nvcc*", "ptxas*", "*.cu"))
    find = f"find / -xdev \\( {names} \\) ! -type l 2>/dev/null"
    _, text = _said(engine, cuda_image, "sh", "-c", find)
    folder = "/opt/gpurig/cuda"
    libraries = {f"{folder}/{name}" for name in ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13")}
    assert set(text.split()) == libraries


@pytest.mark.timeout(3 * 3600)
def test_llama_lacks_nothing_but_the_drivers_library(engine, cuda_image):
    script = "ldd /opt/gpurig/lib/python3*/site-packages/llama_cpp/lib/libggml-cuda.so | grep 'not found'"
    _, text = _said(engine, cuda_image, "sh", "-c", script)
    assert text.split() == ["libcuda.so.1", "=>", "not", "found"]
