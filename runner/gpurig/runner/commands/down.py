"""`gpurig down`: stop, and unregister where asked."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gpurig.common.errors import InputError
from gpurig.runner.commands.instance import UserToken, instance_options, say_step


@click.command(epilog="Example: gpurig down --unregister")
@instance_options
@click.option("--unregister", is_flag=True, help="Delete the runners in GitLab, and all files but the models.")
@click.option("--images", is_flag=True, help="With --unregister: remove the images that were built for it, too.")
@click.option("--wait", "drain_s", type=click.IntRange(0), help="Seconds for running jobs to end. [what up was told]")
@click.option("--docker-host", envvar="DOCKER_HOST", help="The engine's socket, where not that of the last up.")
@click.option("--token-file", metavar="FILE", help="Only where an up was killed while it created a runner.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def down(
    *,
    name: str,
    root: Path,
    unregister: bool,
    images: bool,
    drain_s: int | None,
    docker_host: str | None,
    token_file: str | None,
    as_json: bool,
) -> None:
    """Stop; --unregister also removes the runner from GitLab.

    The runner stops after its running jobs, then the exporter; `gpurig up`
    starts them again. With --unregister the runners are deleted in GitLab by
    their own tokens, and only the models stay.
    """
    if images and not unregister:
        raise InputError("--images goes with --unregister", hint="gpurig down --unregister --images")
    from gpurig.runner.taking_down import take_down  # noqa: PLC0415 - heavy
    from gpurig.runner.world import real_world  # noqa: PLC0415

    done: list[dict[str, str]] = []

    def say(step: str, text: str) -> None:
        done.append({"step": step, "text": text})
        say_step(step, text, to_stderr=as_json)

    take_down(
        real_world(UserToken(token_file)),
        name=name,
        root=root.absolute(),
        docker_host=docker_host,
        unregister=unregister,
        images=images,
        drain_s=drain_s,
        say=say,
    )
    if as_json:
        click.echo(json.dumps({"version": 1, "done": done}, indent=1))
