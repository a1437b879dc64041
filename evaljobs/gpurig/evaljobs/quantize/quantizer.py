"""llama.cpp's quantization, whole or not at all: planned first, done beside the target, checked, then renamed."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.common.files import demand_space, sha256_file, sync_directory, try_lock, write_problem
from gpurig.common.ggml_types import GGML_TYPES, TYPE_NUMBERS
from gpurig.common.gguf import Gguf, Tensor, read_gguf
from gpurig.common.gguf_file_types import quantization
from gpurig.common.models.quantizations import Quantization, bits_per_weight
from gpurig.common.process import stream
from gpurig.evaljobs.quantize.imatrix_file import read_importance

# Metadata that says where a file comes from; llama.cpp takes at most 127 bytes a text.
SOURCE_KEY, RECIPE_KEY = "gpurig.source.sha256", "gpurig.quantize.recipe"
_WORKER = "gpurig.evaljobs.quantize.worker"
_ALIGNMENT = 32
# Room for the metadata that is added.
_LABEL_BYTES = 1024


@dataclass(frozen=True)
class Recipe:
    """How to quantize; with the source it decides every byte of the result.

    Attributes:
        to: the quantization.
        imatrix_sha256: of the importance matrix; "" without.
        pure: every tensor gets the one type, no mixture.
        leave_output: output.weight stays as it is.
        output_type, embedding_type: ggml_type of output.weight and of the embeddings; None for llama.cpp's choice.
        allow_requantize: quantized tensors may be quantized again.
    """

    to: Quantization
    imatrix_sha256: str = ""
    pure: bool = False
    leave_output: bool = False
    output_type: int | None = None
    embedding_type: int | None = None
    allow_requantize: bool = False

    def text(self, llama_version: str) -> str:
        """What the result's metadata keeps, to know it again."""
        said = [self.to.name, f"llama-cpp-python {llama_version}"]
        said += [f"imatrix {self.imatrix_sha256[:16]}"] if self.imatrix_sha256 else []
        said += ["pure"] if self.pure else []
        said += ["output kept"] if self.leave_output else []
        said += [f"output {GGML_TYPES[self.output_type].name}"] if self.output_type is not None else []
        said += [f"embeddings {GGML_TYPES[self.embedding_type].name}"] if self.embedding_type is not None else []
        return ", ".join(said)


@dataclass(frozen=True)
class Forecast:
    """What a quantization would make, from llama.cpp's own dry run.

    Attributes:
        size_bytes: of the file.
        fallbacks: tensors whose rows are no multiple of the wanted type's block, so that another type is used.
        needs_imatrix: llama.cpp refuses it without one.
        types: how many tensors of each type, by name.
    """

    size_bytes: int
    bits_per_weight: float
    fallbacks: tuple[str, ...]
    needs_imatrix: bool
    types: dict[str, int]


@dataclass(frozen=True)
class Quantized:
    """A file that is there.

    Attributes:
        reused: an earlier run made it, by the same recipe from the same source.
    """

    path: Path
    sha256: str
    size_bytes: int
    bits_per_weight: float
    reused: bool


@dataclass
class _Events:
    """What the worker told of one type."""

    types: dict[str, str] = field(default_factory=dict)
    fallbacks: list[str] = field(default_factory=list)
    needs_imatrix: bool = False


class Quantizer:
    """Quantizes one model."""

    def __init__(self, source: Gguf, source_sha256: str, *, threads: int, llama_version: str) -> None:
        """Take the model.

        Args:
            source: its header, read.
            source_sha256: of the file.
            threads: CPU threads.
            llama_version: of llama-cpp-python.

        Raises:
            InputError: it is one part of several.
        """
        if source.metadata.get("split.count", 0):
            raise InputError(
                f"{source.path.name} is one part of {source.metadata['split.count']}",
                hint="join the parts first: llama-gguf-split --merge FIRST-PART.gguf WHOLE.gguf",
            )
        self._source, self._sha256 = source, source_sha256
        self._threads, self._version = threads, llama_version

    def demand_plain(self, recipe: Recipe) -> None:
        """The source is no quantized model, or that is allowed.

        Raises:
            InputError: it is one.
        """
        if not recipe.allow_requantize and any(_quantized(tensor) for tensor in self._source.tensors):
            what = quantization(self._source) or "a quantized model"
            raise InputError(
                f"{self._source.path.name} is {what} already: quantizing it again adds its loss to the new one's",
                hint="quantize the F16, BF16 or F32 model, or accept that with --allow-requantize",
            )

    def forecasts(self, recipes: Sequence[Recipe], imatrix: Path | None) -> tuple[Forecast, ...]:
        """Plan quantizations that differ in nothing but their type; the weights are not read.

        Args:
            recipes: how, at least one.
            imatrix: a file with the importance matrix: some mixtures differ with one.

        Raises:
            InputError: llama.cpp cannot quantize this model. PrerequisiteError: the program cannot be started.
        """
        planned = {one.to.file_type: _Events() for one in recipes}
        current = _Events()

        def see(event: dict[str, Any]) -> None:
            nonlocal current
            if "file_type" in event:
                current = planned[event["file_type"]]
            elif "planned" in event:
                current.types[event["planned"]] = event["type"]
            elif "fallback" in event:
                current.fallbacks.append(event["fallback"])
            elif "needs_imatrix" in event:
                current.needs_imatrix = True

        target = self._source.path.with_suffix(".dry-run")
        self._run(recipes, target=target, imatrix=imatrix, dry_run=True, see=see)
        return tuple(self._forecast(planned[one.to.file_type]) for one in recipes)

    def _forecast(self, events: _Events) -> Forecast:
        kinds = [_kind_after(tensor, events.types) for tensor in self._source.tensors]
        sizes = [
            math.prod(tensor.shape) * bits_per_weight(kind) / 8
            for tensor, kind in zip(self._source.tensors, kinds, strict=True)
        ]
        # The header is the source's with our labels, and every tensor begins at a multiple of 32 bytes.
        head = min(tensor.offset for tensor in self._source.tensors) + _LABEL_BYTES
        return Forecast(
            size_bytes=head + sum(-(-int(size) // _ALIGNMENT) * _ALIGNMENT for size in sizes),
            bits_per_weight=sum(sizes) * 8 / sum(math.prod(tensor.shape) for tensor in self._source.tensors),
            fallbacks=tuple(events.fallbacks),
            needs_imatrix=events.needs_imatrix,
            types=dict(Counter(GGML_TYPES[kind].name for kind in kinds)),
        )

    def quantize(
        self,
        recipe: Recipe,
        target: Path,
        *,
        size_bytes: int,
        imatrix: Path | None,
        replace: bool,
        advance: Callable[[int, int], None],
    ) -> Quantized:
        """Make the file `target`, or take it as it is where an earlier run made it by the same recipe.

        llama.cpp writes a hidden file beside it, which gets the name when it is whole and checked. What a killed run
        left of it is overwritten by the next.

        Args:
            recipe: how.
            target: the file.
            size_bytes: what it will take, as forecast.
            imatrix: a file with the importance matrix.
            replace: a file of that name, made in another way, may be replaced.
            advance: gets the number of a tensor that is reached, from 1, and how many there are.

        Raises:
            InputError: llama.cpp cannot; another file has the name. PrerequisiteError: no space, no permission, or
                another process makes the same file.
        """
        if target.exists():
            if self.made(target, recipe):
                return _described(target, reused=True)
            if not replace:
                raise InputError(
                    f"{target} exists, and was made in another way",
                    hint="--force replaces it; or choose another --out",
                )
        part = target.with_name(f".{target.name}.part")
        with _held(part):
            demand_space(target.parent, size_bytes, target.name)
            self._run(
                [recipe],
                target=part,
                imatrix=imatrix,
                dry_run=False,
                see=lambda event: advance(event["number"], event["of"]) if "number" in event else None,
            )
            self._check(part, recipe)
            try:
                with part.open("rb") as stream:
                    os.fsync(stream.fileno())
                part.replace(target)
                sync_directory(target.parent)
            except OSError as error:
                raise write_problem(target, error) from error
        return _described(target, reused=False)

    def made(self, target: Path, recipe: Recipe) -> bool:
        """Whether `target` is what this recipe makes of this source, by what its metadata says."""
        try:
            metadata = read_gguf(target).metadata
        except ApplianceError:
            return False
        said = (metadata.get(SOURCE_KEY), metadata.get(RECIPE_KEY))
        return said == (self._sha256, recipe.text(self._version))

    def _check(self, part: Path, recipe: Recipe) -> None:
        """What llama.cpp wrote is a whole file of the wanted type, with the source's tensors.

        Raises:
            PrerequisiteError: it is not: llama.cpp does not notice every failed write.
        """
        try:
            made = read_gguf(part)
        except ApplianceError as error:
            raise PrerequisiteError(
                f"llama.cpp wrote a damaged file: {error.message}", hint="check the disk"
            ) from error
        shapes = {tensor.name: tensor.shape for tensor in made.tensors}
        if (
            made.metadata.get("general.file_type") != recipe.to.file_type
            or shapes != {tensor.name: tensor.shape for tensor in self._source.tensors}
            or not self.made(part, recipe)
        ):
            raise PrerequisiteError("llama.cpp wrote another file than it was asked for", hint="please report this")

    def _labels(self, recipe: Recipe, imatrix: Path | None) -> dict[str, str | int]:
        labels: dict[str, str | int] = {SOURCE_KEY: self._sha256, RECIPE_KEY: recipe.text(self._version)}
        if imatrix is not None:
            # What llama-quantize writes too.
            matrix = read_importance(imatrix)
            labels["quantize.imatrix.file"] = imatrix.name
            if matrix.datasets:
                labels["quantize.imatrix.dataset"] = matrix.datasets[0]
            labels["quantize.imatrix.entries_count"] = len(matrix.weights)
            labels["quantize.imatrix.chunks_count"] = matrix.chunks
        return labels

    def _run(
        self,
        recipes: Sequence[Recipe],
        *,
        target: Path,
        imatrix: Path | None,
        dry_run: bool,
        see: Callable[[dict[str, Any]], None],
    ) -> None:
        """Let the worker do it; see worker.py for its events."""
        recipe = recipes[0]
        job = {
            "source": str(self._source.path),
            "target": str(target),
            "file_types": [one.to.file_type for one in recipes],
            "threads": self._threads,
            "dry_run": dry_run,
            "allow_requantize": recipe.allow_requantize,
            "pure": recipe.pure,
            "leave_output": recipe.leave_output,
            "output_type": recipe.output_type,
            "embedding_type": recipe.embedding_type,
            "imatrix": str(imatrix) if imatrix else "",
            "labels": self._labels(recipe, imatrix),
        }
        said: list[str] = []

        def take(line: str) -> None:
            try:
                event = json.loads(line)
            except ValueError:
                # What llama.cpp prints past its log when it ends the process.
                said.append(line)
                return
            if "error" in event:
                said.append(str(event["error"]))
            else:
                see(event)

        code = stream(
            [sys.executable, "-m", _WORKER],
            on_line=take,
            stdin=json.dumps(job).encode(),
            # Without this llama.cpp starts a debugger on its own corpse, where one is installed.
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        if code:
            died = f"it ended with {signal.Signals(-code).name}" if code < 0 else "it does not say why"
            names = ", ".join(one.to.name for one in recipes)
            reason = next((line for line in reversed(said) if line.strip()), died)
            raise InputError(
                f"llama.cpp cannot quantize {self._source.path.name} to {names}: {reason}",
                hint=_hint(reason),
            )


def _hint(reason: str) -> str:
    if "imatrix" in reason or "importance matrix" in reason:
        return "fewer than 3 bits need an importance matrix: --calibration builtin computes one"
    if "write" in reason or "iostream" in reason:
        return "free some disk space"
    return "the file is damaged, or made for a newer llama.cpp than this installation's"


def _quantized(tensor: Tensor) -> bool:
    # A type that is newer than our table is some quantization.
    return tensor.kind not in GGML_TYPES or GGML_TYPES[tensor.kind].quantized


def _kind_after(tensor: Tensor, planned: dict[str, str]) -> int:
    return TYPE_NUMBERS[planned[tensor.name]] if tensor.name in planned else tensor.kind


def stored_bits(gguf: Gguf) -> float:
    """Bits per weight of all tensors of a file."""
    weights = sum(math.prod(tensor.shape) for tensor in gguf.tensors)
    return sum(tensor.size_bytes or 0 for tensor in gguf.tensors) * 8 / weights


def _described(path: Path, *, reused: bool) -> Quantized:
    gguf = read_gguf(path)
    return Quantized(path, sha256_file(path), gguf.size_bytes, stored_bits(gguf), reused)


@contextmanager
def _held(part: Path) -> Iterator[None]:
    """The unfinished file is ours, and gone at the end where it has not become the target.

    Raises:
        PrerequisiteError: another process has it, or it cannot be made.
    """
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise write_problem(part, error) from error
    try:
        if not try_lock(descriptor, part):
            raise PrerequisiteError(
                f"another gpurig makes {part.name.removeprefix('.').removesuffix('.part')} now",
                hint="wait until it has ended",
            )
        try:
            yield
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
