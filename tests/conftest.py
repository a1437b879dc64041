"""Fixtures for every test: the engine that answers, and nothing else from outside."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest
from standins.missing import missing
from standins.own_engine import copy_image

if TYPE_CHECKING:
    import docker

_REQUIRE_LEGACY = "GPURIG_REQUIRE_LEGACY_DOCKER"

pytest_plugins = ["standins.fixtures", "standins.hub.fixtures", "standins.nvml.fixtures"]


def pytest_configure() -> None:
    """Let programs that a test starts be interrupted, and property tests take their time.

    A shell lets what runs in its background ignore SIGINT, and the children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Hypothesis' limit of 200 ms an example judges the machine that runs it; what must be fast has a benchmark.
    hypothesis.settings.register_profile("gpurig", deadline=None)
    hypothesis.settings.load_profile("gpurig")


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A client of a Docker Engine that answers; skips where there is none."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except DockerException as error:
        missing(f"no Docker Engine answers ({type(error).__name__})", "GPURIG_REQUIRE_DOCKER")
    yield client
    client.close()


@pytest.fixture(scope="session")
def legacy_address() -> str:
    """Where the oldest engine that gpurig works with listens, beside the other: GPURIG_LEGACY_DOCKER_HOST."""
    return os.environ.get("GPURIG_LEGACY_DOCKER_HOST", "unix:///run/docker-legacy.sock")


@pytest.fixture(scope="session")
def legacy_engine(legacy_address: str) -> Iterator[docker.DockerClient]:
    """A client of the oldest engine; skips where it does not answer."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.DockerClient(base_url=legacy_address, timeout=600)
        client.ping()
    except DockerException as error:
        missing(f"no second, oldest engine answers at {legacy_address} ({type(error).__name__})", _REQUIRE_LEGACY)
    yield client
    client.close()


@pytest.fixture(scope="session")
def legacy_base_image(engine: docker.DockerClient, legacy_engine: docker.DockerClient, base_image: str) -> str:
    """The base image, on the oldest engine too."""
    copy_image(engine, legacy_engine, base_image)
    return base_image


@pytest.fixture(scope="session")
def base_image(engine: docker.DockerClient) -> str:
    """A Debian base image with python3 and pip that the engine has: GPURIG_BASE_IMAGE, or the default's name."""
    from docker.errors import ImageNotFound

    name = os.environ.get("GPURIG_BASE_IMAGE", "gpurig-base:bookworm")
    try:
        engine.images.get(name)
    except ImageNotFound:
        missing(f"the engine has no base image {name} (GPURIG_BASE_IMAGE names another)", "GPURIG_REQUIRE_DOCKER")
    return name
