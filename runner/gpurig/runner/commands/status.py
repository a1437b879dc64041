"""`gpurig status`: the runner, its containers, the running jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.common.terminal import harmless, table
from gpurig.runner.commands.instance import instance_options

if TYPE_CHECKING:
    from gpurig.runner.overview import Overview
    from gpurig.runner.world import World


@click.command(epilog="Example: gpurig status --json")
@instance_options
@click.option("--all", "everything", is_flag=True, help="Every instance below --root, one line each.")
@click.option("--docker-host", envvar="DOCKER_HOST", help="The engine's socket, where not that of the last up.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(*, name: str, root: Path, everything: bool, docker_host: str | None, as_json: bool) -> None:
    """Show the runner, its containers and the running jobs.

    Exit code 4 where the box is not set up, or its runner does not run; 5
    where GitLab cannot be asked, or does not know the runner.
    """
    from gpurig.provisioning.runners import GivenToken  # noqa: PLC0415 - heavy
    from gpurig.runner.overview import judge, look_around, overview_document  # noqa: PLC0415 - heavy
    from gpurig.runner.world import real_world  # noqa: PLC0415

    # GitLab is asked with the runners' own tokens only.
    world = real_world(GivenToken(""))
    if everything:
        if name != "gpurig":
            raise InputError("--all and --name exclude each other", hint="gpurig status --all")
        _all(world, root=root.absolute(), docker_host=docker_host, as_json=as_json)
        return
    seen = look_around(world, name=name, root=root.absolute(), docker_host=docker_host)
    if as_json:
        click.echo(json.dumps(overview_document(seen), indent=1))
    else:
        _show(seen)
    judge(seen)


def _show(seen: Overview) -> None:
    rows = [[f"#{one.id}", one.description, one.in_gitlab, one.token(seen.now)] for one in seen.runners]
    click.echo(table(["runner", "description", "in GitLab", "token lasts"], rows))
    click.echo()
    if seen.service is not None:
        boot = "starts at boot" if seen.service.enabled else "does not start at boot"
        click.echo(table(["service", "state", ""], [[seen.service.name, seen.service.status, boot]]))
        click.echo()
    click.echo(table(["container", "state"], [[one.name, one.status] for one in seen.containers]))
    click.echo()
    if seen.jobs:
        click.echo(table(["job", "container", "URL"], [[one.job_id, one.container, one.url] for one in seen.jobs]))
    else:
        click.echo("no job runs")
    gpus = [f"{gpu.name or gpu.backend} ({gpu.uuid})" for gpu in seen.host.gpus]
    click.echo("GPUs: " + (harmless(", ".join(gpus)) or "none"))
    for note in seen.notes:
        click.echo(f"note: {harmless(note)}")


def _all(world: World, *, root: Path, docker_host: str | None, as_json: bool) -> None:
    """Every instance, and the first fault of each; the exit code is that of the first instance that has one."""
    from gpurig.provisioning.instances import instances  # noqa: PLC0415 - heavy
    from gpurig.runner.overview import judge, look_around, overview_document  # noqa: PLC0415

    found = [one.name for one in instances(world.disk, root) if one.state.registrations]
    if not found:
        raise PrerequisiteError(
            f"no instance is set up below {root}",
            hint="gpurig up --url https://gitlab.example.com --project 42 --token-file FILE",
        )
    rows, documents, notes = [], {}, []
    worst: ApplianceError | None = None
    for name in found:
        seen = look_around(world, name=name, root=root, docker_host=docker_host)
        fault = ""
        try:
            judge(seen)
        except ApplianceError as error:
            fault, worst = error.message, worst or error
        runners = ", ".join(f"#{one.id}" for one in seen.runners)
        rows.append([name, seen.runners[0].url, runners, str(len(seen.jobs)), fault or "fine"])
        documents[name] = {**overview_document(seen), "fault": fault or None}
        notes += [f"{name}: {note}" for note in seen.notes]
    if as_json:
        click.echo(json.dumps({"version": 1, "instances": documents}, indent=1))
    else:
        click.echo(table(["instance", "GitLab", "runners", "jobs", "state"], rows))
        for note in notes:
            click.echo(f"note: {harmless(note)}")
    if worst is not None:
        raise worst
