"""Does a model fit: the header read wherever the model is, the forecast, and llama.cpp's own figures."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.common.gguf import read_gguf
from gpurig.common.process import run
from gpurig.images.memory.cards import Card, parse_card
from gpurig.images.memory.forecast import Forecast, Memory, Model, forecast, model_of
from gpurig.images.memory.settings import LoadSettings
from gpurig.images.memory.verdict import Verdict, judge, tags_for_job
from gpurig.provisioning.detect import detect
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.vram import vram_class_gb
from gpurig.runner.fit_sources import Found, find_header

# What a job takes where its suite names none, or less where the model was made for less (gpurig.evaljobs.engine).
JOB_CONTEXT = 4096
_MIB = 2**20
_SECONDS = 330.0


@dataclass(frozen=True)
class Wish:
    """What the user asked for.

    Attributes:
        model: as they named it.
        vram: the card's size, or None for this box's.
        settings: how the model would be loaded.
        own_context: the context is gpurig's choice.
        exact: llama.cpp is asked: yes, no, or where it can be.
        paths: where the box's models are, which a name may mean.
        catalogues: more models by name.
        adapters: files of LoRA adapters that are loaded with it.
    """

    model: str
    vram: str | None
    settings: LoadSettings
    own_context: bool
    exact: bool | None
    paths: Paths
    catalogues: tuple[Path, ...] = ()
    adapters: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Exact:
    """What llama.cpp itself would allocate, adapters not counted: on the GPUs, the fullest one, and on the CPU."""

    gpu: Memory
    host: Memory


@dataclass(frozen=True)
class Fit:
    """The answer.

    Attributes:
        verdict: None where no card was named and this box has none.
        forecast: with all layers on the GPU, or as many as were asked for.
        exact: None where llama.cpp was not asked.
        tags: what a job should ask for.
        notes: what the user should know.
    """

    found: Found
    model: Model
    forecast: Forecast
    verdict: Verdict | None
    exact: Exact | None
    tags: tuple[str, ...]
    notes: tuple[str, ...]


def fit_model(wish: Wish) -> Fit:
    """Read the model's header and judge.

    Raises:
        InputError: no such model, a damaged header, a size that is none. PrerequisiteError: llama.cpp was asked for and
            is not here. RemoteError: the model's source does not answer.
    """
    card = parse_card(wish.vram) if wish.vram is not None else None
    found = find_header(wish.model, paths=wish.paths, environ=os.environ, catalogues=wish.catalogues)
    model = model_of(found.gguf, [read_gguf(adapter) for adapter in wish.adapters])
    settings = wish.settings
    if wish.own_context:
        settings = settings.with_context(min(JOB_CONTEXT, model.sizes.context or JOB_CONTEXT) * settings.parallel)
    notes: list[str] = []
    if card is None:
        card, told = own_card(detect())
        notes += told
    plan = forecast(model, settings)
    if not plan.measured:
        notes.append(
            f"the architecture {model.gguf.architecture} was not held against llama.cpp: allow some hundred MiB more"
        )
    if model.sizes.context and settings.context > model.sizes.context * settings.streams:
        notes.append(f"the model was trained for {model.sizes.context} tokens a sequence")
    exact = None
    try:
        if wish.exact is not False:
            exact = ask_llama(found, settings, card)
            notes += ["llama.cpp's own figures are without the adapters"] if model.adapters else []
    except ApplianceError as error:
        if wish.exact:
            raise
        if not isinstance(error, PrerequisiteError):
            notes.append(f"llama.cpp says: {error.message}")
    verdict = judge(model, settings, card) if card else None
    return Fit(found, model, plan, verdict, exact, tags_for_job(plan), tuple(notes))


def own_card(facts: HostFacts) -> tuple[Card | None, list[str]]:
    """This box's smallest GPU, since a job may get any of them, and what to say of the choice."""
    known = [(gpu.memory_bytes, gpu) for gpu in facts.gpus if gpu.memory_bytes is not None]
    if not known:
        return None, ["no GPU was found here; --vram 8GB judges for a card of that size"]
    size, gpu = min(known, key=lambda pair: pair[0])
    told = [f"this box has {len(known)} GPUs; judged for the smallest"] if len({pair[0] for pair in known}) > 1 else []
    return Card(gpu.name or "this box's GPU", size, vram_class_gb(size)), told


def ask_llama(found: Found, settings: LoadSettings, card: Card | None) -> Exact:
    """What llama.cpp itself would allocate.

    Raises:
        PrerequisiteError: the file is not on this machine, or llama.cpp is not. InputError: llama.cpp refuses.
    """
    if found.path is None:
        raise PrerequisiteError(
            "llama.cpp can be asked about a file on this machine only", hint="pull the model, or leave out --exact"
        )
    if importlib.util.find_spec("llama_cpp") is None:
        raise PrerequisiteError(
            "llama.cpp is not installed here", hint="pip install 'gpurig[eval]' (it compiles for some minutes)"
        )
    return _ask(found.path, settings, card)


def _ask(path: Path, settings: LoadSettings, card: Card | None) -> Exact:
    """Let llama.cpp plan for such cards, in a program of the job's side: the box knows its output only."""
    argv = [
        sys.executable, "-m", "gpurig.evaljobs", "memory", str(path), "--json",
        "--context", str(settings.context), "--parallel", str(settings.parallel), "--kv", settings.kv,
        "--batch", str(settings.batch), "--flash-attention", settings.flash_attention,
        "--gpu-layers", str(settings.gpu_layers),
        *(["--unified"] if settings.unified else []), *([] if settings.swa_full else ["--window-cache"]),
        *["--card-mib", str(max(1, (card.memory_bytes if card else 8 << 30) // _MIB))] * settings.gpus,
    ]  # fmt: skip
    finished = run(argv, timeout_s=_SECONDS, env=dict(os.environ))
    if finished.code:
        message = finished.stderr.strip().splitlines() or ["it does not say why"]
        raise InputError(message[0].removeprefix("gpurig-job: "), hint=message[-1].strip().removeprefix("hint: "))
    buffers = json.loads(finished.stdout)["buffers"]
    gpus = [_memory(buffer) for buffer in buffers if not buffer["host"]]
    host = [_memory(buffer) for buffer in buffers if buffer["host"]]
    return Exact(max(gpus, key=lambda memory: memory.total, default=Memory()), _sum(host))


def _memory(buffer: dict[str, int]) -> Memory:
    return Memory(buffer["model_bytes"], buffer["context_bytes"], buffer["compute_bytes"])


def _sum(parts: list[Memory]) -> Memory:
    return Memory(*(sum(getattr(part, field) for part in parts) for field in ("weights", "cache", "compute")))
