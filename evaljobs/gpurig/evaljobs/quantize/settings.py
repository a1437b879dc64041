"""What to quantize, how, and how to compare: what the commands hand to the program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpurig.common.models.quantizations import Quantization
from gpurig.evaljobs.quantize.chunks import DEFAULT_CONTEXT


@dataclass(frozen=True)
class Comparing:
    """How models are compared.

    Attributes:
        text: a file; the built-in text where None.
        context: tokens a chunk.
        chunks: at most so many; all of the text where None.
        max_divergence: the gate's limit for the mean divergence, in nats.
        max_perplexity_ratio: its limit for the model's perplexity by the reference's.
    """

    text: Path | None = None
    context: int = DEFAULT_CONTEXT
    chunks: int | None = None
    max_divergence: float | None = None
    max_perplexity_ratio: float | None = None


@dataclass(frozen=True)
class Calibrating:
    """How an importance matrix is computed.

    Attributes:
        text, context, chunks: as for comparing.
        output: for output.weight too.
    """

    text: Path | None = None
    context: int = DEFAULT_CONTEXT
    chunks: int | None = None
    output: bool = False


@dataclass(frozen=True)
class QuantizeSettings:
    """One run of `gpurig-job quantize`.

    Attributes:
        source: the model, F16, BF16 or F32.
        out: the folder of the results.
        imatrix: a file with the importance matrix; None for none, or for `calibrating`.
        calibrating: compute one.
        comparing: None for no comparison.
        replace: files of the same names, made in another way, may be replaced.
    """

    source: Path
    to: tuple[Quantization, ...]
    out: Path
    threads: int | None = None
    imatrix: Path | None = None
    calibrating: Calibrating | None = None
    comparing: Comparing | None = None
    pure: bool = False
    leave_output: bool = False
    output_type: int | None = None
    embedding_type: int | None = None
    allow_requantize: bool = False
    replace: bool = False

    def target(self, one: Quantization) -> Path:
        """The file of a quantization: the source's name without its own type, and the new one's."""
        return self.out / f"{base_name(self.source)}-{one.name}.gguf"

    @property
    def report(self) -> Path:
        """The report's file."""
        return self.out / f"{base_name(self.source)}.quantize.json"

    @property
    def own_imatrix(self) -> Path:
        """The file of the importance matrix that a run computes."""
        return self.out / f"{base_name(self.source)}.imatrix"


def base_name(source: Path) -> str:
    """A model's name without the type at its end: "model-f16.gguf" is "model"."""
    stem = source.stem
    for kind in ("f16", "bf16", "f32"):
        for mark in "-._":
            if stem.lower().endswith(mark + kind) and len(stem) > len(kind) + 1:
                return stem[: -len(kind) - 1]
    return stem
