"""An importance matrix from a text: what llama-imatrix does, in this process."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from gpurig.common.errors import ApplianceError, InputError
from gpurig.common.gguf import Gguf
from gpurig.common.progress import Progress
from gpurig.evaljobs.quantize.chunks import chunk_context, opened
from gpurig.evaljobs.quantize.graph_inputs import InputSquares
from gpurig.evaljobs.quantize.imatrix_file import ImportanceMatrix, read_importance, write_importance
from gpurig.evaljobs.quantize.settings import Calibrating
from gpurig.evaljobs.quantize.texts import load_text


def calibrate(
    source: Gguf, source_sha256: str, settings: Calibrating, target: Path, *, threads: int, llama_version: str
) -> tuple[ImportanceMatrix, bool]:
    """Compute the importance matrix of a model and write it to `target`.

    Returns:
        The matrix, and whether an earlier run had computed it: from the same model and text, in the same way.

    Raises:
        InputError: the model or the text cannot be used. PrerequisiteError: no memory, no space, no permission.
    """
    text = load_text(settings.text, built_in="calibration")
    context = chunk_context(source, settings.context)
    basis = [source_sha256, text.sha256, context, settings.chunks, settings.output, llama_version]
    origin = hashlib.sha256(json.dumps(basis).encode()).hexdigest()
    earlier = _earlier(target, origin)
    if earlier is not None:
        return earlier, True
    squares = InputSquares(output=settings.output)
    with opened(source.path, context=context, threads=threads, squares=squares) as reader:
        chunks = reader.chunks(text.content, limit=settings.chunks)
        with Progress("imatrix", len(chunks.tokens)) as progress:
            for number in range(len(chunks.tokens)):
                reader.read(chunks, number)
                progress.advance()
    matrix = ImportanceMatrix(
        squares.importance(), (text.name,), chunks=len(chunks.tokens), chunk_size=context, origin=origin
    )
    if not matrix.weights:
        raise InputError(
            f"{source.path.name} multiplies with no weight that can be watched",
            hint="quantize it without an importance matrix",
        )
    write_importance(target, matrix)
    return matrix, False


def _earlier(target: Path, origin: str) -> ImportanceMatrix | None:
    if not target.exists():
        return None
    try:
        found = read_importance(target)
    except ApplianceError:
        return None
    return found if found.origin == origin else None
