"""What the commands of `gpurig images` share: which box and engine, which image, and how a build reaches the world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gpurig.runner.commands.instance import instance_options

if TYPE_CHECKING:
    from gpurig.runner.box_images import BoxImages

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path, dir_okay=False)

_ENGINE = (click.option("--docker-host", envvar="DOCKER_HOST", help="The engine's socket. [the one of `up`]"),)
_WHICH = (
    click.option(
        "--backend", type=click.Choice(["auto", "cuda", "rocm", "cpu"]), default="auto", help="auto: this box's. [auto]"
    ),
    click.option("--target", type=click.Choice(["eval", "finetune"]), default="eval", help="What jobs do. [eval]"),
    click.option("--for", "purpose", type=click.Choice(["saas"]), help="saas: GitLab.com's T4 as well."),
    click.option("--arch", metavar="LIST", help="For other cards than this box's: 89,75 or gfx1100, or all."),
    click.option("--cuda", "cuda_major", type=click.Choice(["12", "13"]), help="CUDA's version. [what the box takes]"),
    click.option(
        "--rocm", type=click.Choice(["amd", "debian"]), help="Whose ROCm. [the first with kernels for the cards]"
    ),
    click.option(
        "--cpu-target",
        type=click.Choice(["x86-64-v2", "x86-64-v3", "x86-64-v4"]),
        help="The x86-64 level. [x86-64-v3]",
    ),
    click.option("--base-image", help="What it stands on. [python:3.12-slim, pinned]"),
    click.option("--toolkit-image", help="Where the GPU vendor's compiler comes from. [the backend's own]"),
    click.option("--torch-index-url", help="Where PyTorch for the backend comes from. [packages' own index: CUDA 13]"),
    click.option("--registry-mirror", metavar="HOST[/PATH]", help="Where default images come from. [Docker Hub]"),
)
_TRANSPORT = (
    click.option("--pip-index-url", help="Where Python packages come from; no password here: --netrc."),
    click.option("--netrc", type=_FILE, help="Users and passwords of hosts, a secret of the build (BuildKit)."),
    click.option("--build-ca-bundle", type=_FILE, help="Certificate authorities that the build trusts (PEM)."),
    click.option("--http-proxy", envvar=["HTTP_PROXY", "http_proxy"], help="Proxy of the build."),
    click.option("--https-proxy", envvar=["HTTPS_PROXY", "https_proxy"], help="The same for https."),
    click.option("--no-proxy", envvar=["NO_PROXY", "no_proxy"], help="Hosts that need no proxy, by commas."),
)


def _with(command: F, options: tuple[Callable[[F], F], ...]) -> F:
    for option in reversed(options):
        command = option(command)
    return command


def engine_options(command: F) -> F:
    """Which engine, and which instance's settings count."""
    return _with(instance_options(command), _ENGINE)


def which_options(command: F) -> F:
    """Which image."""
    return _with(command, _WHICH)


def transport_options(command: F) -> F:
    """How a build reaches package indexes and registries."""
    return _with(command, _TRANSPORT)


def box_images(options: Mapping[str, Any], *, name: str, root: Path) -> BoxImages:
    """This box's images with what the options say.

    Raises:
        InputError, PrerequisiteError: see BoxImages.
    """
    from gpurig.runner.box_images import BoxImages  # noqa: PLC0415 - heavy

    return BoxImages(options, name=name, root=root.absolute())
