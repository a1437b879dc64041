"""Which job image a box needs: chosen purely, from the GPUs that were found and from what the user wants."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.provisioning.cuda import CUDA_MAJORS, capability, driver_branch, oldest_driver
from gpurig.provisioning.facts import Backend, Gpu
from gpurig.provisioning.rocm import ROCM_SOURCES, RocmSource, kernels_of, rocm_build

Target = Literal["eval", "finetune"]
CpuTarget = Literal["x86-64-v2", "x86-64-v3", "x86-64-v4"]
DEFAULT_CPU_TARGET: CpuTarget = "x86-64-v3"

ALL_ARCHS = "all"

# What nvcc compiles real code for: `nvcc --list-gpu-code` of CUDA 12.9 and 13.0.
CUDA_ARCHS: Mapping[int, tuple[int, ...]] = {
    12: (50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100, 101, 103, 120, 121),
    13: (75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121),
}
# What the toolkit from packages compiles for: NVIDIA's Python packages, with Debian's nvcc for CUDA 12 (`nvcc
# --list-gpu-code` of 12.4). The others take another image's toolkit.
PACKAGED_CUDA: Mapping[int, str] = {12: "12.4", 13: "13.0"}
PACKAGED_CUDA_ARCHS: Mapping[int, tuple[int, ...]] = {
    12: (50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90),
    13: CUDA_ARCHS[13],
}
# GitLab.com's hosted GPU runners have a T4.
_SAAS_ARCH = 75


@dataclass(frozen=True)
class JobImageSpec:
    """A job image, as far as the hardware decides it.

    Attributes:
        backend: "cuda", "rocm" or "cpu".
        target: "eval" holds llama.cpp and the eval programs, "finetune" PyTorch and its libraries besides.
        cpu_target: the x86-64 level that llama.cpp is compiled for; of no effect on other processors.
        cuda_major: 12 or 13 with "cuda", else 0.
        archs: with "cuda", compute capabilities, ten times, ascending: (75, 89).
        gfx: with "rocm", the targets compiled for, sorted: ("gfx1100",).
        rocm: with "rocm", whose ROCm; else "".
        runs_as: with "rocm", the target that the runtime takes every card for; "" where it takes each for what it is.
        cards: with "rocm", the targets of the cards that run it, sorted; others than `gfx` where `runs_as` says so.
        driver: with "cuda", the oldest NVIDIA driver branch that runs it: 580; else 0.
    """

    backend: Backend
    target: Target = "eval"
    cpu_target: CpuTarget = DEFAULT_CPU_TARGET
    cuda_major: int = 0
    archs: tuple[int, ...] = ()
    gfx: tuple[str, ...] = ()
    rocm: RocmSource | Literal[""] = ""
    runs_as: str = ""
    cards: tuple[str, ...] = ()
    driver: int = 0

    @property
    def arch_names(self) -> tuple[str, ...]:
        """The GPU architectures as tags name them: "sm-89", "gfx1100"."""
        return (*(f"sm-{arch}" for arch in self.archs), *self.cards)

    @property
    def unpackaged_archs(self) -> tuple[int, ...]:
        """With "cuda", the architectures that the toolkit from packages does not compile for."""
        return tuple(arch for arch in self.archs if arch not in PACKAGED_CUDA_ARCHS.get(self.cuda_major, ()))

    @property
    def name(self) -> str:
        """The repository part of its tag: `gpurig-job-cuda13-sm75-sm89`, `gpurig-job-cpu-finetune`."""
        known = kernels_of(self.rocm) if self.rocm else frozenset()
        every = self.archs == CUDA_ARCHS.get(self.cuda_major) or (bool(known) and known == set(self.gfx))
        archs = [ALL_ARCHS] if every else [*(f"sm{arch}" for arch in self.archs), *self.gfx]
        backend = f"{self.backend}{self.cuda_major or ''}"
        ending = [] if self.target == "eval" else [self.target]
        return "-".join(["gpurig-job", backend, *archs, *ending])


@dataclass(frozen=True)
class Wish:
    """What a user may want of a job image, besides what the hardware asks for.

    Attributes:
        target: see JobImageSpec.
        saas: it shall run on GitLab.com's hosted GPU runners, too.
        archs: GPU architectures instead of the box's own: "sm-89", "89", "8.9", "gfx1100"; "all" for every one.
        cuda_major: instead of the newest that the box's driver and cards take; 0 for that one.
        rocm: whose ROCm, instead of the first that has kernels for the cards; "" for that one.
        cpu_target: see JobImageSpec.
    """

    target: Target = "eval"
    saas: bool = False
    archs: tuple[str, ...] = ()
    cuda_major: int = 0
    rocm: RocmSource | Literal[""] = ""
    cpu_target: CpuTarget = DEFAULT_CPU_TARGET


def choose_job_image(backend: Backend, gpus: Sequence[Gpu], wish: Wish | None = None) -> JobImageSpec:
    """The job image for a box's GPUs of one backend.

    One image serves all of them, so it holds code for every card, and its CUDA version is the newest that every card
    and the driver take.

    Args:
        backend: "cuda", "rocm" or "cpu".
        gpus: what was found; those of other backends are passed over. None are needed where `wish` names architectures.
        wish: what the user wants.

    Raises:
        InputError: a wish that cannot be.
        PrerequisiteError: no CUDA version runs on these cards with their driver (the message has the driver found and
            the driver needed), no ROCm has kernels for them, or a card does not tell its architecture.
    """
    wish = wish or Wish()
    if wish.target not in get_args(Target):
        raise InputError(f"there is no image target {wish.target!r}", hint="known: " + ", ".join(get_args(Target)))
    if wish.cpu_target not in get_args(CpuTarget):
        raise InputError(f"unknown CPU target {wish.cpu_target!r}", hint="known: " + ", ".join(get_args(CpuTarget)))
    if wish.rocm and backend != "rocm":
        raise InputError(f"an image for {backend} has no ROCm", hint="leave it out, or use --backend rocm")
    cards = [gpu for gpu in gpus if gpu.backend == backend]
    if backend == "cuda":
        return _cuda(cards, wish)
    if wish.saas:
        raise InputError(
            f"GitLab.com's hosted GPU is an NVIDIA T4: an image for {backend} does not use it",
            hint="build the CUDA image for it: --backend cuda --for saas",
        )
    if wish.cuda_major:
        raise InputError(f"an image for {backend} has no CUDA version", hint="leave it out, or use --backend cuda")
    if backend == "rocm":
        return _rocm(cards, wish)
    if backend != "cpu":
        raise InputError(f"there is no job image for the backend {backend!r}", hint="known: cuda, rocm, cpu")
    if wish.archs:
        raise InputError("an image for cpu has no GPU architectures", hint="leave --arch out")
    return JobImageSpec(backend="cpu", target=wish.target, cpu_target=wish.cpu_target)


def _cuda(cards: Sequence[Gpu], wish: Wish) -> JobImageSpec:
    if wish.cuda_major and wish.cuda_major not in CUDA_ARCHS:
        raise InputError(f"there is no image for CUDA {wish.cuda_major}", hint="known: 12 and 13")
    majors = (wish.cuda_major,) if wish.cuda_major else CUDA_MAJORS
    wanted = {_cuda_arch(text) for text in wish.archs if text != ALL_ARCHS}
    if wish.archs:
        # For whatever machine has those: the driver of this one says nothing about it.
        cards = ()
    else:
        wanted = {_known_capability(card) for card in cards}
    if wish.saas:
        wanted.add(_SAAS_ARCH)
    every = ALL_ARCHS in wish.archs
    if not wanted and not every:
        raise PrerequisiteError(
            "no NVIDIA GPU was found to build an image for",
            hint="say for which cards: --arch sm-89, --arch all, or --for saas",
        )
    for major in majors:
        if wanted <= set(CUDA_ARCHS[major]) and all(
            driver_branch(card) >= oldest_driver(major, card) for card in cards
        ):
            archs = tuple(sorted(wanted | set(CUDA_ARCHS[major] if every else ())))
            return JobImageSpec(
                backend="cuda",
                target=wish.target,
                cpu_target=wish.cpu_target,
                cuda_major=major,
                archs=archs,
                driver=_driver_for(major, archs),
            )
    raise _no_cuda(cards, wanted, majors)


def _driver_for(major: int, archs: Iterable[int]) -> int:
    """The driver branch that the image needs on a card of any of its architectures."""
    return min(oldest_driver(major, _card_of(arch)) for arch in archs)


def _card_of(arch: int) -> Gpu:
    return Gpu(backend="cuda", uuid="", name="", pci_address="", memory_bytes=None, arch=f"sm-{arch}")


def _no_cuda(cards: Sequence[Gpu], wanted: set[int], majors: Sequence[int]) -> ApplianceError:
    """Why no CUDA version serves them all: a card, or the driver, is to blame."""
    able = [major for major in majors if wanted <= set(CUDA_ARCHS[major])]
    if not able:
        best = max(majors, key=lambda major: len(wanted & set(CUDA_ARCHS[major])))
        left = ", ".join(f"sm-{arch}" for arch in sorted(wanted - set(CUDA_ARCHS[best])))
        return InputError(
            f"CUDA {best} does not compile for {left}",
            hint="build an image per CUDA version, each with its own --arch; CUDA 12 has sm-50 to sm-121, CUDA 13 "
            "sm-75 to sm-121",
        )
    easiest = min(able)
    card = next(card for card in cards if driver_branch(card) < oldest_driver(easiest, card))
    found = f"driver {card.driver}" if card.driver else "a driver that does not tell its version"
    needs = oldest_driver(easiest, card)
    newest = max(able)
    more = f" ({oldest_driver(newest, card)} for CUDA {newest})" if newest != easiest else ""
    return PrerequisiteError(
        f"{card.name or 'the NVIDIA GPU'} has {found}; an image with CUDA {easiest} needs {needs} or newer{more}",
        hint=f"install NVIDIA's driver {needs} or newer and reboot; or --cpu for a CPU runner",
    )


def _known_capability(card: Gpu) -> int:
    known = capability(card)
    if not known:
        raise PrerequisiteError(
            f"{card.name or 'an NVIDIA GPU'} does not tell its compute capability",
            hint="name it: gpurig images build --arch sm-89; see gpurig doctor for what is wrong with the driver",
        )
    return known


def _cuda_arch(text: str) -> int:
    """89 of "sm-89", "sm_89", "sm89", "89", "8.9".

    Raises:
        InputError: it is none of these.
    """
    match = re.fullmatch(r"(?:sm[-_]?)?(\d{1,2})\.?(\d)", text)
    if not match:
        raise InputError(f"{text!r} is no NVIDIA architecture", hint="write it like sm-89 (gpurig detect shows it)")
    return int(match[1] + match[2])


def _rocm(cards: Sequence[Gpu], wish: Wish) -> JobImageSpec:
    wanted = {_gfx_target(text) for text in wish.archs if text != ALL_ARCHS}
    if ALL_ARCHS in wish.archs:
        wanted |= kernels_of(wish.rocm or ROCM_SOURCES[0])
    if not wish.archs:
        for card in cards:
            if not card.arch:
                raise PrerequisiteError(
                    f"{card.name or 'an AMD GPU'} does not tell its gfx target",
                    hint="name it: gpurig images build --arch gfx1100",
                )
            wanted.add(card.arch)
    if not wanted:
        raise PrerequisiteError(
            "no AMD GPU was found to build an image for", hint="say for which cards: --arch gfx1100, or --arch all"
        )
    build = rocm_build(wanted, wish.rocm or None)
    return JobImageSpec(
        backend="rocm",
        target=wish.target,
        cpu_target=wish.cpu_target,
        gfx=build.targets,
        rocm=build.source,
        runs_as=build.runs_as,
        cards=build.cards,
    )


def _gfx_target(text: str) -> str:
    if not re.fullmatch(r"gfx[0-9]{3,4}[0-9a-f]?", text):
        raise InputError(f"{text!r} is no AMD architecture", hint="write it like gfx1100 (gpurig detect shows it)")
    return text
