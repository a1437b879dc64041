"""The image that the exporter runs in."""

from __future__ import annotations

from gpurig.images.context import ContextFile, asset_file, package_files
from gpurig.images.job_image import DEFAULT_BASE_IMAGE, checked_base
from gpurig.images.plan import ImagePlan, Transport, plan_image

_DOCKERFILE = "Dockerfile.exporter"
# Shared with the job images, at the place where a checkout has it.
_PYTHON_STEP = "steps/python.sh"
_PACKAGES = ("gpurig.common", "gpurig.provisioning", "gpurig.images", "gpurig.runner")


def plan_exporter_image(*, base_image: str = DEFAULT_BASE_IMAGE, transport: Transport | None = None) -> ImagePlan:
    """The exporter's image: `gpurig` with what the box needs, without models and without evaljobs.

    Args:
        base_image: an image that has python3 ≥ 3.11, or apt-get to get it from.
        transport: how the build reaches the package indexes; directly where None.

    Raises:
        InputError: no image reference, an unusable transport.
        PrerequisiteError: this installation lacks a file that the image is made of.
    """
    dockerfile = asset_file("gpurig.runner", _DOCKERFILE)
    sources: list[ContextFile] = [file for package in _PACKAGES for file in package_files(package, assets=False)]
    return plan_image(
        "gpurig-exporter",
        title="gpurig metrics exporter",
        dockerfile=_DOCKERFILE,
        files=(
            dockerfile,
            asset_file("gpurig.images", "requirements/box.lock"),
            asset_file("gpurig.images", _PYTHON_STEP, path=f"images/gpurig/images/assets/{_PYTHON_STEP}"),
            *sources,
        ),
        build_args={"BASE_IMAGE": checked_base(base_image)},
        labels={},
        transport=transport or Transport(),
    )
