"""Images that an instance had built and needs no more.

What another instance needs stays. Those under the same `--root` are known by their files, and those under another one
by what they told the engine, which all share.
"""

from __future__ import annotations

import functools

from gpurig.provisioning.containers import Engine
from gpurig.provisioning.instances import Instance
from gpurig.runner.up_run import UpRun


def use(run: UpRun, tag: str) -> None:
    """Tell the engine that this instance needs an image."""
    me = run.box.box_id
    if me not in run.engine.image_users(tag):
        run.undo.push(f"releasing the image {tag}", functools.partial(run.engine.release_image, tag, me))
        run.engine.use_image(tag, me)


def prune(run: UpRun, others: tuple[Instance, ...]) -> list[str]:
    """Remove the images of former versions; what was removed.

    One that a container uses is left for the next time; one that another instance uses is that one's from now on.
    """
    current = {*run.plan.job_images, run.plan.exporter_image}
    old = tuple(tag for tag in run.state.images if tag not in current)
    theirs = _theirs(run.engine, old, run.settings.name, run.box.box_id, others)
    removed = _remove(run.engine, old, run.box.box_id, theirs)
    left = tuple(
        tag
        for tag in run.state.images
        if tag in current or (tag not in theirs and run.engine.image_id(tag) is not None)
    )
    if left != run.state.images:
        run.save(run.state.model_copy(update={"images": left}))
    return [f"image {tag}" for tag in removed]


def remove_images(
    engine: Engine, tags: tuple[str, ...], name: str, box_id: str, others: tuple[Instance, ...]
) -> list[str]:
    """Remove images unless another instance uses them, too."""
    return _remove(engine, tags, box_id, _theirs(engine, tags, name, box_id, others))


def release_images(engine: Engine, tags: tuple[str, ...], box_id: str) -> None:
    """Tell the engine that this instance needs none of them any more."""
    for tag in tags:
        engine.release_image(tag, box_id)


def _remove(engine: Engine, tags: tuple[str, ...], box_id: str, theirs: set[str]) -> list[str]:
    # Released first: what is not removed after all is found again by its own name.
    release_images(engine, tags, box_id)
    return [tag for tag in tags if tag not in theirs and engine.remove_image(tag)]


def _theirs(engine: Engine, tags: tuple[str, ...], name: str, box_id: str, others: tuple[Instance, ...]) -> set[str]:
    beside = {tag for other in others if other.name != name for tag in other.job_images}
    return beside | {tag for tag in tags if engine.image_users(tag) - {box_id}}
