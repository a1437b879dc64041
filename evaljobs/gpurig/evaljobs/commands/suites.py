"""`gpurig-job` validate and schema."""

from __future__ import annotations

from pathlib import Path

import click

from gpurig.common.terminal import harmless


@click.command(epilog="Example: gpurig-job validate examples/ci-jobs")
@click.argument("suite", type=click.Path(path_type=Path))
def validate(*, suite: Path) -> None:
    """Check a suite without running it.

    Says every mistake with its file, line and field, and ends with 2; or says what the suite holds. No model is needed.
    """
    from gpurig.evaljobs.suites.suite import load_suite  # noqa: PLC0415 - heavy

    read = load_suite(suite)
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
