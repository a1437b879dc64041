"""`gpurig status`: the runner, its containers, the running jobs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gpurig.common.terminal import table
from gpurig.runner.commands.instance import instance_options


@click.command(epilog="Example: gpurig status --json")
@instance_options
@click.option("--docker-host", envvar="DOCKER_HOST", help="The engine's socket, where not that of the last up.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(*, name: str, root: Path, docker_host: str | None, as_json: bool) -> None:
    """Show the runner, its containers and the running jobs.

    Exit code 4 where the box is not set up, or its containers do not run; 5
    where GitLab cannot be asked, or does not know the runner.
    """
    from gpurig.provisioning.runners import GivenToken  # noqa: PLC0415 - heavy
    from gpurig.runner.overview import judge, look_around, overview_document  # noqa: PLC0415 - heavy
    from gpurig.runner.world import real_world  # noqa: PLC0415

    # GitLab is asked with the runners' own tokens only.
    seen = look_around(real_world(GivenToken("")), name=name, root=root.absolute(), docker_host=docker_host)
    if as_json:
        click.echo(json.dumps(overview_document(seen), indent=1))
    else:
        rows = [[f"#{one.id}", one.description, one.in_gitlab] for one in seen.runners]
        click.echo(table(["runner", "description", "in GitLab"], rows))
        click.echo()
        click.echo(table(["container", "state"], [[one.name, one.status] for one in seen.containers]))
        click.echo()
        if seen.jobs:
            click.echo(table(["job", "container", "URL"], [[one.job_id, one.container, one.url] for one in seen.jobs]))
        else:
            click.echo("no job runs")
        gpus = [f"{gpu.name or gpu.backend} ({gpu.uuid})" for gpu in seen.host.gpus]
        click.echo("GPUs: " + (", ".join(gpus) or "none"))
    judge(seen)
