"""Which CUDA runs on which driver and card."""

from __future__ import annotations

from collections.abc import Mapping

from gpurig.provisioning.facts import Gpu

# Newest first: the major versions that job images are made with.
CUDA_MAJORS = (13, 12)

# The oldest driver branch of each major version ("minor version compatibility").
# Source: NVIDIA, CUDA Compatibility, table "CUDA Toolkit and minimum required driver version".
_OLDEST_DRIVER: Mapping[int, int] = {12: 525, 13: 580}
# The oldest compute capability that a major version compiles for: CUDA 13 dropped Maxwell, Pascal and Volta.
_OLDEST_ARCH: Mapping[int, int] = {12: 50, 13: 75}
# Blackwell came with CUDA 12.8 and driver 570.
_BLACKWELL = 100
_BLACKWELL_DRIVER = 570


def oldest_driver(major: int, gpu: Gpu) -> int:
    """The driver branch that a card needs at least for a CUDA major version; 0 for a version that is not known."""
    return max(_OLDEST_DRIVER.get(major, 0), _BLACKWELL_DRIVER if capability(gpu) >= _BLACKWELL else 0)


def oldest_arch(major: int) -> int:
    """The compute capability, ten times, that a CUDA major version needs at least; 0 where that is not known."""
    return _OLDEST_ARCH.get(major, 0)


def capability(gpu: Gpu) -> int:
    """The compute capability, ten times: 89 of "sm-89"; 0 where it is not known."""
    digits = gpu.arch.removeprefix("sm-")
    return int(digits) if digits.isdigit() else 0


def driver_branch(gpu: Gpu) -> int:
    """580 of driver "580.95.05"; 0 where it is not known."""
    branch = gpu.driver.partition(".")[0]
    return int(branch) if branch.isdigit() else 0


def cuda_major_for(gpu: Gpu) -> int | None:
    """The newest CUDA major version whose images run on a card with its driver; None where none does."""
    for major in CUDA_MAJORS:
        known = capability(gpu)
        if driver_branch(gpu) >= oldest_driver(major, gpu) and (not known or known >= oldest_arch(major)):
            return major
    return None
