"""The image that jobs run in: llama-cpp-python for one backend, and the programs of evaljobs."""

from __future__ import annotations

import re
from typing import Literal, get_args

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.images.context import ContextFile, asset_file, package_files
from gpurig.images.plan import LABEL_BACKEND, LABEL_LLAMA, ImagePlan, Transport, plan_image

DEFAULT_BASE_IMAGE = (
    "python:3.12.12-slim-bookworm@sha256:593bd06efe90efa80dc4eee3948be7c0fde4134606dd40d8dd8dbcade98e669c"
)
MODELS_FOLDER = "evaljobs/gpurig/evaljobs/assets/models"

CpuTarget = Literal["x86-64-v2", "x86-64-v3", "x86-64-v4"]
DEFAULT_CPU_TARGET: CpuTarget = "x86-64-v3"

_LOCK = "requirements/job.lock"
_BUILD_LOCK = "requirements/job-build.lock"
_DOCKERFILES = {"cpu": "Dockerfile.cpu"}


def plan_job_image(
    backend: str,
    *,
    base_image: str = DEFAULT_BASE_IMAGE,
    cpu_target: CpuTarget = DEFAULT_CPU_TARGET,
    transport: Transport | None = None,
) -> ImagePlan:
    """The job image for a backend; reads files of this installation, touches nothing else.

    Args:
        backend: "cpu"; the GPU backends are not there yet.
        base_image: an image that has python3 ≥ 3.11, or apt-get to get it from.
        cpu_target: the x86-64 level that llama.cpp is compiled for; of no effect on other processors.
        transport: how the build reaches the package indexes; directly where None.

    Raises:
        InputError: an unknown backend or CPU target, an empty base image, an unusable transport.
        PrerequisiteError: this installation lacks a file that the image is made of.
    """
    dockerfile = _DOCKERFILES.get(backend)
    if dockerfile is None:
        raise InputError(
            f"there is no job image for the backend {backend!r}",
            hint=f"known: {', '.join(_DOCKERFILES)}; gpurig up --cpu makes a CPU runner whatever GPUs are there",
        )
    if cpu_target not in get_args(CpuTarget):
        raise InputError(f"unknown CPU target {cpu_target!r}", hint="known: " + ", ".join(get_args(CpuTarget)))
    lock = asset_file("gpurig.images", _LOCK)
    files = (
        asset_file("gpurig.images", dockerfile),
        lock,
        asset_file("gpurig.images", _BUILD_LOCK),
        *package_files("gpurig.common", assets=True),
        *package_files("gpurig.evaljobs", assets=True),
    )
    return plan_image(
        f"gpurig-job-{backend}",
        title=f"gpurig job image ({backend})",
        dockerfile=dockerfile,
        files=files,
        folders=(MODELS_FOLDER,),
        build_args={"BASE_IMAGE": checked_base(base_image), "CPU_TARGET": cpu_target},
        labels={LABEL_BACKEND: backend, LABEL_LLAMA: locked_version(lock, "llama-cpp-python")},
        transport=transport or Transport(),
    )


def checked_base(base_image: str) -> str:
    """`base_image`, when it looks like an image reference.

    Raises:
        InputError: it does not.
    """
    if not re.fullmatch(r"[a-z0-9][\w./:-]*(@sha256:[0-9a-f]{64})?", base_image):
        raise InputError(f"{base_image!r} is no image reference", hint="write it like python:3.12-slim-bookworm")
    return base_image


def locked_version(lock: ContextFile, package: str) -> str:
    """The version that a lock file pins a package to.

    Raises:
        PrerequisiteError: it does not pin it.
    """
    match = re.search(rf"^{re.escape(package)}==([^\s;\\]+)", lock.data.decode(), flags=re.MULTILINE)
    if match is None:
        raise PrerequisiteError(f"{lock.path} does not pin {package}", hint="install gpurig again")
    return match.group(1)
