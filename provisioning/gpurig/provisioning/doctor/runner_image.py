"""gitlab-runner's image: on the engine, or in a registry that the engine reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpurig.provisioning.distribution import Command
from gpurig.provisioning.doctor.finding import Finding


@dataclass(frozen=True)
class ImageSeen:
    """An image, as the engine and its registry know it.

    Attributes:
        name: with its tag.
        present: the engine has it.
        problem: why the registry did not give it; "" where it has it, or was not asked.
        hint: what to do about it.
    """

    name: str
    present: bool
    problem: str = ""
    hint: str = ""


def judge(images: Sequence[ImageSeen]) -> tuple[Finding, ...]:
    """One finding for the runner's images: the worst."""
    missing = next((image for image in images if not image.present and image.problem), None)
    if missing is not None:
        return (
            Finding(
                "runner image",
                "failed",
                missing.problem,
                found="missing",
                needed=missing.name,
                commands=(Command(("docker", "pull", missing.name), by_hand=True, as_root=False),),
                hint=f"{missing.hint}; without a network: docker load -i FILE" if missing.hint else "",
                area="gitlab",
            ),
        )
    absent = [image.name for image in images if not image.present]
    message = "its registry has it: up pulls it" if absent else "on the engine"
    return (Finding("runner image", "ok", message, found=absent[0] if absent else images[0].name, area="gitlab"),)
