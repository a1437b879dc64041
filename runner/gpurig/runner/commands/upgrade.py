"""`gpurig upgrade`: everything on the box as this version of gpurig has it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gpurig.common.errors import PrerequisiteError
from gpurig.runner.commands.finishing import finish, outcome
from gpurig.runner.commands.instance import UserToken, instance_options, say_step


@click.command(epilog="Example: pip install --upgrade gpurig && gpurig upgrade")
@instance_options
@click.option("--wait", "drain_s", type=click.IntRange(0), help="Seconds for running jobs to end. [what up was told]")
@click.option("--keep", is_flag=True, help="Keep the images of former versions.")
@click.option("--pull", is_flag=True, help="Pull gitlab-runner's images again, for tags that move.")
@click.option("--token-file", metavar="FILE", help="Only where a runner must be created.")
@click.option(
    "--image-archive",
    "archives",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Images from `docker save`, loaded where some are missing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@click.option("--verbose", "-v", is_flag=True, help="Show the output of image builds.")
def upgrade(
    *,
    name: str,
    root: Path,
    drain_s: int | None,
    keep: bool,
    pull: bool,
    token_file: str | None,
    archives: tuple[Path, ...],
    as_json: bool,
    verbose: bool,
) -> None:
    """Bring runner, exporter and job images to this version of gpurig.

    It is an `up` with the settings of the last one, after which the images of
    former versions are removed. The new images are made first; then the
    runner ends its running jobs (SIGQUIT), and its successor starts.
    """
    from gpurig.provisioning.paths import Paths  # noqa: PLC0415 - heavy
    from gpurig.provisioning.settings import check_name  # noqa: PLC0415
    from gpurig.provisioning.state import load_state  # noqa: PLC0415
    from gpurig.runner.up_run import prepare  # noqa: PLC0415
    from gpurig.runner.world import real_world  # noqa: PLC0415

    check_name(name)
    world, paths = real_world(UserToken(token_file)), Paths(root=root.absolute(), name=name)
    if not load_state(world.disk, paths).registrations:
        raise PrerequisiteError(
            f"this box is not set up: {paths.state} names no runner",
            hint="gpurig up --url https://gitlab.example.com --project 42 --token-file FILE",
        )
    run = prepare(
        world,
        {"name": name},
        name=name,
        root=root.absolute(),
        say=lambda step, text: say_step(step, text, to_stderr=as_json),
        on_line=(lambda line: click.echo(f"            {line}", err=True)) if verbose else (lambda _: None),
        drain_s=drain_s,
        archives=archives,
        prune=not keep,
        pull=pull,
    )
    finish(run)
    if as_json:
        click.echo(json.dumps(outcome(run), indent=1))
