"""A hub with one model, and somebody who pulls from it, as fixtures; tests/conftest.py loads this as a plugin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from standins.hub import Hub
from standins.pulling import FILE, REPO, Puller, model_bytes


@pytest.fixture(scope="session")
def model_data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound model."""
    return model_bytes(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def other_data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Another sound model."""
    return model_bytes(tmp_path_factory.mktemp("model"), seed=2)


@pytest.fixture
def hub(model_data: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has `model_data` in REPO, for a user whose environment says nothing of hubs."""
    import huggingface_hub

    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with Hub() as server:
        server.commit(REPO, {FILE: model_data})
        yield server
    huggingface_hub.close_session()


@pytest.fixture
def puller(tmp_path: Path, hub: Hub) -> Puller:
    """Somebody who pulls from `hub` into an empty folder."""
    return Puller.of_hub(tmp_path / "models", hub)
