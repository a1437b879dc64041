"""`gpurig-job report`, and how every run that reports comes to its end."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from gpurig.common.command import say_error
from gpurig.common.errors import ApplianceError, GateFailedError
from gpurig.common.terminal import harmless
from gpurig.evaljobs.comparing.baseline import read_baseline
from gpurig.evaljobs.findings import BaselineRef
from gpurig.evaljobs.gitlab_note import TOKEN_VARIABLE, find_merge_request, in_merge_request, post_note
from gpurig.evaljobs.gpu_use import GPU_USE_FOLDER, find_gpu_use
from gpurig.evaljobs.options import stage_options
from gpurig.evaljobs.report.judges import unfit
from gpurig.evaljobs.report.note import note_markdown
from gpurig.evaljobs.report.terminal import terminal_summary
from gpurig.evaljobs.report.words import rule_text, rule_value
from gpurig.evaljobs.reporting import HTML, run_report
from gpurig.evaljobs.results import JobGpuUse, Results
from gpurig.evaljobs.suites.selection import Selection
from gpurig.evaljobs.suites.suite import load_suite
from gpurig.evaljobs.suites.trials import select_trials


@dataclass(frozen=True)
class NoteOptions:
    """Whether to write the merge request's note, and with which token."""

    mode: Literal["auto", "always", "never"] = "auto"
    token_file: Path | None = None


def note_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options `--note` and `--note-token-file`; the command gets `note` and `note_token_file`."""
    command = click.option(
        "--note-token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar=f"{TOKEN_VARIABLE}_FILE",
        help=f"A file with the token that writes the note; else the variable {TOKEN_VARIABLE} holds the token.",
    )(command)
    return click.option(
        "--note",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        help="Write the merge request's note: where there is one and a token, or else fail, or not at all.",
    )(command)


def gpu_use_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--gpu-use`; the command gets `gpu_use`, a folder."""
    return click.option(
        "--gpu-use",
        type=click.Path(path_type=Path, file_okay=False),
        default=GPU_USE_FOLDER,
        show_default=True,
        help="Where the box's exporter tells what jobs use of its GPUs; the reports show it where it is there.",
    )(command)


def told_gpu_use(folder: Path) -> tuple[JobGpuUse, ...]:
    """What the folder tells of this pipeline's jobs; a file that cannot be used is a warning."""
    return find_gpu_use(folder, os.environ, lambda line: click.echo(f"gpurig-job: warning: {harmless(line)}", err=True))


def conclude(results: Results, out: Path, note: NoteOptions) -> None:
    """Print the summary, write the note, and fail where the gate does; the files are written already.

    A shard's gate decides nothing: it saw a part of the samples. Its note waits for the whole as well.

    Raises:
        GateFailedError: the gate failed; this comes before any trouble with the note.
        PrerequisiteError, InputError, RemoteError: the note could not be written, and `note.mode` is "always".
    """
    click.echo(terminal_summary(results, str(out)))
    if results.shard:
        click.echo(f"This is the part {results.shard}: the gate is judged when the parts are merged.")
        return
    problem: ApplianceError | None = None
    try:
        _write_note(results, note)
    except ApplianceError as error:
        problem = error
        if note.mode == "auto" or not results.gate.passed:
            say_error("gpurig-job: warning", error)
    if told := unfit(results.judges):
        raise GateFailedError(told, hint="its grades count for nothing; docs/graders.md says what helps")
    failed = [rule for rule in results.gate.rules if not rule.passed]
    if failed:
        demands = "; ".join(f"{rule_text(rule)}, but it is {rule_value(rule)}" for rule in failed)
        raise GateFailedError(f"the gate failed: {demands}", hint=f"{out / HTML} shows every sample")
    if problem is not None and note.mode == "always":
        raise problem


def _write_note(results: Results, note: NoteOptions) -> None:
    if note.mode == "never" or (note.mode == "auto" and not in_merge_request(os.environ)):
        return
    place = find_merge_request(os.environ, note.token_file)
    outcome = post_note(place, results.suite, note_markdown(results))
    click.echo(harmless(f"Note on merge request !{place.iid}: {outcome}"))


baseline_option = click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="An earlier run's results.json, or its folder, to compare with (docs/statistics.md).",
)


def told_baseline(path: Path | None) -> tuple[Results, BaselineRef] | None:
    """The baseline that --baseline names, read before anything else is done.

    Raises:
        InputError: there is none, or it cannot be used.
    """
    return None if path is None else read_baseline(path)


@click.command(epilog="Example: gpurig-job report examples/ci-jobs --out report --baseline main/report")
@stage_options
@gpu_use_option
@baseline_option
@note_options
def report(
    *,
    suite: Path,
    out: Path,
    selection: Selection,
    gpu_use: Path,
    baseline: Path | None,
    note: Literal["auto", "always", "never"],
    note_token_file: Path | None,
) -> None:
    """Compute the results, apply the gate, write the reports.

    Writes results.json, junit.xml, metrics.txt, note.md and report.html into the folder of the records. Exits with 3
    where the gate fails.
    """
    read = load_suite(suite)
    trials = select_trials(read, selection)
    results = run_report(
        read,
        out,
        trials=trials,
        shard=selection.shard,
        gpu_use=told_gpu_use(gpu_use),
        baseline=told_baseline(baseline),
    )
    conclude(results, out, NoteOptions(note, note_token_file))
