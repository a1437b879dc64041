"""`gpurig up`: make this box a GitLab runner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpurig.runner.commands.finishing import finish, outcome
from gpurig.runner.commands.instance import UserToken, instance_options, say_step
from gpurig.runner.commands.up_options import place_options, read_given, settings_options

if TYPE_CHECKING:
    from gpurig.runner.up_run import UpRun


@click.command(epilog="Example: gpurig up --url https://gitlab.example.com --project 42 --token-file token")
@place_options
@instance_options
@settings_options
@click.option("--install-missing", is_flag=True, help="First run the fixes that doctor names, after asking.")
@click.option("--yes", is_flag=True, help="Do not ask whether --install-missing may run its commands.")
@click.option("--dry-run", is_flag=True, help="Show the plan and touch nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan, or what was done, as JSON.")
@click.option("--verbose", "-v", is_flag=True, help="Show the output of image builds.")
@click.pass_context
def up(
    context: click.Context,
    /,
    *,
    name: str,
    root: Path,
    install_missing: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Make this box a GitLab runner; run again, it changes what differs.

    It detects, registers, builds, starts and verifies. An option that is not
    given keeps its value from the last run, or has that of the --settings
    file. When a step fails, what the run has made is taken back.
    """
    from gpurig.runner import workflow  # noqa: PLC0415 - heavy
    from gpurig.runner.up_run import prepare  # noqa: PLC0415
    from gpurig.runner.world import real_world  # noqa: PLC0415

    given = read_given(context, options, name=name)
    token = UserToken(given.token_file)
    run = prepare(
        real_world(token),
        given.now,
        base=given.base,
        environment=given.environment,
        archives=options["archives"],
        name=given.name,
        root=root.absolute(),
        say=lambda step, text: say_step(step, text, to_stderr=as_json or dry_run),
        on_line=(lambda line: click.echo(f"            {line}", err=True)) if verbose else (lambda _: None),
    )
    if install_missing:
        from gpurig.runner.installing import install  # noqa: PLC0415 - heavy

        install(
            given.wanted(),
            name=given.name,
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
    finish(run)
    if as_json:
        click.echo(json.dumps(outcome(run), indent=1))


def _show_plan(run: UpRun, *, as_json: bool) -> None:
    from gpurig.provisioning.plan_view import plan_document, plan_text  # noqa: PLC0415

    for problem in run.host.problems:
        say_step("problem", f"{problem.message} ({problem.hint})" if problem.hint else problem.message, to_stderr=True)
    for note in run.notes:
        say_step("note", note, to_stderr=True)
    click.echo(json.dumps(plan_document(run.plan), indent=1) if as_json else plan_text(run.plan))
