"""The fake NVML as a fixture; tests/conftest.py loads this as a plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from standins.nvml.library import FakeNvml, build_library


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled libnvidia-ml.so.1."""
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def fake_nvml(nvml_library: Path, tmp_path: Path) -> FakeNvml:
    """A fake NVML with a driver and no card; `set` changes it."""
    fake = FakeNvml(nvml_library, tmp_path / "nvml.txt")
    fake.set({"driver": "580.95.05", "nvml": "13.580.95.05", "cuda": 13000})
    return fake
