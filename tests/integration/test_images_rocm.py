"""The job image for AMD GPUs, compiled for real and run without one: it loads, and says what is missing.

It compiles for an hour on few cores, so only GPU_IMAGES=1 asks for it. GPURIG_ROCM_BASE_IMAGE names an image of a
distribution that packages ROCm (Debian from forky on), which the engine has; GPURIG_ROCM_TOOLKIT_IMAGE names one of it
that has ROCm already.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.images.build import ensure_image
from gpurig.images.job_image import plan_job_image
from gpurig.images.job_spec import Wish, choose_job_image
from standins.missing import missing

if TYPE_CHECKING:
    import docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3 * 3600)]

TARGET = "gfx1100"
PYTHON = "/opt/gpurig/bin/python"


@pytest.fixture(scope="module")
def images(engine: docker.DockerClient) -> dict[str, str]:
    """The images to build with, as plan_job_image takes them."""
    from docker.errors import ImageNotFound

    if os.environ.get("GPU_IMAGES") != "1":
        missing("GPU_IMAGES is not 1: a ROCm image compiles for an hour", "GPURIG_REQUIRE_GPU_IMAGES")
    base = os.environ.get("GPURIG_ROCM_BASE_IMAGE", "gpurig-rocm-base:forky")
    toolkit = os.environ.get("GPURIG_ROCM_TOOLKIT_IMAGE", base)
    for name in (base, toolkit):
        try:
            engine.images.get(name)
        except ImageNotFound:
            missing(f"the engine has no image {name} with Debian's ROCm packages", "GPURIG_REQUIRE_GPU_IMAGES")
    return {"base_image": base, "toolkit_image": toolkit}


@pytest.fixture(scope="module")
def rocm_image(engine: docker.DockerClient, images: dict[str, str]) -> str:
    """The ROCm job image for one target; its tag."""
    spec = choose_job_image("rocm", [], Wish(archs=(TARGET,), rocm="debian"))
    return ensure_image(engine, plan_job_image(spec, **images), on_line=lambda _: None).tag


@pytest.fixture
def kfd(tmp_path: Path) -> Iterator[Path]:
    """A device file of a group that no image knows, closed to others, as /dev/kfd is."""
    path = tmp_path / "kfd"
    try:
        os.mknod(path, 0o660 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        missing("device files cannot be made here", "GPURIG_REQUIRE_DOCKER")
    os.chown(path, 0, 44123)
    path.chmod(0o660)
    yield path
    path.unlink()


def _run(engine: docker.DockerClient, image: str, *command: str, **settings: Any) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a container."""
    container = engine.containers.create(image, list(command), network_mode="none", **settings)
    try:
        container.start()
        code = container.wait(timeout=120)["StatusCode"]
        return code, container.logs(stderr=False).decode(), container.logs(stdout=False).decode()
    finally:
        container.remove(force=True)


def test_without_a_gpu_it_ends_with_4_in_one_line_that_names_what_it_was_built_for(engine, rocm_image):
    start = time.monotonic()
    code, out, err = _run(engine, rocm_image, "gpurig-job", "selfcheck")
    seconds = time.monotonic() - start
    assert (code, out) == (4, "")
    assert err.startswith("gpurig-job: no rocm device: ")
    assert f"arch built: {TARGET}, present: none" in err
    assert "needed: amdgpu with /dev/kfd" in err
    assert "Traceback" not in err
    assert seconds < 2


def test_llama_cpp_loads_without_a_gpu_and_has_the_rocm_backend(engine, rocm_image):
    script = "import llama_cpp; print(llama_cpp.llama_supports_gpu_offload(), llama_cpp.llama_print_system_info())"
    code, out, err = _run(engine, rocm_image, PYTHON, "-c", script)
    assert code == 0, err
    # No device, so nothing can be offloaded; the library is there and says why.
    assert out.startswith("False")
    assert "ROCm" in out + err


def test_it_holds_kernels_for_its_target_alone(engine, rocm_image):
    code, out, _ = _run(engine, rocm_image, "find", "/opt/rocm/lib", "-type", "f", "-name", "*gfx*")
    names = out.splitlines()
    assert code == 0
    assert any(name.endswith(f"TensileLibrary_lazy_{TARGET}.dat") for name in names)
    assert not [name for name in names if TARGET not in name]


def test_every_library_finds_what_it_needs(engine, rocm_image):
    script = (
        "for one in /opt/rocm/lib/*.so* /opt/gpurig/lib/python3*/site-packages/llama_cpp/lib/*.so; do ldd $one; done"
    )
    _, out, err = _run(engine, rocm_image, "sh", "-c", script)
    assert "librocblas.so" in out
    assert "not found" not in out + err


def test_a_job_opens_the_device_by_its_numeric_group_and_not_without(engine, rocm_image, kfd):
    command = (PYTHON, "-c", "import os; print(os.getuid()); os.open('/dev/kfd', os.O_RDWR)")
    settings = {"devices": [f"{kfd}:/dev/kfd:rwm"], "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
    code, out, err = _run(engine, rocm_image, *command, group_add=["44123"], **settings)
    assert (code, out) == (0, "1000\n"), err
    code, _, err = _run(engine, rocm_image, *command, **settings)
    assert code == 1
    assert "PermissionError" in err


def test_its_bill_of_materials_names_rocms_packages_and_their_licenses_are_there(engine, rocm_image):
    _, out, _ = _run(engine, rocm_image, "cat", "/opt/gpurig/sbom.cdx.json")
    names = {component["name"] for component in json.loads(out)["components"]}
    assert {"librocblas4", "libamdhip64-6", "llama_cpp_python"} <= names
    code, out, _ = _run(engine, rocm_image, "ls", "/opt/rocm/doc/librocblas4")
    assert (code, out) == (0, "copyright\n")


def test_a_target_that_this_rocm_has_no_kernels_for_ends_the_build_before_anything_is_compiled(engine, images):
    spec = choose_job_image("rocm", [], Wish(archs=("gfx1201",)))
    with pytest.raises(PrerequisiteError, match="has no kernels for gfx1201"):
        ensure_image(engine, plan_job_image(spec, **images), on_line=lambda _: None)


def test_a_base_image_that_is_too_old_for_the_libraries_ends_the_build_before_anything_is_compiled(
    engine, images, base_image
):
    spec = choose_job_image("rocm", [], Wish(archs=(TARGET,), rocm="debian"))
    plan = plan_job_image(spec, base_image=base_image, toolkit_image=images["toolkit_image"])
    with pytest.raises(PrerequisiteError, match="would not load there"):
        ensure_image(engine, plan, on_line=lambda _: None)
