"""Fixtures for the stand-ins; tests/conftest.py loads this as a plugin."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gpurig.images.build import ensure_image
from gpurig.images.job_image import plan_job_image
from gpurig.images.job_spec import JobImageSpec
from gpurig.images.plan import ImagePlan

from standins import images
from standins.gitlab import GitLab
from standins.missing import missing
from standins.reference import PYTHON, Reference

if TYPE_CHECKING:
    import docker


@pytest.fixture
def gitlab() -> Iterator[GitLab]:
    """A GitLab on the loopback address."""
    with GitLab() as server:
        yield server


@pytest.fixture
def tls_gitlab() -> Iterator[GitLab]:
    """A GitLab on the loopback address, with a certificate by `ca_file`."""
    with GitLab(tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def job_plan(base_image: str) -> ImagePlan:
    """The CPU job image of this checkout, on the tests' base."""
    return plan_job_image(JobImageSpec("cpu"), base_image=base_image)


@pytest.fixture(scope="session")
def job_image(engine: docker.DockerClient, job_plan: ImagePlan) -> str:
    """The CPU job image; llama.cpp compiles for minutes where the engine has no layer of it."""
    return ensure_image(engine, job_plan).tag


@pytest.fixture(scope="session")
def bridge_address(engine: docker.DockerClient) -> str:
    """This machine's address as containers on the engine's default network see it."""
    address = str(engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"])
    try:
        with socket.create_server((address, 0)):
            return address
    except OSError as error:
        missing(f"the engine's network is not this machine's ({address}: {error.strerror})", "GPURIG_REQUIRE_DOCKER")


@pytest.fixture
def reachable_gitlab(bridge_address: str) -> Iterator[GitLab]:
    """A GitLab that containers and this process reach by the same URL."""
    with GitLab(bridge_address) as server:
        yield server


@pytest.fixture(scope="session")
def standin_runner_image(engine: docker.DockerClient, base_image: str) -> str:
    """A runner's image for `--runner-image`: a real gitlab-runner's where GPURIG_GITLAB_RUNNER names its binary."""
    binary = os.environ.get("GPURIG_GITLAB_RUNNER")
    return images.real_runner(engine, base_image, Path(binary)) if binary else images.standin_runner(engine, base_image)


@pytest.fixture(scope="session")
def reference() -> Reference:
    """PyTorch, Transformers and lm-evaluation-harness, in an environment of their own."""
    if not (PYTHON.parents[1] / ".done").is_file():
        missing("there is no build/reference-venv: make reference", "GPURIG_REQUIRE_REFERENCE")
    return Reference(PYTHON)
