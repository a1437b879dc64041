"""Which driver and library a source reads its GPUs through."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DriverFacts:
    """A vendor's driver.

    Attributes:
        backend: "cuda" or "rocm".
        driver: the kernel driver's version; "" where unknown.
        library: the version of the library that it is read with; "" without one.
        cuda: the highest CUDA version that the driver supports, "12.8"; "" for AMD.
    """

    backend: str
    driver: str
    library: str = ""
    cuda: str = ""
