"""The GPUs and their drivers: usable, and new enough for the CUDA of the job image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpurig.provisioning.distribution import Distribution
from gpurig.provisioning.doctor.finding import Finding
from gpurig.provisioning.doctor.versions import numbers, older
from gpurig.provisioning.facts import Gpu, HostFacts

# The oldest driver branch of each CUDA major version ("minor version compatibility").
# Source: NVIDIA, CUDA Compatibility, table "CUDA Toolkit and minimum required driver version".
_OLDEST_DRIVER: Mapping[int, int] = {11: 450, 12: 525, 13: 580}
# Blackwell came with CUDA 12.8 and driver 570.
_BLACKWELL = 100
_BLACKWELL_DRIVER = 570
# CUDA 13 dropped Maxwell, Pascal and Volta: Turing (7.5) is the oldest it compiles for.
_OLDEST_ARCH: Mapping[int, int] = {12: 50, 13: 75}


def judge(host: HostFacts, *, cpu: bool) -> tuple[Finding, ...]:
    """One finding a problem that detection met; one that all is well where it met none.

    Args:
        host: what detection found.
        cpu: a CPU runner is wanted, so that a broken GPU is in nobody's way.
    """
    found = ", ".join(dict.fromkeys(gpu.name or gpu.arch or gpu.backend for gpu in host.gpus)) or "none"
    problems = tuple(
        Finding(
            "gpu",
            "failed" if problem.unusable and not cpu else "warning",
            problem.message,
            found=found,
            hint=_or_cpu(problem.hint) if problem.unusable and not cpu else problem.hint,
        )
        for problem in host.problems
    )
    if problems:
        return problems
    message = f"{len(host.gpus)} that jobs can use" if host.gpus else "no GPU: this box becomes a CPU runner"
    return (Finding("gpu", "ok", message, found=found),)


def _or_cpu(hint: str) -> str:
    return f"{hint}; or gpurig up --cpu for a CPU runner" if hint else "gpurig up --cpu makes a CPU runner"


def judge_driver(host: HostFacts, image_cuda: str, where: Distribution, *, cpu: bool) -> tuple[Finding, ...]:
    """Whether NVIDIA's driver runs the CUDA of the job image, on these cards."""
    cards = nvidia(host, cpu=cpu)
    if not cards:
        return (Finding("driver", "skipped", "no NVIDIA GPU"),)
    if not numbers(image_cuda):
        return (Finding("driver", "skipped", "no job image with CUDA is planned", found=_drivers(cards)),)
    major = numbers(image_cuda)[0]
    unsupported = [gpu for gpu in cards if 0 < _arch(gpu) < _OLDEST_ARCH.get(major, 0)]
    if unsupported:
        gpu = unsupported[0]
        return (
            Finding(
                "driver",
                "failed",
                f"CUDA {major} of the job image has no code for {gpu.name or 'this GPU'} ({gpu.arch})",
                found=gpu.arch,
                needed=f"sm-{_OLDEST_ARCH[major]} or newer",
                hint="its jobs need an image with an older CUDA; for CPU jobs alone: gpurig up --cpu",
            ),
        )
    oldest = max(_OLDEST_DRIVER.get(major, 0), *(_BLACKWELL_DRIVER if _arch(gpu) >= _BLACKWELL else 0 for gpu in cards))
    needed = f"{oldest} or newer for CUDA {image_cuda}"
    unknown = [gpu for gpu in cards if not numbers(gpu.driver)]
    if unknown:
        return (Finding("driver", "warning", "the NVIDIA driver does not tell its version", needed=needed),)
    if any(older(gpu.driver, (oldest,)) for gpu in cards):
        return (
            Finding(
                "driver",
                "failed",
                f"the NVIDIA driver {_drivers(cards)} is too old for the CUDA {image_cuda} of the job image",
                found=_drivers(cards),
                needed=needed,
                commands=where.install("nvidia-driver", by_hand=True),
                hint="then reboot; where the distribution has none that new: nvidia.com/drivers",
            ),
        )
    return (Finding("driver", "ok", "runs the job image's CUDA", found=_drivers(cards), needed=needed),)


def nvidia(host: HostFacts, *, cpu: bool) -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that jobs are meant to get."""
    return () if cpu else tuple(gpu for gpu in host.gpus if gpu.backend == "cuda")


def _drivers(cards: Sequence[Gpu]) -> str:
    return ", ".join(dict.fromkeys(gpu.driver for gpu in cards if gpu.driver))


def _arch(gpu: Gpu) -> int:
    """89 of "sm-89"; 0 where it is not known."""
    digits = gpu.arch.removeprefix("sm-")
    return int(digits) if digits.isdigit() else 0
