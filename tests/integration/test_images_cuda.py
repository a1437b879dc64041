"""CUDA images, built for real on an engine without a GPU; only where GPU_IMAGES=1 says that there is time for it."""

from __future__ import annotations

import io
import os
import tarfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from gpurig.images.build import ensure_image
from gpurig.images.job_image import plan_job_image
from gpurig.images.job_spec import Wish, choose_job_image
from standins.fatbin import device_code

if TYPE_CHECKING:
    import docker

# llama.cpp's CUDA kernels compile for a quarter of an hour, or longer.
pytestmark = [pytest.mark.docker, pytest.mark.timeout(3 * 3600)]

_LIBRARIES = "/opt/gpurig/lib/python3*/site-packages/llama_cpp/lib"


@dataclass(frozen=True)
class CudaImage:
    """An image that was built for one card.

    Attributes:
        tag: its name.
        arch: the card's compute capability, ten times.
        cuda: the CUDA version that the card calls for.
        driver: the driver that the image needs at least.
    """

    tag: str
    arch: int
    cuda: int
    driver: int


@pytest.fixture(scope="module", params=[(89, 13, 580), (61, 12, 525)], ids=["sm-89", "sm-61"])
def cuda_image(request: pytest.FixtureRequest, engine: docker.DockerClient, base_image: str) -> CudaImage:
    """The image for a card of each CUDA version."""
    if os.environ.get("GPU_IMAGES") != "1":
        pytest.skip("GPU_IMAGES is not 1: CUDA kernels compile for a quarter of an hour")
    arch, cuda, driver = request.param
    spec = choose_job_image("cuda", [], Wish(archs=(f"sm-{arch}",)))
    return CudaImage(ensure_image(engine, plan_job_image(spec, base_image=base_image)).tag, arch, cuda, driver)


def _said(engine: docker.DockerClient, image: str, *command: str) -> tuple[int, str]:
    container = engine.containers.create(image, list(command), network_mode="none")
    try:
        container.start()
        code = container.wait(timeout=120)["StatusCode"]
        return code, container.logs().decode()
    finally:
        container.remove(force=True)


def _file(engine: docker.DockerClient, image: str, path: str) -> bytes:
    container = engine.containers.create(image, ["true"], network_mode="none")
    try:
        packed = io.BytesIO(b"".join(container.get_archive(path)[0]))
    finally:
        container.remove(force=True)
    with tarfile.open(fileobj=packed) as archive:
        [member] = archive.getmembers()
        stream = archive.extractfile(member)
        assert stream is not None
        return stream.read()


def test_without_a_gpu_the_self_check_ends_with_4_at_once_and_says_what_it_was_built_for(engine, cuda_image):
    start = time.monotonic()
    code, text = _said(engine, cuda_image.tag, "gpurig-job", "selfcheck")
    assert time.monotonic() - start < 2
    assert code == 4
    assert f"needed: {cuda_image.driver} or newer" in text
    assert f"arch built: sm-{cuda_image.arch}" in text


def test_it_has_the_three_libraries_and_neither_the_drivers_nor_a_compiler(engine, cuda_image):
    names = " -o ".join(f"-name '{name}'" for name in ("libcu[db]*", "libnv*", "nvcc*", "ptxas*", "*.cu"))
    find = f"find / -xdev \\( {names} \\) ! -type l 2>/dev/null"
    _, text = _said(engine, cuda_image.tag, "sh", "-c", find)
    libraries = {f"/opt/gpurig/cuda/lib{name}.so.{cuda_image.cuda}" for name in ("cudart", "cublas", "cublasLt")}
    assert set(text.split()) == libraries


def test_llama_lacks_nothing_but_the_drivers_library(engine, cuda_image):
    _, text = _said(engine, cuda_image.tag, "sh", "-c", f"ldd {_LIBRARIES}/libggml-cuda.so | grep 'not found'")
    assert text.split() == ["libcuda.so.1", "=>", "not", "found"]


def test_its_kernels_are_machine_code_for_the_card_and_nothing_that_a_driver_would_have_to_compile(engine, cuda_image):
    _, path = _said(engine, cuda_image.tag, "sh", "-c", f"readlink -f {_LIBRARIES}/libggml-cuda.so")
    assert set(device_code(_file(engine, cuda_image.tag, path.strip()))) == {("elf", cuda_image.arch)}
