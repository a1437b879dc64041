"""The GPUs and their drivers: usable, and new enough for the CUDA of the job image."""

from __future__ import annotations

from collections.abc import Sequence

from gpurig.provisioning.cuda import (
    CUDA_MAJORS,
    capability,
    cuda_major_for,
    driver_branch,
    oldest_arch,
    oldest_driver,
)
from gpurig.provisioning.distribution import Distribution
from gpurig.provisioning.doctor.finding import Finding
from gpurig.provisioning.facts import Gpu, HostFacts
from gpurig.provisioning.versions import numbers


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
    """Whether NVIDIA's driver runs the CUDA of the job image on these cards.

    Args:
        host: what detection found.
        image_cuda: the job image's CUDA version; "" where the newest that fits is chosen for each card.
        where: the distribution.
        cpu: a CPU runner is wanted.
    """
    cards = nvidia(host, cpu=cpu)
    if not cards:
        return (Finding("driver", "skipped", "no NVIDIA GPU"),)
    if not all(driver_branch(gpu) for gpu in cards):
        return (Finding("driver", "warning", "the NVIDIA driver does not tell its version"),)
    if numbers(image_cuda):
        return (_against(cards, image_cuda, where),)
    chosen = [cuda_major_for(gpu) for gpu in cards]
    newest, oldest = CUDA_MAJORS[0], CUDA_MAJORS[-1]
    if None in chosen:
        return (_against([cards[chosen.index(None)]], str(oldest), where),)
    least = max(oldest_driver(oldest, gpu) for gpu in cards)
    needed = f"{least} or newer; {oldest_driver(newest, cards[0])} for CUDA {newest}"
    majors = " and ".join(f"CUDA {major}" for major in dict.fromkeys(chosen))
    return (Finding("driver", "ok", f"runs job images with {majors}", found=_drivers(cards), needed=needed),)


def _against(cards: Sequence[Gpu], image_cuda: str, where: Distribution) -> Finding:
    major = numbers(image_cuda)[0]
    dropped = next((gpu for gpu in cards if 0 < capability(gpu) < oldest_arch(major)), None)
    if dropped is not None:
        return Finding(
            "driver",
            "failed",
            f"CUDA {major} has no code for {dropped.name or 'this GPU'} ({dropped.arch})",
            found=dropped.arch,
            needed=f"sm-{oldest_arch(major)} or newer",
            hint="its jobs need an image with an older CUDA; for CPU jobs alone: gpurig up --cpu",
        )
    oldest = max(oldest_driver(major, gpu) for gpu in cards)
    needed = f"{oldest} or newer for CUDA {image_cuda}"
    if all(driver_branch(gpu) >= oldest for gpu in cards):
        return Finding("driver", "ok", f"runs CUDA {image_cuda}", found=_drivers(cards), needed=needed)
    return Finding(
        "driver",
        "failed",
        f"the NVIDIA driver {_drivers(cards)} is too old for job images with CUDA {image_cuda}",
        found=_drivers(cards),
        needed=needed,
        commands=where.install("nvidia-driver", by_hand=True),
        hint="then reboot; where the distribution has none that new: nvidia.com/drivers",
    )


def nvidia(host: HostFacts, *, cpu: bool) -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that jobs are meant to get."""
    return () if cpu else tuple(gpu for gpu in host.gpus if gpu.backend == "cuda")


def _drivers(cards: Sequence[Gpu]) -> str:
    return ", ".join(dict.fromkeys(gpu.driver for gpu in cards if gpu.driver))
