"""What a test does when this machine lacks what it needs."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str, requirement: str) -> NoReturn:
    """Skip because `what` is missing, or fail where the environment says that it must be there.

    Args:
        what: the reason, as the test report shows it.
        requirement: the variable that makes a skip a failure, for example "GPURIG_REQUIRE_DOCKER".
    """
    if os.environ.get(requirement) == "1":
        pytest.fail(f"{what}, and {requirement}=1 demands it")
    pytest.skip(what)
