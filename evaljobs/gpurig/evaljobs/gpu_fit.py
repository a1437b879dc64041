"""Whether an image's llama.cpp can run on the driver and the cards that its container has.

Told before llama.cpp is loaded: ggml ends the process where a card's kernels are not built in ("no kernel image"), and
says no more than "no device" of everything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from gpurig.common.errors import PrerequisiteError
from gpurig.evaljobs.gpu_driver import Card, CudaFacts, RocmFacts

_NONE = "none"


@dataclass(frozen=True)
class Built:
    """What an image was compiled for, as its manifest says.

    Attributes:
        archs: "sm-89", "gfx1100" …; none where the manifest does not say. There is machine code for them, no PTX.
        cuda_major: 13; 0 without CUDA, and where the manifest does not say.
        driver: the oldest NVIDIA driver branch, 580; 0 where the manifest does not say.
    """

    archs: tuple[str, ...] = ()
    cuda_major: int = 0
    driver: int = 0


def built_of(manifest: Mapping[str, Any]) -> Built:
    """The parts of an image's manifest that decide where it runs; what is missing, or of another kind, is left out."""
    archs, major, driver = (manifest.get(key) for key in ("archs", "cuda_major", "driver"))
    return Built(
        archs=tuple(arch for arch in archs if isinstance(arch, str)) if isinstance(archs, list) else (),
        cuda_major=major if isinstance(major, int) else 0,
        driver=driver if isinstance(driver, int) else 0,
    )


def require_cuda(built: Built, facts: CudaFacts) -> None:
    """Refuse to start where llama.cpp would find no card, or one that it cannot run on.

    Raises:
        PrerequisiteError: the message says why, and what of driver and cards was found and needed.
    """
    serves = f"CUDA {facts.cuda // 1000}.{facts.cuda % 1000 // 10}" if facts.cuda else ""
    found = ", ".join(filter(None, (facts.driver, serves)))
    least = f"{built.driver} or newer" if built.driver else ""
    wants = f"CUDA {built.cuda_major}" if built.cuda_major else ""
    needed = ", ".join(filter(None, (least, wants))) or "NVIDIA's"
    picture = _picture(built, facts.cards, found=found, needed=needed)
    if not facts.library:
        if not facts.nodes:
            _refuse("cuda", "this container was given no NVIDIA GPU", picture, _GIVEN_NONE)
        _refuse(
            "cuda",
            f"device files are here ({', '.join(facts.nodes)}), and the driver's library (libcuda.so.1) is not",
            picture,
            "give it the driver too: NVIDIA_DRIVER_CAPABILITIES=compute,utility, or write the CDI spec again "
            "(nvidia-ctk cdi generate)",
        )
    if facts.cuda and built.cuda_major > facts.cuda // 1000:
        _refuse(
            "cuda",
            "the driver is too old for this image",
            picture,
            "install a newer driver on the host, or build the image on this box: gpurig images build takes the CUDA "
            "that its driver serves",
        )
    if facts.error and facts.error != _CUDA_NO_DEVICE:
        _refuse(
            "cuda",
            f"the driver does not start: {facts.error}",
            picture,
            "run gpurig doctor on the host",
        )
    if not facts.cards:
        _refuse("cuda", "the driver shows no GPU in this container", picture, _GIVEN_NONE)
    _require_archs("cuda", built, facts.cards, picture)


def require_rocm(built: Built, facts: RocmFacts) -> None:
    """Refuse to start where llama.cpp would find no card, or one that it cannot run on.

    Raises:
        PrerequisiteError: the message says why, and what of driver and cards was found and needed.
    """
    picture = _picture(built, facts.cards, found=facts.driver, needed="amdgpu with /dev/kfd")
    if not facts.driver and not facts.kfd:
        _refuse("rocm", "the host has no amdgpu driver", picture, "install it on the host; gpurig doctor says how")
    if not facts.kfd or not facts.cards:
        more = f" of the host's {facts.elsewhere}" if facts.elsewhere else ""
        lacks = "/dev/kfd" if not facts.kfd else "/dev/dri/renderD*"
        _refuse("rocm", f"this container was given no AMD GPU{more} ({lacks} is not here)", picture, _GIVEN_NONE)
    if facts.closed:
        _refuse(
            "rocm",
            f"this user may not open {', '.join(facts.closed)}",
            picture,
            "add the files' numeric groups to the container (--group-add), as gpurig up does",
        )
    if facts.taken_for not in built.archs:
        _require_archs("rocm", built, facts.cards, picture)


_CUDA_NO_DEVICE = "no device"
_GIVEN_NONE = (
    "check that the container was given the GPU: gpurig detect and gpurig doctor on the box; in CI, that the job's "
    "tags ask for a GPU runner"
)


def _picture(built: Built, cards: Sequence[Card], *, found: str, needed: str) -> str:
    present = ", ".join(dict.fromkeys(f"{card.arch or 'unknown'}" for card in cards)) or _NONE
    archs = ", ".join(built.archs) or "unknown"
    return f"driver found: {found or _NONE}, needed: {needed}; arch built: {archs}, present: {present}"


def _refuse(backend: str, why: str, picture: str, hint: str) -> NoReturn:
    raise PrerequisiteError(f"no {backend} device: {why}; {picture}", hint=hint)


def _require_archs(backend: str, built: Built, cards: Sequence[Card], picture: str) -> None:
    missing = [card for card in cards if card.arch and not any(runs_on(arch, card.arch) for arch in built.archs)]
    if built.archs and missing:
        names = ", ".join(dict.fromkeys(f"{card.name or 'the card'} ({card.arch})" for card in missing))
        wanted = ",".join(dict.fromkeys((*built.archs, *(card.arch for card in missing))))
        _refuse(
            backend,
            f"this llama.cpp has no kernels for {names}",
            picture,
            f"build the image for it: gpurig images build --backend {backend} --arch {wanted}",
        )


def runs_on(arch: str, card: str) -> bool:
    """Whether machine code for `arch` runs on a card.

    NVIDIA: on cards of the same major version and the same or a higher minor one (CUDA C++ Programming Guide, "Binary
    Compatibility"). AMD: on the same target, or on its family's where it is a generic one (LLVM, AMDGPUUsage, "Generic
    processors").
    """
    code, here = (re.fullmatch(r"sm-(\d+)(\d)", name) for name in (arch, card))
    if code and here:
        return code[1] == here[1] and code[2] <= here[2]
    generic = re.fullmatch(r"gfx(\d+)(?:-(\d))?-generic", arch)
    if generic:
        return card.startswith(f"gfx{generic[1]}{generic[2] or ''}")
    return arch == card
