"""Proof that this image can run jobs on its backend: the devices that llama.cpp has, and a few tokens from it.

A GPU backend without a GPU is an error that names what was looked for and what was found; nothing here falls back to
the CPU.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from gpurig.common.assets import find_asset
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.version import __version__
from gpurig.evaljobs.gpu_driver import read_cuda, read_rocm
from gpurig.evaljobs.gpu_fit import built_of, require_cuda, require_rocm
from gpurig.evaljobs.llama_log import last_errors
from gpurig.evaljobs.llama_model import continued, load_model

Backend = Literal["cuda", "rocm", "cpu"]

_PACKAGES = ("llama-cpp-python", "numpy")
_PROMPT = "A GitLab CI job:\n"
_TOKENS = 8

# What a processor must have for an x86-64 level, as Linux names it in /proc/cpuinfo: the flags llama.cpp is compiled
# with for that level (Dockerfile.cpu), not the whole of the psABI's definition.
_CPU_FLAGS: dict[str, frozenset[str]] = {
    "x86-64-v2": frozenset({"sse4_2"}),
    "x86-64-v3": frozenset({"sse4_2", "avx", "avx2", "fma", "f16c", "bmi2"}),
    "x86-64-v4": frozenset(
        {"sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
    ),
}

# ggml-backend.h, enum ggml_backend_dev_type.
_DEVICE_KINDS = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accelerator"}

# How ggml's backends name themselves (GGML_CUDA_NAME in ggml-cuda.h; HIP builds set it to ROCm).
_BACKEND_PREFIX: dict[str, str] = {"cuda": "CUDA", "rocm": "ROCm"}

_DEVICE_FILES: dict[str, tuple[str, ...]] = {
    "cuda": ("/dev/nvidiactl", "/dev/nvidia[0-9]*", "/dev/dxg"),
    "rocm": ("/dev/kfd", "/dev/dri/renderD*"),
}


@dataclass(frozen=True)
class Device:
    """A device of llama.cpp's.

    Attributes:
        name: ggml's name, for example "CUDA0".
        description: the product's name.
        kind: "cpu", "gpu", "igpu" or "accelerator".
        free_bytes, total_bytes: its memory; 0 where ggml does not tell.
    """

    name: str
    description: str
    kind: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Generated:
    """What a model generated.

    Attributes:
        model: the file's name.
        tokens: how many tokens it generated.
        seconds: loading and generating.
    """

    model: str
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Selfcheck:
    """What was found; all of it was needed for the backend, and all of it is there.

    Attributes:
        backend: what was asked for.
        cpu_target: the processor level the image was compiled for; "" outside of an image.
        versions: of the interpreter, gpurig and the packages that matter.
        devices: every device of llama.cpp's.
        gpu_offload: llama.cpp can put layers on a GPU.
        cpus: processors this process may use.
        memory_bytes: the machine's memory, or the container's limit where that is less.
        generated: what the bundled model generated; None where the image has no model.
    """

    backend: Backend
    cpu_target: str
    versions: dict[str, str]
    devices: tuple[Device, ...]
    gpu_offload: bool
    cpus: int
    memory_bytes: int
    generated: Generated | None

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps({"schema": "gpurig.selfcheck/1", **asdict(self)}, indent=1)


def run_selfcheck(backend: Backend | None = None) -> Selfcheck:
    """Check this image.

    Args:
        backend: what jobs here must run on; the image's own where None, and "cpu" outside of an image.

    Raises:
        PrerequisiteError: a GPU backend finds no GPU, the processor lacks what llama.cpp was compiled for, or llama.cpp
            or the bundled model does not work.
    """
    manifest = read_manifest(Path(sys.prefix) / "image.json")
    wanted: Backend = backend or manifest.get("backend", "cpu")
    cpu_target = manifest.get("cpu_target", "")
    # Before llama.cpp is loaded: what it was compiled for and is not there ends in "illegal instruction", and a card
    # without kernels in "no kernel image".
    require_cpu(cpu_target, _cpu_flags())
    _require_gpu(wanted, manifest)
    llama = _load_llama()
    devices = _devices(llama)
    offload = bool(llama.llama_supports_gpu_offload())
    require_device(
        wanted, devices, gpu_offload=offload, present=_device_files(wanted), built=manifest.get("backend", "")
    )
    return Selfcheck(
        backend=wanted,
        cpu_target=cpu_target,
        versions=_versions(),
        devices=devices,
        gpu_offload=offload,
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=_memory_bytes(),
        generated=_generate(llama, gpu=wanted != "cpu"),
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """What the Dockerfile noted about the image; empty outside of one.

    Raises:
        PrerequisiteError: the file is damaged.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PrerequisiteError(f"{path} cannot be read: {error}", hint="build the image again") from error
    if not isinstance(manifest, dict) or manifest.get("backend", "cpu") not in {"cuda", "rocm", "cpu"}:
        raise PrerequisiteError(f"{path} is not an image's manifest", hint="build the image again")
    return manifest


def require_cpu(target: str, flags: frozenset[str] | None) -> None:
    """Refuse a processor that lacks what the image was compiled for.

    Args:
        target: the image's level; "" or one of another architecture demands nothing.
        flags: the processor's, as in /proc/cpuinfo; None where unknown.

    Raises:
        PrerequisiteError: it lacks some.
    """
    missing = sorted(_CPU_FLAGS.get(target, frozenset()) - flags) if flags is not None else []
    if missing:
        raise PrerequisiteError(
            f"this processor lacks {', '.join(missing)}, which the image was compiled for ({target})",
            hint="build the image with --build-arg CPU_TARGET=x86-64-v2, or use a newer machine",
        )


def require_device(
    backend: Backend, devices: Sequence[Device], *, gpu_offload: bool, present: Sequence[str], built: str = ""
) -> None:
    """Refuse a GPU backend without one of its GPUs.

    Args:
        backend: what jobs must run on.
        devices: what llama.cpp has.
        gpu_offload: what llama.cpp says of itself.
        present: the device files of that backend in this container.
        built: the backend the image was built for; "" where unknown.

    Raises:
        PrerequisiteError: there is none; the message names what was looked for and found.
    """
    if backend == "cpu":
        if not any(device.kind == "cpu" for device in devices):
            raise PrerequisiteError("llama.cpp has no CPU device", hint="build the image again")
        return
    prefix = _BACKEND_PREFIX[backend]
    if any(device.name.startswith(prefix) and device.kind in {"gpu", "igpu"} for device in devices):
        return
    found = ", ".join(device.name for device in devices) or "none"
    files = ", ".join(present) or "none of " + ", ".join(_DEVICE_FILES[backend])
    if not gpu_offload:
        what = f"an image for {built}" if built else "a build without GPU support"
        raise PrerequisiteError(
            f"no {backend} device: this llama.cpp is {what} (its devices: {found}; device files here: {files})",
            hint=f"use the job image for {backend}, or a runner with the tag that this image is for",
        )
    raise PrerequisiteError(
        f"no {backend} device: llama.cpp looked for {prefix} devices and has {found}; device files here: {files}",
        hint="check that the container was given the GPU (gpurig detect and gpurig doctor on the box) and that the "
        "host's driver is new enough for this image",
    )


def _require_gpu(backend: Backend, manifest: dict[str, Any]) -> None:
    """Hold the image of a GPU backend against the driver and the cards that are here; any other image is not judged.

    Raises:
        PrerequisiteError: it cannot run here.
    """
    if manifest.get("backend") != backend:
        return
    if backend == "cuda":
        require_cuda(built_of(manifest), read_cuda())
    elif backend == "rocm":
        require_rocm(built_of(manifest), read_rocm())


def _device_files(backend: Backend) -> tuple[str, ...]:
    root = Path("/")
    return tuple(
        str(path) for pattern in _DEVICE_FILES.get(backend, ()) for path in sorted(root.glob(pattern.lstrip("/")))
    )


def _cpu_flags() -> frozenset[str] | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return parse_cpu_flags(text)


def parse_cpu_flags(cpuinfo: str) -> frozenset[str] | None:
    """The first processor's flags of a /proc/cpuinfo; None where it names none (not x86)."""
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == "flags":
            return frozenset(value.split())
    return None


def _load_llama() -> Any:
    try:
        import llama_cpp  # noqa: PLC0415 - seconds, and it fails where a library is missing
    except ImportError as error:
        raise PrerequisiteError(
            f"llama-cpp-python is not here: {error}", hint="use a job image, or install the eval extra: gpurig[eval]"
        ) from error
    except (OSError, RuntimeError) as error:
        # The loader's words: which library is missing, or which version of one.
        raise PrerequisiteError(
            f"llama.cpp does not load: {error}", hint="build the image again; a GPU image needs the host's driver"
        ) from error
    return llama_cpp


def _devices(llama: Any) -> tuple[Device, ...]:
    """The devices in ggml's registry, through the library that llama-cpp-python has loaded (ggml-backend.h)."""
    from llama_cpp._ggml import libggml  # noqa: PLC0415 - loads the libraries

    llama.llama_backend_init()
    handle, size = ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)
    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    libggml.ggml_backend_dev_get.argtypes, libggml.ggml_backend_dev_get.restype = [ctypes.c_size_t], handle
    for function in (libggml.ggml_backend_dev_name, libggml.ggml_backend_dev_description):
        function.argtypes, function.restype = [handle], ctypes.c_char_p
    libggml.ggml_backend_dev_type.argtypes, libggml.ggml_backend_dev_type.restype = [handle], ctypes.c_int
    libggml.ggml_backend_dev_memory.argtypes, libggml.ggml_backend_dev_memory.restype = [handle, size, size], None
    devices = []
    for index in range(libggml.ggml_backend_dev_count()):
        device = libggml.ggml_backend_dev_get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        libggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        devices.append(
            Device(
                name=libggml.ggml_backend_dev_name(device).decode(errors="replace"),
                description=libggml.ggml_backend_dev_description(device).decode(errors="replace"),
                kind=_DEVICE_KINDS.get(libggml.ggml_backend_dev_type(device), "accelerator"),
                free_bytes=free.value,
                total_bytes=total.value,
            )
        )
    return tuple(devices)


def _generate(llama: Any, *, gpu: bool) -> Generated | None:
    model = _bundled_model()
    if model is None:
        return None
    start = time.monotonic()
    try:
        handle = load_model(llama, model, last_errors(llama), gpu=gpu)
        try:
            tokens = continued(llama, handle, _PROMPT.encode(), tokens=_TOKENS)
        finally:
            llama.llama_model_free(handle)
    except (InputError, RuntimeError) as error:
        raise PrerequisiteError(
            f"llama.cpp cannot run the bundled model {model.name}: {error}", hint="build the image again"
        ) from error
    return Generated(model=model.name, tokens=tokens, seconds=round(time.monotonic() - start, 3))


def _bundled_model() -> Path | None:
    """The smallest bundled model; None where the image has none."""
    try:
        folder = find_asset("gpurig.evaljobs", "models")
    except PrerequisiteError:
        return None
    models = sorted(folder.glob("*.gguf"), key=lambda path: (path.stat().st_size, path.name))
    return models[0] if models else None


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "gpurig": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "missing"
    return versions


def _memory_bytes() -> int:
    """The machine's memory, or the control group's limit where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [total]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(name).read_text(encoding="ascii")))
        except (OSError, ValueError):
            # The other version of control groups, or "max".
            continue
    return min(limits)
