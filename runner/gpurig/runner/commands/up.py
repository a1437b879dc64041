"""`gpurig up`: make this box a GitLab runner."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpurig.common.errors import InputError
from gpurig.runner.commands.instance import UserToken, instance_options, say_step

if TYPE_CHECKING:
    from gpurig.runner.up_run import UpRun


@click.command(epilog="Example: gpurig up --url https://gitlab.example.com --project 42 --token-file token")
@click.option("--url", help="GitLab's address, for example https://gitlab.example.com.")
@click.option("--project", metavar="PATH-OR-ID", help="Make it a project's runner.")
@click.option("--group", metavar="PATH-OR-ID", help="Make it a group's runner.")
@click.option("--instance", is_flag=True, help="Make it everybody's runner on that GitLab.")
@click.option("--token-file", metavar="FILE", help="A token of scope create_runner; - for stdin. Or GPURIG_TOKEN.")
@instance_options
@click.option("--layout", type=click.Choice(["gpu", "box"]), help="One runner entry per GPU, or one for all. [gpu]")
@click.option("--concurrent", type=click.IntRange(1, 64), help="Jobs at a time in one runner entry. [1]")
@click.option("--cpu/--no-cpu", default=None, help="Make a CPU runner, whatever GPUs are there.")
@click.option("--tag", "extra_tags", multiple=True, help="One more tag; may be repeated.")
@click.option("--run-untagged/--no-run-untagged", default=None, help="Take jobs without tags, too. [no]")
@click.option("--allow-image", "allowed_images", multiple=True, help="Images that jobs may use (pattern). [any]")
@click.option("--metrics-listen", metavar="ADDRESS:PORT", help="Where metrics are served, or off. [127.0.0.1:9476]")
@click.option("--tls-ca-file", type=click.Path(path_type=Path), help="Who signed GitLab's certificate (PEM).")
@click.option("--docker-host", envvar="DOCKER_HOST", help="The engine's socket. [unix:///var/run/docker.sock]")
@click.option("--runner-image", help="gitlab-runner's image. [the official one, pinned]")
@click.option("--helper-image", help="gitlab-runner's helper image. [its own choice]")
@click.option("--base-image", help="What job images stand on. [python:3.12-slim, pinned]")
@click.option("--pip-index-url", help="Where image builds get Python packages.")
@click.option("--build-ca-bundle", type=click.Path(path_type=Path), help="What image builds trust (PEM).")
@click.option("--install-missing", is_flag=True, help="First run the fixes that doctor names, after asking.")
@click.option("--yes", is_flag=True, help="Do not ask whether --install-missing may run its commands.")
@click.option("--wait", "drain_s", type=click.IntRange(0), default=3600, help="Seconds for running jobs to end. [3600]")
@click.option("--dry-run", is_flag=True, help="Show the plan and touch nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan, or what was done, as JSON.")
@click.option("--verbose", "-v", is_flag=True, help="Show the output of image builds.")
def up(
    *,
    project: str | None,
    group: str | None,
    instance: bool,
    token_file: str | None,
    name: str,
    root: Path,
    install_missing: bool,
    yes: bool,
    drain_s: int,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Make this box a GitLab runner; run again, it changes what differs.

    It detects, registers, builds, starts and verifies. An option that is not
    given keeps its value from the last run. When a step fails, what the run
    has made is taken back.
    """
    from gpurig.runner import workflow  # noqa: PLC0415 - heavy
    from gpurig.runner.up_run import prepare  # noqa: PLC0415
    from gpurig.runner.world import real_world  # noqa: PLC0415

    given = {**options, **_whose(project, group, instance=instance), "name": name}
    given |= {key: given[key] or None for key in ("extra_tags", "allowed_images")}
    # Remembered for the next run, which may start in another folder.
    given |= {key: given[key].absolute() for key in ("tls_ca_file", "build_ca_bundle") if given[key]}
    token = UserToken(token_file)
    run = prepare(
        real_world(token),
        given,
        name=name,
        root=root.absolute(),
        say=lambda step, text: say_step(step, text, to_stderr=as_json or dry_run),
        on_line=(lambda line: click.echo(f"            {line}", err=True)) if verbose else (lambda _: None),
        drain_s=drain_s,
    )
    if install_missing:
        from gpurig.runner.installing import install  # noqa: PLC0415 - heavy

        install(
            given,
            name=name,
            root=root.absolute(),
            token=token.at_hand,
            yes=yes,
            dry_run=dry_run,
            say=lambda step, text: say_step(step, text, to_stderr=True),
        )
    if dry_run:
        workflow.look(run)
        _show_plan(run, as_json=as_json)
        return
    # A service manager that ends it gets the same tidy end as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        workflow.up(run)
    finally:
        for note in run.notes:
            say_step("note", note, to_stderr=True)
    if as_json:
        click.echo(json.dumps(_outcome(run), indent=1))


def _whose(project: str | None, group: str | None, *, instance: bool) -> dict[str, str]:
    chosen = [
        (kind, target)
        for kind, target in (("project", project), ("group", group), ("instance", "" if instance else None))
        if target is not None
    ]
    if len(chosen) > 1:
        raise InputError("--project, --group and --instance exclude each other", hint="give one of them")
    return {"runner_type": chosen[0][0], "target": chosen[0][1]} if chosen else {}


def _show_plan(run: UpRun, *, as_json: bool) -> None:
    from gpurig.provisioning.plan_view import plan_document, plan_text  # noqa: PLC0415

    for problem in run.host.problems:
        say_step("problem", f"{problem.message} ({problem.hint})" if problem.hint else problem.message, to_stderr=True)
    click.echo(json.dumps(plan_document(run.plan), indent=1) if as_json else plan_text(run.plan))


def _outcome(run: UpRun) -> dict[str, Any]:
    return {
        "version": 1,
        "changed": run.changes,
        "runners": [
            {"id": one.id, "key": one.key, "description": one.description, "tags": list(one.tags), "url": one.url}
            for one in run.state.registrations
        ],
        "containers": [spec.name for spec in run.plan.containers],
        "metrics": run.settings.metrics_listen,
        "notes": run.notes,
    }
