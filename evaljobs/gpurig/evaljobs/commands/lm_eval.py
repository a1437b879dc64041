"""`gpurig-job lm-eval`: lm-evaluation-harness with a model of ours."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from gpurig.common.errors import EXIT_USAGE, ApplianceError, InputError, PrerequisiteError, RemoteError
from gpurig.evaljobs.options import ModelOptions, model_options

# The harness' options that this command fills in.
_FILLED_IN = ("--model", "-M")


@click.command(
    "lm-eval",
    context_settings={"ignore_unknown_options": True},
    epilog="Example: gpurig-job lm-eval qwen3-8b-q4_k_m --tasks arc_easy --num_fewshot 5 --output_path report/lm-eval",
)
@click.argument("model")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@model_options
def lm_eval(*, model: str, arguments: tuple[str, ...], models: ModelOptions) -> None:
    """Evaluate a model with lm-evaluation-harness.

    MODEL is a model's name or the path of a GGUF file; it comes first. All other arguments are those of `lm-eval run`
    (`lm-eval run --help` lists them): --tasks, --include_path, --num_fewshot, --limit, --output_path, --log_samples,
    --apply_chat_template, --gen_kwargs … More about the model by --model_args: docs/lm-eval.md.
    """
    if model.startswith("-"):
        raise InputError(f"MODEL comes first, and {model} is none", hint="gpurig-job lm-eval MODEL --tasks NAME")
    for word in arguments:
        if word.partition("=")[0] in _FILLED_IN:
            raise InputError(f"{word} is filled in by this command", hint="MODEL names the model")
    if importlib.util.find_spec("lm_eval") is None:
        raise PrerequisiteError(
            "lm-evaluation-harness is not installed",
            hint="pip install 'lm_eval>=0.4.13,<0.5' beside gpurig; docs/lm-eval.md says how in a job image",
        )
    from gpurig.evaljobs.models import find_model  # noqa: PLC0415 - heavy

    # What is missing is told, and fetched, before the harness takes its seconds to look at all of its tasks.
    find_model(model, search=models.search(), suite_folder=Path())
    words = ["run", "--model", "gpurig", "--model_args", json.dumps(_model_arguments(model, models)), *arguments]
    _run(words)


def _model_arguments(model: str, models: ModelOptions) -> dict[str, Any]:
    """What the model class is told; only what somebody said, because the harness writes it into its results."""
    found = {
        "models_dir": [str(folder) for folder in models.folders],
        "models_cache": str(models.cache) if models.cache else None,
        "no_download": models.no_download,
        "allow_license": list(models.licenses),
        "catalogue": [str(file) for file in models.catalogues],
        "threads": models.threads,
        "parallel": models.parallel,
        "exact": models.exact,
        "prefix_cache": str(models.prefix_cache) if models.prefix_cache else None,
        "prefix_limit_gib": models.prefix_limit_gib if models.prefix_cache else None,
    }
    return {"model": model, **{name: value for name, value in found.items() if value}}


def _run(words: Sequence[str]) -> None:
    """The harness' own command line, in this process, with our model in its registry.

    Raises:
        InputError: the harness refuses its arguments or a task. RemoteError: it could not fetch a data set.
        PrerequisiteError: it may not write its results, or the disk is full.
    """
    from lm_eval.__main__ import cli_evaluate  # noqa: PLC0415 - heavy

    from gpurig.evaljobs.harness import register  # noqa: PLC0415 - heavy

    register()
    try:
        with _arguments(["lm-eval", *words]):
            cli_evaluate()
    except ApplianceError:
        raise
    except SystemExit as stop:
        # The harness has said what is wrong with its arguments.
        raise click.exceptions.Exit(stop.code if isinstance(stop.code, int) else EXIT_USAGE) from None
    except Exception as error:
        # Another program's errors are of any kind; what our model raises and did not mean to is a bug.
        if _ours(error):
            raise
        raise _translated(error) from error


# Packages whose errors are about a hub or the network.
_CLIENTS = frozenset({"httpx", "requests", "urllib3", "huggingface_hub", "aiohttp"})
_HINT = "correct the arguments or the task; --debug shows where it stopped"


def _translated(error: Exception) -> ApplianceError:
    """The harness' error as one of ours."""
    # A KeyError's text is its key in quotes.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    said = f"lm-evaluation-harness: {text or type(error).__name__}"
    origins = {each.__module__.partition(".")[0] for each in type(error).__mro__}
    if isinstance(error, ConnectionError) or origins & _CLIENTS:
        return RemoteError(said, hint="check the network, or take tasks whose data sets are files (docs/lm-eval.md)")
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return PrerequisiteError(said, hint="check the permissions and the free space; --debug shows where it stopped")
    return InputError(said, hint=_HINT)


def _ours(error: BaseException) -> bool:
    """Whether our model raised it: then it is a bug of ours, and not what the harness says of its arguments."""
    trace = error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).startswith("gpurig.evaljobs.harness."):
            return True
        trace = trace.tb_next
    return False


@contextmanager
def _arguments(words: list[str]) -> Iterator[None]:
    """The process's arguments, which the harness reads."""
    before = sys.argv
    sys.argv = words
    try:
        yield
    finally:
        sys.argv = before
