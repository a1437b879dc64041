"""`gpurig images`: the job images. Each command is a module of its own."""

from __future__ import annotations

from gpurig.common.lazy import LazyCommand, LazyGroup

_HERE = "gpurig.runner.commands"

COMMANDS = {
    "build": LazyCommand(f"{_HERE}.images_build:build", "Build the job image for this box, or for another one."),
    "list": LazyCommand(f"{_HERE}.images_list:list_images", "Show gpurig's images on the engine."),
    "push": LazyCommand(f"{_HERE}.images_push:push", "Push a job image to a container registry."),
    "smoke": LazyCommand(f"{_HERE}.images_smoke:smoke", "Run an image as a job would and ask which devices it sees."),
}

images = LazyGroup(
    name="images",
    lazy=COMMANDS,
    help="Build, show, push and try the images that jobs run in.",
    epilog="Example: gpurig images build --dry-run",
    no_args_is_help=True,
)
