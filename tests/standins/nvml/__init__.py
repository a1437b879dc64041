"""A fake libnvidia-ml.so.1, driven by a text file: README.md describes it."""

from __future__ import annotations

from standins.nvml.cdi import write_cdi_spec
from standins.nvml.library import FakeNvml, build_library, state_text

__all__ = ["FakeNvml", "build_library", "state_text", "write_cdi_spec"]
