"""What the box shall become, as far as that is known before or after `up`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpurig.provisioning.listen import METRICS_LISTEN
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.settings import RUNNER_IMAGE, RunnerType


@dataclass(frozen=True)
class Wanted:
    """What the checks hold a box against.

    Attributes:
        paths: where its files go.
        url: its GitLab; "" where nobody has said so yet.
        runner_type: whose runner it shall be; None where nobody has said so yet.
        target: the project or group.
        has_token: a user's token is at hand.
        ca_file: who signed GitLab's certificate; None for those that the machine trusts.
        service: systemd shall run gitlab-runner, not the engine.
        runner_binary: the program for it; the one on PATH where None.
        cpu: GPUs are left alone.
        set_up: `up` has been here: images and models that are there need no more space.
        image_cuda: the CUDA version of a job image, for example "13.0"; "" for the newest that each card runs.
        unread: why the remembered settings could not be read; "" where they could, or there are none.
        unread_hint: what to do about it.
    """

    paths: Paths
    url: str = ""
    runner_type: RunnerType | None = None
    target: str = ""
    has_token: bool = False
    ca_file: Path | None = None
    docker_host: str = ""
    metrics_listen: str = METRICS_LISTEN
    runner_image: str = RUNNER_IMAGE
    helper_image: str = ""
    service: bool = False
    runner_binary: Path | None = None
    cpu: bool = False
    set_up: bool = False
    image_cuda: str = ""
    unread: str = ""
    unread_hint: str = ""
