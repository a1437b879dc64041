"""The run of `gpurig-job quantize`: plan, importance matrix, quantize, compare, report, gate."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gpurig.common.errors import GateFailedError, InputError, PrerequisiteError
from gpurig.common.files import demand_space, make_directory, sha256_file, write_atomic
from gpurig.common.ggml_types import GGML_TYPES
from gpurig.common.gguf import Gguf, read_gguf
from gpurig.common.gguf_file_types import quantization
from gpurig.common.progress import Progress
from gpurig.evaljobs.engine import threads_for
from gpurig.evaljobs.quantize.calibration import calibrate
from gpurig.evaljobs.quantize.chunks import chunk_context, opened
from gpurig.evaljobs.quantize.divergence import compare, read_reference
from gpurig.evaljobs.quantize.figures import figures
from gpurig.evaljobs.quantize.imatrix_file import read_importance
from gpurig.evaljobs.quantize.logprobs import LogProbFile, file_bytes
from gpurig.evaljobs.quantize.quantizer import Forecast, Quantized, Quantizer, Recipe, stored_bits
from gpurig.evaljobs.quantize.report import ModelRow, Report, UsedImatrix, UsedText, gate
from gpurig.evaljobs.quantize.settings import Comparing, QuantizeSettings
from gpurig.evaljobs.quantize.texts import load_text

_PACKAGE = "llama-cpp-python"
_BROKEN = "it predicts nothing: its logits are not finite"


@dataclass(frozen=True)
class Planned:
    """One quantization before it is done."""

    recipe: Recipe
    target: Path
    forecast: Forecast


def plan_quantize(settings: QuantizeSettings) -> tuple[Planned, ...]:
    """What a run would make; nothing is written and no weight is read.

    Raises:
        InputError: the model cannot be quantized, or not so. PrerequisiteError: no permission, no llama-cpp-python.
    """
    source = read_gguf(settings.source)
    # The hash only labels what is made.
    return _plan(settings, _quantizer(settings, source, sha256=""), settings.imatrix)


def run_quantize(settings: QuantizeSettings) -> Report:
    """Quantize, compare, and write the report beside the models.

    Raises:
        InputError: the model, the text or the importance matrix cannot be used; a file of another recipe is in the way.
        PrerequisiteError: no space, no memory, no permission, no llama-cpp-python.
    """
    source = read_gguf(settings.source)
    sha256 = sha256_file(settings.source)
    quantizer = _quantizer(settings, source, sha256=sha256)
    threads = threads_for(source.size_bytes, settings.threads)
    plan = _plan(settings, quantizer, settings.imatrix)
    make_directory(settings.out)
    demand_space(
        settings.out, sum(_missing_bytes(one) for one in plan), "what is to be made", hint="quantize to fewer types"
    )
    imatrix = settings.imatrix
    if settings.calibrating is not None:
        imatrix = settings.own_imatrix
        calibrate(source, sha256, settings.calibrating, imatrix, threads=threads, llama_version=packages()[_PACKAGE])
        plan = _plan(settings, quantizer, imatrix)
    made = [_quantize(settings, quantizer, one, imatrix) for one in plan]
    models = tuple(_row(read_gguf(one.path), one.sha256, planned) for one, planned in zip(made, plan, strict=True))
    report = Report(
        source=_row(source, sha256),
        models=models,
        text=None,
        imatrix=_used(imatrix) if imatrix else None,
        packages=packages(),
        limits={},
        failed=(),
    )
    if settings.comparing is not None:
        paths = [one.path for one in made]
        report = compared(
            report, settings.comparing, settings.source, paths, work=settings.out, threads=settings.threads
        )
    write_atomic(settings.report, report.to_json())
    return report


def run_divergence(
    reference: Path, models: Sequence[Path], comparing: Comparing, *, work: Path, threads: int | None
) -> Report:
    """Compare models with a reference.

    Args:
        reference: usually the F16 model.
        models: usually quantizations of it.
        comparing: on what text.
        work: a folder for the temporary file.
        threads: CPU threads; all where None.

    Raises:
        InputError: a model or the text cannot be used, or the vocabularies differ. PrerequisiteError: no space, no
            memory, no permission.
    """
    headers = [read_gguf(path) for path in (reference, *models)]
    for header in headers[1:]:
        _demand_same_vocabulary(headers[0], header)
    source, *rows = (_row(header, sha256_file(header.path)) for header in headers)
    report = Report(source, tuple(rows), None, None, packages(), {}, ())
    return compared(report, comparing, reference, list(models), work=work, threads=threads)


def compared(
    report: Report,
    comparing: Comparing,
    reference: Path,
    models: Sequence[Path],
    *,
    work: Path,
    threads: int | None,
) -> Report:
    """The report with its models compared and its gate judged; one model at a time is in memory.

    Raises:
        As `run_divergence`.
    """
    text = load_text(comparing.text, built_in="comparison")
    context = chunk_context(read_gguf(reference), comparing.context)
    workers = threads_for(report.source.size_bytes, threads)
    with opened(reference, context=context, threads=workers) as reader:
        chunks = reader.chunks(text.content, limit=comparing.chunks)
        count, scored = len(chunks.tokens), len(chunks.tokens) * chunks.scored
        demand_space(work, file_bytes(scored, reader.vocabulary_size), "the comparison", hint="use --chunks N")
        file = LogProbFile(work, reader.vocabulary_size)
        with Progress("reference", count) as progress:
            known = read_reference(reader, chunks, file, threads=workers, advance=progress.advance)
    rows = []
    with file:
        for row, path in zip(report.models, models, strict=True):
            with (
                opened(path, context=context, threads=workers) as reader,
                Progress(row.name[:9], count) as progress,
            ):
                found = compare(reader, known, threads=workers, advance=progress.advance)
            rows.append(replace(row, figures=figures(found)) if found else replace(row, problem=_BROKEN))
    return replace(
        report,
        models=tuple(rows),
        text=UsedText(text.name, text.sha256, count, context, scored),
        limits={"mean_kld": comparing.max_divergence, "perplexity_ratio": comparing.max_perplexity_ratio},
        failed=gate(tuple(rows), comparing),
    )


def demand_passed(report: Report) -> None:
    """Let a run end as its gate says.

    Raises:
        GateFailedError: a model is outside of the limits, or predicts nothing.
    """
    if report.failed:
        raise GateFailedError(
            "a quantized model is too far from the original",
            hint="take a quantization with more bits, or an importance matrix (--calibration)",
            details=report.failed,
        )


def packages() -> dict[str, str]:
    """The version of llama-cpp-python, which pins llama.cpp's.

    Raises:
        PrerequisiteError: it is not installed.
    """
    try:
        return {_PACKAGE: importlib.metadata.version(_PACKAGE)}
    except importlib.metadata.PackageNotFoundError as error:
        raise PrerequisiteError(
            "llama-cpp-python is not installed", hint="install gpurig with its eval extra: pip install gpurig[eval]"
        ) from error


def _quantizer(settings: QuantizeSettings, source: Gguf, *, sha256: str) -> Quantizer:
    return Quantizer(
        source,
        sha256,
        threads=threads_for(source.size_bytes, settings.threads),
        llama_version=packages()[_PACKAGE],
    )


def _plan(settings: QuantizeSettings, quantizer: Quantizer, imatrix: Path | None) -> tuple[Planned, ...]:
    digest = sha256_file(imatrix) if imatrix else ""
    recipes = [
        Recipe(
            to=one,
            imatrix_sha256=digest,
            pure=settings.pure,
            leave_output=settings.leave_output,
            output_type=settings.output_type,
            embedding_type=settings.embedding_type,
            allow_requantize=settings.allow_requantize,
        )
        for one in settings.to
    ]
    quantizer.demand_plain(recipes[0])
    forecasts = quantizer.forecasts(recipes, imatrix)
    for recipe, forecast in zip(recipes, forecasts, strict=True):
        if forecast.needs_imatrix and not (settings.imatrix or settings.calibrating):
            raise InputError(
                f"{recipe.to.name} needs an importance matrix: without one it would be garbage",
                hint="--calibration builtin computes one; --imatrix FILE takes one",
            )
    return tuple(
        Planned(recipe, settings.target(recipe.to), forecast)
        for recipe, forecast in zip(recipes, forecasts, strict=True)
    )


def _missing_bytes(planned: Planned) -> int:
    try:
        there = planned.target.stat().st_size
    except OSError:
        there = 0
    return max(0, planned.forecast.size_bytes - there)


def _quantize(settings: QuantizeSettings, quantizer: Quantizer, planned: Planned, imatrix: Path | None) -> Quantized:
    with Progress(planned.recipe.to.name, sum(planned.forecast.types.values())) as progress:
        return quantizer.quantize(
            planned.recipe,
            planned.target,
            size_bytes=planned.forecast.size_bytes,
            imatrix=imatrix,
            replace=settings.replace,
            advance=lambda _number, _of: progress.advance(),
        )


def _used(path: Path) -> UsedImatrix:
    matrix = read_importance(path)
    return UsedImatrix(path.name, sha256_file(path), matrix.datasets, matrix.chunks, matrix.unseen_experts)


def _row(gguf: Gguf, sha256: str, planned: Planned | None = None) -> ModelRow:
    kinds = Counter(GGML_TYPES[one.kind].name if one.kind in GGML_TYPES else str(one.kind) for one in gguf.tensors)
    return ModelRow(
        name=planned.recipe.to.name if planned else quantization(gguf) or gguf.path.stem,
        file=gguf.path.name,
        sha256=sha256,
        size_bytes=gguf.size_bytes,
        bits_per_weight=stored_bits(gguf),
        types=dict(kinds),
        fallbacks=planned.forecast.fallbacks if planned else (),
    )


def _demand_same_vocabulary(reference: Gguf, other: Gguf) -> None:
    mine, theirs = (tuple(one.metadata.get("tokenizer.ggml.tokens", ())) for one in (reference, other))
    if mine != theirs:
        where = next((index for index, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), -1)
        first = f"from token {where} on" if where >= 0 else f"{len(mine)} and {len(theirs)} tokens"
        raise InputError(
            f"{reference.path.name} and {other.path.name} have different vocabularies ({first})",
            hint="compare a model with the one that it was quantized from",
        )
