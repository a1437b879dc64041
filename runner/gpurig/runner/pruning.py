"""Images that an instance had built and needs no more."""

from __future__ import annotations

from gpurig.provisioning.containers import Engine
from gpurig.provisioning.instances import Instance
from gpurig.runner.up_run import UpRun


def prune(run: UpRun, others: tuple[Instance, ...]) -> list[str]:
    """Remove the images of former versions; what was removed.

    One that a container uses is left for the next time; one that another instance uses is that one's from now on.
    """
    current = {*run.plan.job_images, run.plan.exporter_image}
    old = tuple(tag for tag in run.state.images if tag not in current)
    removed = remove_images(run.engine, old, run.settings.name, others)
    theirs = _theirs(run.settings.name, others)
    left = tuple(
        tag
        for tag in run.state.images
        if tag in current or (tag not in theirs and run.engine.image_id(tag) is not None)
    )
    if left != run.state.images:
        run.save(run.state.model_copy(update={"images": left}))
    return [f"image {tag}" for tag in removed]


def remove_images(engine: Engine, tags: tuple[str, ...], name: str, others: tuple[Instance, ...]) -> list[str]:
    """Remove images unless another instance of the box uses them, too."""
    theirs = _theirs(name, others)
    return [tag for tag in tags if tag not in theirs and engine.remove_image(tag)]


def _theirs(name: str, others: tuple[Instance, ...]) -> set[str]:
    return {tag for other in others if other.name != name for tag in other.job_images}
