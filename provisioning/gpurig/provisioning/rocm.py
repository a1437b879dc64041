"""Which build of ROCm runs on which AMD GPU.

llama.cpp multiplies large matrices with rocBLAS, which aborts the process on a target that it has no kernels for. So a
card needs a build whose rocBLAS knows it, whatever llama.cpp itself could be compiled for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from gpurig.common.errors import InputError, PrerequisiteError

# Whose packages: AMD's own (7.2) or Debian's (6.4 in forky), which keeps older cards.
RocmSource = Literal["amd", "debian"]

# The one to prefer first.
ROCM_SOURCES: tuple[RocmSource, ...] = ("amd", "debian")

# The targets with a TensileLibrary_lazy_<target>.dat in rocBLAS's folder. AMD 7.2: as rocBLAS itself lists them where
# it finds none for a card (seen with PyTorch's wheel for ROCm 7.2); its CMakeLists.txt names more, which AMD's packages
# are built without. Debian: librocblas4 6.4.4-4.
_KERNELS: Mapping[RocmSource, frozenset[str]] = {
    "amd": frozenset({
        "gfx908", "gfx90a", "gfx942", "gfx950", "gfx1030", "gfx1100", "gfx1101", "gfx1102", "gfx1150", "gfx1151",
        "gfx1200", "gfx1201",
    }),
    "debian": frozenset({
        "gfx803", "gfx900", "gfx906", "gfx908", "gfx90a", "gfx1010", "gfx1030", "gfx1100", "gfx1101", "gfx1102",
    }),
}  # fmt: skip

# Cards that execute another target's code when the runtime is told so (HSA_OVERRIDE_GFX_VERSION): RDNA2's have one
# instruction set under several names, RDNA1's later ones add to the first's (rocBLAS#1331, #1339). ROCm 7 names these
# targets itself, and is not told.
_RUNS_AS: Mapping[str, str] = {
    "gfx1011": "gfx1010",
    "gfx1012": "gfx1010",
    "gfx1031": "gfx1030",
    "gfx1032": "gfx1030",
    "gfx1034": "gfx1030",
}
_SOURCES_TOLD: frozenset[RocmSource] = frozenset({"debian"})


@dataclass(frozen=True)
class RocmBuild:
    """What a job image for some cards is made with.

    Attributes:
        source: whose ROCm.
        targets: what the kernels are compiled for, and whose data the image holds; sorted.
        runs_as: the one target that the runtime takes every card for; "" where it takes each for what it is.
    """

    source: RocmSource
    targets: tuple[str, ...]
    runs_as: str = ""

    @property
    def cards(self) -> tuple[str, ...]:
        """The targets of the cards that run it, by their own names."""
        others = {card for card, target in _RUNS_AS.items() if target == self.runs_as}
        return tuple(sorted({*self.targets, *others}))


def rocm_build(targets: Iterable[str], source: RocmSource | None = None) -> RocmBuild:
    """The build of one image for all these cards.

    Args:
        targets: the cards' targets, for example "gfx1100".
        source: whose ROCm; the first that has kernels for all where None.

    Raises:
        InputError: no targets, or something that is no target.
        PrerequisiteError: that ROCm has no kernels for one of them, or none has kernels for all.
    """
    wanted = sorted(set(targets))
    if not wanted or not all(_is_target(target) for target in wanted):
        raise InputError(
            f"no gfx target: {', '.join(wanted) or 'none'}", hint="write it like gfx1100; gpurig detect shows a card's"
        )
    for candidate in (source,) if source else ROCM_SOURCES:
        if build := _build(wanted, candidate):
            return build
    raise _no_build(wanted, source)


def kernels_of(source: RocmSource) -> frozenset[str]:
    """The targets that a ROCm's rocBLAS has kernels for."""
    return _KERNELS[source]


def _build(wanted: list[str], source: RocmSource) -> RocmBuild | None:
    if all(target in _KERNELS[source] for target in wanted):
        return RocmBuild(source, tuple(wanted))
    if source not in _SOURCES_TOLD:
        return None
    # The runtime takes every card of the container for the same one.
    compiled = {_RUNS_AS.get(target, target) for target in wanted}
    if len(compiled) == 1 and compiled <= _KERNELS[source]:
        (target,) = compiled
        return RocmBuild(source, (target,), runs_as=target)
    return None


def _no_build(wanted: list[str], source: RocmSource | None) -> PrerequisiteError:
    asked = ROCM_SOURCES if source is None else (source,)
    lacking = [target for target in wanted if not any(_build([target], one) for one in asked)]
    others = [one for one in ROCM_SOURCES if one not in asked and all(_build([target], one) for target in lacking)]
    whose = {"amd": "AMD's ROCm", "debian": "Debian's ROCm"}
    if not lacking:
        return PrerequisiteError(
            f"no single image runs on {', '.join(wanted)}: no ROCm has kernels for all of them",
            hint="build one image for each",
        )
    if others:
        hint = f"{whose[others[0]]} has: --rocm {others[0]}"
    else:
        known = sorted({target for one in asked for target in _KERNELS[one]}, key=_number)
        hint = f"it has them for {', '.join(known)}; gpurig up --cpu ignores the GPUs"
    return PrerequisiteError(
        f"rocBLAS in {' and '.join(whose[one] for one in asked)} has no kernels for {', '.join(lacking)}", hint=hint
    )


def _is_target(target: str) -> bool:
    digits = target.removeprefix("gfx")
    return target != digits and len(digits) in {3, 4} and all(digit in "0123456789abcdef" for digit in digits)


def _number(target: str) -> tuple[int, str]:
    return len(target), target
