"""`gpurig-job` validate, schema and convert."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from gpurig.common.terminal import harmless

if TYPE_CHECKING:
    from gpurig.evaljobs.suites.composition import Problem
    from gpurig.evaljobs.suites.suite import Suite


@click.command(epilog="Example: gpurig-job validate examples/ci-jobs")
@click.argument("suite", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print problems and warnings as JSON.")
def validate(*, suite: Path, as_json: bool) -> None:
    """Check a suite without running it.

    Says every mistake with its file, line and field, and ends with 2; or says what the suite holds. No model is needed.
    """
    from gpurig.common.errors import InputError  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.suites.composition import unreadable  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.suites.problems import SuiteError  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.suites.suite import load_suite  # noqa: PLC0415 - heavy

    try:
        read = load_suite(suite)
    except InputError as error:
        if as_json:
            file = suite / "suite.yaml" if suite.is_dir() else suite
            found = error.problems if isinstance(error, SuiteError) else (unreadable(file, error),)
            click.echo(_as_json(found, ()))
        raise
    if as_json:
        click.echo(_as_json((), read.warnings))
        return
    _tell(read)


def _tell(read: Suite) -> None:
    """What a suite holds, for people."""
    checks = sum(len(read.checks_of(sample)) for sample in read.samples)
    click.echo(f"{harmless(str(read.path))} is valid: {read.name}, {len(read.samples)} samples, {checks} checks")
    for name, spec in read.named_generators.items():
        click.echo(harmless(f"generator {f'{name}: ' if name else ''}{spec.model}{_prompt_text(spec.prompt)}"))
    if read.epochs.n > 1:
        click.echo(f"{read.epochs.n} epochs, reduced by {read.epochs.reduce}")
    if read.grader:
        click.echo(harmless(f"grader {read.grader.model}{_prompt_text(read.grader.prompt)}"))
    else:
        click.echo("no grader")
    click.echo(f"{len(read.gate)} gate rules")
    click.echo(f"sha256 {read.sha256}")
    for warning in read.warnings:
        click.echo(harmless(f"warning: {warning}"), err=True)


def _as_json(problems: Sequence[Problem], warnings: Sequence[Problem]) -> str:
    """What was found, for machines."""

    def listed(found: Sequence[Problem]) -> list[dict[str, str | int]]:
        return [{"file": str(one.path), "line": one.line, "field": one.field, "message": one.message} for one in found]

    found = {"valid": not problems, "problems": listed(problems), "warnings": listed(warnings)}
    return json.dumps({"schema": "gpurig.validation/1", **found}, indent=1)


def _prompt_text(prompt: str | None) -> str:
    from gpurig.evaljobs.suites.library import prompt_ref  # noqa: PLC0415 - heavy

    ref = prompt_ref(prompt)
    if ref is None:
        return ""
    version = f" version {ref.version}" if ref.version else ""
    return f", prompt {ref.name}{version} ({ref.sha256[:12]})"


@click.command(epilog="Example: gpurig-job schema > suite.schema.json")
def schema() -> None:
    """Print the JSON Schema of suite.yaml, for editors.

    They complete by it, underline mistakes, and show what a key means.

    Name it in the suite's first line: # yaml-language-server: $schema=suite.schema.json
    """
    from gpurig.evaljobs.suites.schema import schema_text  # noqa: PLC0415 - heavy

    click.echo(schema_text(), nl=False)


@click.command(epilog="Example: gpurig-job convert promptfooconfig.yaml -o evals/new --model demo-generator")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The folder of the suite; it must be new or empty.",
)
@click.option("--model", metavar="NAME", help="The generator's model; if absent as promptfoo's providers are named.")
@click.option("--grader-model", metavar="NAME", help="The model that judges rubrics; if absent they are left out.")
@click.option(
    "--class",
    "kind",
    type=click.Choice(["match", "includes", "fuzzy_match"]),
    default="match",
    show_default=True,
    help="How OpenAI evals compare; their registry says it, their samples do not.",
)
def convert(
    *,
    file: Path,
    out: Path,
    model: str | None,
    grader_model: str | None,
    kind: Literal["match", "includes", "fuzzy_match"],
) -> None:
    """Make a suite of promptfoo's configuration or of OpenAI evals.

    FILE is promptfooconfig.yaml (or .json), or samples in JSON Lines. What cannot be carried over is listed with its
    line and the reason, and stands as a comment in the suite.
    """
    from gpurig.common.errors import InputError  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.converting.openai_evals import convert_openai_evals  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.converting.promptfoo import ConvertOptions, convert_promptfoo  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.converting.writing import write_draft  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.suites.suite import load_suite  # noqa: PLC0415 - heavy

    if file.suffix in {".jsonl", ".ndjson"}:
        if model is None:
            raise InputError("samples of OpenAI evals name no model", hint="give one: --model NAME")
        draft = convert_openai_evals(file, model=model, kind=kind)
    elif file.suffix in {".yaml", ".yml", ".json"}:
        draft = convert_promptfoo(file, ConvertOptions(model, grader_model))
    else:
        raise InputError(
            f"{file}: neither YAML, JSON nor JSON Lines", hint="give promptfooconfig.yaml or samples.jsonl"
        )
    write_draft(draft, out)
    remarks = draft.all_remarks()
    for remark in remarks:
        click.echo(harmless(str(remark)), err=True)
    suite = load_suite(out)
    lost = sum(not remark.changed for remark in remarks)
    click.echo(harmless(f"{suite.path}: {len(suite.samples)} samples; {lost} things were not carried over"))
