"""An image tried as a job would run it: once for each GPU of its backend that this box has."""

from __future__ import annotations

import os
import time
from typing import Any

from gpurig.common.errors import InputError
from gpurig.images.listing import find_image
from gpurig.images.plan import LABEL_BACKEND
from gpurig.provisioning.docker_engine import DockerEngine
from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.plan import job_container
from gpurig.provisioning.wiring import Wiring, wire
from gpurig.runner.box_images import BoxImages
from gpurig.runner.selfchecking import findings

_TIMEOUT_S = 300


def smoke_image(box: BoxImages, tag: str) -> list[dict[str, Any]]:
    """Run `gpurig-job selfcheck` in the image; what it found, with image, GPU and seconds, for each run.

    Where the box has no GPU of the image's backend, it runs without one: what is missing is for it to say.

    Raises:
        PrerequisiteError: the image is not there, the engine cannot hand over a GPU, or the self-check failed.
        InputError: it is no job image of gpurig's.
    """
    engine = box.engine()
    image_id, backend = _image(engine, tag)
    facts = engine.facts()
    both = sorted((*box.host.gpus, *(gpu for gpu, _ in box.host.ignored)), key=lambda gpu: gpu.pci_address)
    cards: list[Gpu | None] = [gpu for gpu in box.host.gpus if gpu.backend == backend]
    runs = []
    for gpu in cards or [None]:
        wiring = wire([gpu], facts, beside=both) if gpu else Wiring()
        spec = job_container(
            ("gpurig-job", "selfcheck", "--backend", backend, "--json"),
            instance=box.settings.name,
            # Two that run at a time must not remove each other's.
            key=f"smoke {tag} {gpu.uuid if gpu else ''} {os.getpid()}",
            image=tag,
            wiring=wiring,
            models=box.paths.models if box.paths.models.is_dir() else None,
        )
        started = time.monotonic()
        found = findings(spec, engine.run(spec, image_id, timeout_s=_TIMEOUT_S))
        seconds = round(time.monotonic() - started, 2)
        runs.append({"image": tag, "gpu": gpu.uuid if gpu else "", **found, "seconds": seconds})
    return runs


def _image(engine: DockerEngine, tag: str) -> tuple[str, str]:
    """The image's id and its backend."""
    image = find_image(engine.client, tag)
    labels = image.labels or {}
    backend = str(labels.get(LABEL_BACKEND, ""))
    if backend not in {"cuda", "rocm", "cpu"}:
        raise InputError(f"{tag} is no job image of gpurig's", hint="gpurig images list shows those that are")
    return str(image.id), backend
