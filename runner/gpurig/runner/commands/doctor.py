"""`gpurig doctor`: every prerequisite, and what mends those that are not met."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from gpurig.provisioning.paths import Paths
from gpurig.runner.commands.instance import UserToken, instance_options
from gpurig.runner.commands.up_options import whose

# Paths and options call an instance so where nobody said otherwise.
INSTANCE = Paths.name


@click.command(epilog="Example: gpurig doctor --url https://gitlab.example.com --project 42 --token-file token")
@click.option("--url", help="GitLab's address; that of the last up where not given.")
@click.option("--project", metavar="PATH-OR-ID", help="Whose runner it shall be: judges the token owner's role there.")
@click.option("--group", metavar="PATH-OR-ID", help="The same for a group's runner.")
@click.option("--instance", is_flag=True, default=None, help="The same for everybody's runner.")
@click.option("--token-file", metavar="FILE", help="The user's token, to be judged, too; - for stdin. Or GPURIG_TOKEN.")
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path),
    help="A TOML file with settings, instead of those of the last up.",
)
@instance_options
@click.option("--cpu/--no-cpu", default=None, help="A CPU runner is wanted, whatever GPUs are there.")
@click.option("--cuda", "image_cuda", metavar="VERSION", help="The CUDA of a job image of yours. [what fits the cards]")
@click.option("--metrics-listen", metavar="ADDRESS:PORT", help="Where metrics shall be served, or off.")
@click.option("--tls-ca-file", type=click.Path(path_type=Path), help="Who signed GitLab's certificate (PEM).")
@click.option("--docker-host", envvar="DOCKER_HOST", help="The engine's socket. [unix:///var/run/docker.sock]")
@click.option("--registry-mirror", metavar="HOST[/PATH]", help="Where the default images come from. [Docker Hub]")
@click.option("--service", type=click.Choice(["container", "systemd"]), help="What shall run gitlab-runner.")
@click.option("--runner-binary", metavar="FILE", type=click.Path(path_type=Path), help="Its program, for systemd.")
@click.option("--runner-image", help="gitlab-runner's image. [the official one, pinned]")
@click.option("--helper-image", help="gitlab-runner's helper image. [its own choice]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/doctor.md).")
def doctor(
    *, token_file: str | None, settings_file: Path | None, name: str, root: Path, as_json: bool, **given: Any
) -> int:
    """Check every prerequisite; each failure comes with its fix.

    Nothing is changed. It works before the first up and after it, and then
    knows what up was told. Exit code 4 where something on this box fails, 5
    where only GitLab or the network does.
    """
    from gpurig.provisioning.doctor import examine, exit_code  # noqa: PLC0415 - heavy
    from gpurig.provisioning.doctor.view import as_document, as_text  # noqa: PLC0415
    from gpurig.runner.examining import looking  # noqa: PLC0415

    base = None
    if settings_file is not None:
        from gpurig.provisioning.settings_file import read_settings_file  # noqa: PLC0415

        written = read_settings_file(settings_file)
        base, token_file = written.values, token_file or written.token_file
        name = str(base.get("name", name)) if name == INSTANCE else name
    given |= whose(given.pop("project"), given.pop("group"), instance=bool(given.pop("instance")))
    token = UserToken(token_file).at_hand
    with looking(given, name=name, root=root.absolute(), token=token, base=base) as look:
        at = look()
        findings = examine(at)
    if as_json:
        click.echo(json.dumps(as_document(findings, at.where), indent=1))
    else:
        click.echo(as_text(findings, at.where, root=os.geteuid() == 0))
    return exit_code(findings)
