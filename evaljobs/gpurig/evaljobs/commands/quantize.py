"""`gpurig-job` quantize, imatrix and divergence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpurig.common.errors import InputError
from gpurig.common.ggml_types import TYPE_NUMBERS
from gpurig.common.models.quantizations import parse_quantizations
from gpurig.common.models.quantize_options import (
    BUILT_IN,
    QuantizeOptions,
    chunks_option,
    context_option,
    max_kld_option,
    max_ppl_ratio_option,
    quantize_options,
    text_option,
    threads_option,
)
from gpurig.common.terminal import harmless, table

if TYPE_CHECKING:
    from gpurig.evaljobs.quantize.report import Report
    from gpurig.evaljobs.quantize.run import Planned
    from gpurig.evaljobs.quantize.settings import Comparing, QuantizeSettings

_MIB = 2**20
_FILE = click.Path(path_type=Path, dir_okay=False)
_folders = click.option(
    "--models-dir",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    envvar="GPURIG_MODELS_DIR",
    show_envvar=True,
    help="A folder with models, looked into first; may be repeated. Then the image, /models, this box, the cache.",
)


@click.command(
    epilog="Examples: gpurig-job quantize model-f16.gguf --to Q4_K_M,Q6_K --calibration builtin --max-kld 0.05; "
    "gpurig-job quantize model-f16.gguf --to Q8_0 --dry-run"
)
@click.argument("model")
@quantize_options
@_folders
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="The folder of the results; this one if absent.",
)
def quantize(*, model: str, folders: tuple[Path, ...], out: Path, **given: Any) -> None:
    """Quantize an F16 model, and say what that costs.

    Writes MODEL-TYPE.gguf for each type, and MODEL.quantize.json with the figures: the divergence of the predictions
    (KLD) from the original's, how often both find the same token most probable, and the perplexities. Exits with 3
    where a limit is passed. Run again, it makes only what is missing.
    """
    options = QuantizeOptions(**given)
    settings = _settings(_find(model, folders), out, options)
    from gpurig.evaljobs.quantize.run import demand_passed, plan_quantize, run_quantize  # noqa: PLC0415 - heavy

    if options.dry_run:
        plan = plan_quantize(settings)
        click.echo(json.dumps(_forecast_document(plan), indent=1) if options.json else _forecast_text(plan))
        return
    report = run_quantize(settings)
    _show(report, as_json=options.json)
    if not options.json:
        click.echo(f"report: {harmless(str(settings.report))}")
    demand_passed(report)


def _settings(source: Path, out: Path, options: QuantizeOptions) -> QuantizeSettings:
    from gpurig.evaljobs.quantize.settings import Calibrating, Comparing, QuantizeSettings  # noqa: PLC0415 - heavy

    if options.imatrix is not None and options.calibration is not None:
        raise InputError(
            "--imatrix takes an importance matrix and --calibration computes one", hint="give one of the two"
        )
    limits = (options.max_kld, options.max_ppl_ratio)
    if options.no_divergence and limits != (None, None):
        raise InputError("a limit needs the comparison that --no-divergence leaves out", hint="leave one of them out")
    calibrating = None
    if options.calibration is not None:
        text = None if options.calibration == BUILT_IN else Path(options.calibration)
        if text is not None and text == options.text:
            click.echo("comparing on the text of the calibration flatters the result", err=True)
        calibrating = Calibrating(text, options.context, options.chunks)
    return QuantizeSettings(
        source=source,
        to=parse_quantizations(options.to),
        out=out,
        threads=options.threads,
        imatrix=options.imatrix,
        calibrating=calibrating,
        comparing=None if options.no_divergence else Comparing(options.text, options.context, options.chunks, *limits),
        pure=options.pure,
        leave_output=options.leave_output_tensor,
        output_type=TYPE_NUMBERS[options.output_tensor_type] if options.output_tensor_type else None,
        embedding_type=TYPE_NUMBERS[options.token_embedding_type] if options.token_embedding_type else None,
        allow_requantize=options.allow_requantize,
        replace=options.force,
    )


@click.command(epilog="Example: gpurig-job imatrix model-f16.gguf --text calibration.txt --out model.imatrix")
@click.argument("model")
@click.option("--text", type=_FILE, help="Read this text; the one that comes with gpurig if absent.")
@click.option("--out", type=_FILE, required=True, help="The file of the result.")
@context_option
@chunks_option
@click.option("--process-output", is_flag=True, help="Also for output.weight.")
@_folders
@threads_option
def imatrix(
    *,
    model: str,
    text: Path | None,
    out: Path,
    context: int,
    chunks: int | None,
    process_output: bool,
    folders: tuple[Path, ...],
    threads: int | None,
) -> None:
    """Compute a model's importance matrix from a text.

    The file is in the format of llama.cpp's llama-imatrix, whose programs can use it, as theirs can be used here.
    """
    from gpurig.common.files import sha256_file  # noqa: PLC0415 - together with what follows
    from gpurig.common.gguf import read_gguf  # noqa: PLC0415
    from gpurig.evaljobs.engine import threads_for  # noqa: PLC0415
    from gpurig.evaljobs.quantize.calibration import calibrate  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.quantize.run import packages  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.quantize.settings import Calibrating  # noqa: PLC0415 - heavy

    path = _find(model, folders)
    source = read_gguf(path)
    [version] = packages().values()
    matrix, reused = calibrate(
        source,
        sha256_file(path),
        Calibrating(text, context, chunks, output=process_output),
        out,
        threads=threads_for(source.size_bytes, threads),
        llama_version=version,
    )
    unseen = f"; {matrix.unseen_experts} experts got no token: use a longer text" if matrix.unseen_experts else ""
    what = "is there already" if reused else f"{len(matrix.weights)} weights from {matrix.chunks} chunks"
    click.echo(f"{harmless(str(out))}: {what}{unseen}")


@click.command(epilog="Example: gpurig-job divergence model-f16.gguf model-Q4_K_M.gguf --text wiki.txt --max-kld 0.1")
@click.argument("reference")
@click.argument("models", nargs=-1, required=True)
@text_option
@context_option
@chunks_option
@max_kld_option
@max_ppl_ratio_option
@click.option("--out", type=_FILE, help="Write the report to this file as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (docs/formats.md).")
@_folders
@threads_option
def divergence(
    *,
    reference: str,
    models: tuple[str, ...],
    text: Path | None,
    context: int,
    chunks: int | None,
    max_kld: float | None,
    max_ppl_ratio: float | None,
    out: Path | None,
    as_json: bool,
    folders: tuple[Path, ...],
    threads: int | None,
) -> None:
    """Compare the predictions of models with a reference's, as llama-perplexity --kl-divergence does.

    The reference is usually the F16 model, and the models are quantizations of it. One model at a time is in memory.
    Exits with 3 where a limit is passed.
    """
    from gpurig.common.files import write_atomic  # noqa: PLC0415 - together with what follows
    from gpurig.evaljobs.quantize.run import demand_passed, run_divergence  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.quantize.settings import Comparing  # noqa: PLC0415 - heavy

    comparing: Comparing = Comparing(text, context, chunks, max_kld, max_ppl_ratio)
    paths = [_find(one, folders) for one in models]
    work = out.parent if out is not None else Path()
    report = run_divergence(_find(reference, folders), paths, comparing, work=work, threads=threads)
    if out is not None:
        write_atomic(out, report.to_json())
    _show(report, as_json=as_json)
    demand_passed(report)


def _find(name: str, folders: tuple[Path, ...]) -> Path:
    from gpurig.common.models.resolving import Search, cache_folder, standard_places  # noqa: PLC0415 - heavy
    from gpurig.evaljobs.models import find_model  # noqa: PLC0415 - heavy

    search = Search(standard_places(folders, cache_folder(os.environ)))
    return find_model(name, search=search, suite_folder=Path()).files[0]


def _show(report: Report, *, as_json: bool) -> None:
    from gpurig.evaljobs.quantize.report import as_text  # noqa: PLC0415 - heavy

    click.echo(report.to_json().rstrip("\n") if as_json else as_text(report))


def _forecast_document(plan: tuple[Planned, ...]) -> dict[str, Any]:
    return {
        "schema": "gpurig.quantize-forecast/1",
        "models": [
            {
                "name": one.recipe.to.name,
                "file": one.target.name,
                "size_bytes": one.forecast.size_bytes,
                "bits_per_weight": one.forecast.bits_per_weight,
                "types": one.forecast.types,
                "fallbacks": one.forecast.fallbacks,
                "exists": one.target.exists(),
            }
            for one in plan
        ],
    }


def _forecast_text(plan: tuple[Planned, ...]) -> str:
    rows = [
        (
            one.recipe.to.name,
            f"{one.forecast.size_bytes / _MIB:.1f}",
            f"{one.forecast.bits_per_weight:.2f}",
            ", ".join(
                f"{count} {name}" for name, count in sorted(one.forecast.types.items(), key=lambda kind: -kind[1])
            ),
            str(len(one.forecast.fallbacks) or "-"),
            "exists" if one.target.exists() else "-",
        )
        for one in plan
    ]
    return table(("model", "MiB", "bits", "tensors", "other type", "file"), rows)
