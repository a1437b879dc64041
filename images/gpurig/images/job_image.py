"""The image that jobs run in: llama-cpp-python for one backend, and the programs of evaljobs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.images.context import ContextFile, asset_file, package_files
from gpurig.images.job_spec import PACKAGED_CUDA, JobImageSpec
from gpurig.images.plan import LABEL_BACKEND, LABEL_LLAMA, ImagePlan, Transport, plan_image
from gpurig.provisioning.rocm import RocmSource

DEFAULT_BASE_IMAGE = (
    "python:3.12.12-slim-bookworm@sha256:593bd06efe90efa80dc4eee3948be7c0fde4134606dd40d8dd8dbcade98e669c"
)
# For what the CUDA 12 that is in packages, 12.4, does not compile for: Blackwell came with 12.8.
CUDA_12_TOOLKIT_IMAGE = "nvidia/cuda:12.9.1-devel-ubuntu22.04"
# What a ROCm image is compiled in and what it stands on: of one distribution, because the libraries are taken over.
_FORKY = "debian:forky-slim@sha256:91b0aaebf7a1ccacfe7a9cbff6ab2d6be7d9b3b6cf1dfcf44b25f9095c0e0464"
ROCM_IMAGES: Mapping[RocmSource, tuple[str, str]] = {
    "amd": (
        "rocm/dev-ubuntu-24.04:7.2.4-complete@sha256:92f309c51b52cef8762867848f1529dee821624f23cd5df38455e819538f762f",
        "ubuntu:24.04@sha256:786a8b558f7be160c6c8c4a54f9a57274f3b4fb1491cf65146521ae77ff1dc54",
    ),
    "debian": (_FORKY, _FORKY),
}

MODELS_FOLDER = "evaljobs/gpurig/evaljobs/assets/models"

LABEL_TARGET = "io.gpurig.target"
LABEL_ARCHS = "io.gpurig.archs"
LABEL_CUDA = "io.gpurig.cuda"
LABEL_ROCM = "io.gpurig.rocm"
LABEL_RUNS_AS = "io.gpurig.runs-as"
LABEL_LLAMA_COMMIT = "io.gpurig.llama-cpp-commit"
LABEL_MODELS = "io.gpurig.models"

# The commit of llama.cpp in each version of llama-cpp-python: its source package tells, once it is here.
_LLAMA_COMMITS = {"0.3.36": "0c1e57098bba43ac29e6e3b677cdceebdd22334f"}

# What the PyTorch on the package index is built for (requirements/finetune.lock).
_TORCH_CUDA = 13
# PyTorch's support matrix (its RELEASE.md): from 2.12 to 2.14 it has one build for CUDA 12, on an index of its own, and
# from 2.15 on none. https://github.com/pytorch/pytorch/pull/197555, https://github.com/pytorch/pytorch/issues/190385
_TORCH_CUDA_12 = "CUDA 12.6 (cu126), which has code for sm-50 to sm-90"
_TORCH_CUDA_12_END = 100

_LOCK = "requirements/job.lock"
# What Dockerfile.cuda copies for one of them, by a pattern that all of its files match.
_CUDA_LOCKS_COPIED = "requirements/cuda${CUDA_MAJOR}*.lock"
_CUDA_LOCKS: Mapping[int, tuple[str, ...]] = {
    12: ("requirements/cuda12.lock", "requirements/cuda12-nvcc.lock"),
    13: ("requirements/cuda13.lock",),
}
# What a Dockerfile copies besides gpurig's packages.
_COPIED = re.compile(r"^COPY (?!--from)(.*) \S+$", re.MULTILINE)
_ASSET = re.compile(r"requirements/[\w.-]+\.lock|images/gpurig/images/assets/(steps/[\w.-]+)")


def plan_job_image(
    spec: JobImageSpec,
    *,
    base_image: str = "",
    toolkit_image: str = "",
    torch_index_url: str = "",
    from_mirror: Callable[[str], str] = str,
    transport: Transport | None = None,
) -> ImagePlan:
    """The job image for a box; reads files of this installation, touches nothing else.

    Args:
        spec: what the hardware asks for (job_spec.choose_job_image).
        base_image: an image that has python3 ≥ 3.11, or apt-get to get it from; "" for the spec's default.
        toolkit_image: an image with the vendor's compiler; "" for the spec's default.
        torch_index_url: the index with PyTorch's builds for the backend, for the target "finetune"; "" for the package
            index itself, which has PyTorch for CUDA 13 alone.
        from_mirror: a default image's name where it is to come from another registry.
        transport: how the build reaches the package indexes; directly where None.

    Raises:
        InputError: no image reference, an unusable transport, no index or a wrong one for PyTorch.
        PrerequisiteError: this installation lacks a file that the image is made of.
    """
    torch = _torch_args(spec, torch_index_url)
    dockerfile = asset_file("gpurig.images", f"Dockerfile.{spec.backend}")
    copied = tuple(_copied_assets(dockerfile, spec))
    lock = next(file for file in copied if file.path == _LOCK)
    jobs = package_files("gpurig.evaljobs", assets=True)
    version = locked_version(lock, "llama-cpp-python")
    toolkit, base = default_images(spec)
    images = {
        "TOOLKIT_IMAGE": toolkit_image or (toolkit and from_mirror(toolkit)),
        "BASE_IMAGE": base_image or from_mirror(base),
    }
    labels = {
        LABEL_BACKEND: spec.backend,
        LABEL_TARGET: spec.target,
        LABEL_ARCHS: " ".join(spec.arch_names),
        LABEL_CUDA: str(spec.cuda_major or ""),
        LABEL_ROCM: spec.rocm,
        LABEL_RUNS_AS: spec.runs_as,
        LABEL_LLAMA: version,
        LABEL_LLAMA_COMMIT: _LLAMA_COMMITS.get(version, ""),
        LABEL_MODELS: _models(jobs),
    }
    return plan_image(
        spec.name,
        title=f"gpurig job image ({' '.join([spec.backend, *spec.arch_names])})",
        dockerfile=dockerfile.path,
        target=spec.target,
        files=(dockerfile, *copied, *package_files("gpurig.common", assets=True), *jobs),
        folders=(MODELS_FOLDER,),
        build_args={**_build_args(spec, images), **torch},
        labels={name: value for name, value in labels.items() if value},
        transport=transport or Transport(),
    )


def default_images(spec: JobImageSpec) -> tuple[str, str]:
    """The image with the vendor's compiler, "" where that comes in packages, and what the job image stands on."""
    if spec.rocm:
        return ROCM_IMAGES[spec.rocm]
    return CUDA_12_TOOLKIT_IMAGE if spec.unpackaged_archs else "", DEFAULT_BASE_IMAGE


def toolkit_in_words(spec: JobImageSpec, toolkit_image: str) -> str:
    """Where a CUDA image's compiler comes from; "" for other images.

    Args:
        spec: the image.
        toolkit_image: the build argument TOOLKIT_IMAGE; "" where it has none.
    """
    if spec.backend != "cuda":
        return ""
    version = PACKAGED_CUDA[spec.cuda_major]
    if not toolkit_image:
        return f"{version}: NVIDIA's Python packages" + (" and Debian's nvcc" if spec.cuda_major == 12 else "")
    lacking = [f"sm-{arch}" for arch in spec.unpackaged_archs]
    newer = " and newer" if len(lacking) > 1 else ""
    return "the toolkit image's" + (f": packages have CUDA {version}, without {lacking[0]}{newer}" if lacking else "")


def _build_args(spec: JobImageSpec, images: Mapping[str, str]) -> dict[str, str]:
    """The arguments of the backend's Dockerfile."""
    arguments: dict[str, str] = {"CPU_TARGET": spec.cpu_target}
    arguments |= {name: checked_base(image) for name, image in images.items() if image}
    if spec.backend == "cuda":
        arguments["CUDA_MAJOR"] = str(spec.cuda_major)
        arguments["CUDA_ARCHS"] = ";".join(f"{arch}-real" for arch in spec.archs)
        arguments["CUDA_DRIVER"] = str(spec.driver)
    if spec.backend == "rocm":
        arguments["GFX_TARGETS"] = ";".join(spec.gfx)
        arguments["GFX_CARDS"] = ";".join(spec.cards)
        arguments["RUNS_AS"] = spec.runs_as or "itself"
    return arguments


def _torch_args(spec: JobImageSpec, index_url: str) -> dict[str, str]:
    if spec.target != "finetune":
        return {}
    if not index_url:
        if spec.backend == "cuda" and spec.cuda_major >= _TORCH_CUDA:
            return {}
        build = f"CUDA {spec.cuda_major}" if spec.backend == "cuda" else spec.backend
        raise InputError(
            f"the package index has PyTorch for CUDA {_TORCH_CUDA} alone, not for {build}", hint=_torch_hint(spec)
        )
    try:
        parts = urlsplit(index_url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        secret = bool(parts.username or parts.password)
    except ValueError:
        usable = secret = False
    if not usable or secret:
        raise InputError(
            "PyTorch's index is no URL, or one with a password, which everybody who has the image could read",
            hint="write it like https://host/path; a password goes into a netrc file",
        )
    return {"TORCH_INDEX_URL": index_url}


def _torch_hint(spec: JobImageSpec) -> str:
    if not spec.cuda_major:
        return "name the index with PyTorch's builds for it: --torch-index-url (docs/images.md)"
    if max(spec.archs) >= _TORCH_CUDA_12_END:
        newest = f"sm-{max(spec.archs)}"
        return f"PyTorch's builds for CUDA 12 have no code for {newest}: install driver 580 or newer, for CUDA 13"
    return f"name PyTorch's index for {_TORCH_CUDA_12}: --torch-index-url (docs/images.md)"


def _copied_assets(dockerfile: ContextFile, spec: JobImageSpec) -> Iterable[ContextFile]:
    """The lock files and build steps that a Dockerfile copies: exactly those decide its image's content."""
    copies = " ".join(_COPIED.findall(dockerfile.data.decode()))
    copies = copies.replace(_CUDA_LOCKS_COPIED, " ".join(_CUDA_LOCKS.get(spec.cuda_major, ())))
    for path, name in sorted({match[0]: match[1] for match in _ASSET.finditer(copies)}.items()):
        if "finetune" in path and spec.target != "finetune":
            continue
        yield asset_file("gpurig.images", name or path, path=path)


def _models(files: Iterable[ContextFile]) -> str:
    """The baked models with their sha256, as a JSON object; "" for none."""
    found = {
        file.path.removeprefix(f"{MODELS_FOLDER}/"): hashlib.sha256(file.data).hexdigest()
        for file in files
        if file.path.startswith(f"{MODELS_FOLDER}/") and file.path.endswith(".gguf")
    }
    return json.dumps(found, sort_keys=True) if found else ""


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
