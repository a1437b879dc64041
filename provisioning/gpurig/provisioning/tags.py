"""A runner entry's tags, from the GPUs it owns: GitLab gives a job to a runner that has ALL the job's tags."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.vram import vram_classes_gb

# What vendors write around the model, and what a slug can do without.
_NOISE = re.compile(
    r"\b(nvidia|amd|ati|advanced micro devices|geforce|radeon|tesla|instinct|graphics|corporation|inc|generation|"
    r"gpu|nvgpu|series)\b|\((tm|r|c)\)|[™®©]",
    re.IGNORECASE,
)
_SPLIT = re.compile(r"[^a-z0-9]+")


def short_name(name: str) -> str:
    """A product's name as people say it: "NVIDIA GeForce RTX 4090" is "RTX 4090"; the whole where nothing is left."""
    return " ".join(_NOISE.sub(" ", name).split()) or name


def model_slug(name: str) -> str:
    """A product's name as a tag: "NVIDIA GeForce RTX 4090" is `rtx-4090`; "" where the name says nothing."""
    # "Graphics Device" is what a driver calls a card that is newer than itself.
    if name.strip().lower() in {"graphics device", "nvidia graphics device", "amd radeon graphics"}:
        return ""
    words = _SPLIT.split(_NOISE.sub(" ", name).lower())
    return "-".join(word for word in words if word)


def tags_for(gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """The tags of a runner entry that owns `gpus`; `("gpurig", "cpu")` for none.

    A tag is a promise that holds for every GPU of the entry, because a job cannot know which of them it uses: the
    memory classes are those of the smallest one, and architecture, model and `unified` are there only where all
    agree. Cumulative where a job says "at least": the memory classes up to the GPU's own, and the counts up to the
    entry's own where it has several (each up to 8, then powers of two: GitLab allows a runner 50 tags).

    Returns:
        Unique tags in a fixed order: gpurig, gpu, backend, memory classes ascending, count, unified, architecture,
        model.
    """
    if not gpus:
        return ("gpurig", "cpu")
    tags = ["gpurig", "gpu", *(gpu.backend for gpu in gpus)]
    sizes = [gpu.memory_bytes for gpu in gpus]
    known = [size for size in sizes if size is not None]
    if len(known) == len(sizes):
        tags += [f"vram-{size}gb" for size in vram_classes_gb(min(known))]
    if len(gpus) > 1:
        tags += [f"gpus-{count}" for count in _counts(len(gpus))]
    if all(gpu.unified for gpu in gpus):
        tags.append("unified")
    for kind in ({gpu.arch for gpu in gpus}, {model_slug(gpu.name) for gpu in gpus}):
        tags += kind if len(kind) == 1 and "" not in kind else ()
    return tuple(dict.fromkeys(tags))


def _counts(owned: int) -> list[int]:
    counts = [*range(1, 9), *(2**power for power in range(4, 11)), owned]
    return sorted({count for count in counts if count <= owned})
