"""Checks that compare by an embedding model: embedding-similarity, retrieval."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from gpurig.common.errors import InputError
from gpurig.common.files import read_text
from gpurig.evaljobs.checks.files import files_below
from gpurig.evaljobs.checks.parameters import Scored, Texts, listed
from gpurig.evaljobs.checks.resources import Vectors
from gpurig.evaljobs.checks.similarity import judged
from gpurig.evaljobs.checks.subject import Answer, Finding, extract, shown

_MOST_CHUNKS = 100_000
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


class EmbeddingSimilarity(Scored):
    """Parameters of `embedding-similarity`.

    Attributes:
        model: an embedding model's name or path, as for generators.
        reference: one text or several; the sample's where none is given.
        prefix: what the model wants before every text ("clustering: ").
    """

    model: str = Field(min_length=1)
    reference: Texts | None = None
    prefix: str = ""


class Retrieval(Scored):
    """Parameters of `retrieval`.

    Attributes:
        model: an embedding model's name or path.
        folder: of text files, relative to the suite's.
        relevant: the files that answer the question, by their paths in the folder; where none are given, those in the
            sample's variable `relevant`, separated by commas.
        k: how many files are looked at.
        measure: what the score is.
        chunk, overlap: characters of a chunk of a file, and of those that the next one repeats.
        query_prefix, passage_prefix: what the model wants before them ("search_query: ").
    """

    model: str = Field(min_length=1)
    folder: str = Field(min_length=1)
    relevant: Annotated[tuple[str, ...], BeforeValidator(listed)] = ()
    k: int = Field(default=5, ge=1, le=1000)
    measure: Literal["hit", "mrr", "ndcg", "recall"] = "hit"
    chunk: int = Field(default=800, ge=50, le=100_000)
    overlap: int = Field(default=100, ge=0)
    query_prefix: str = ""
    passage_prefix: str = ""

    @model_validator(mode="after")
    def _chunks_move_on(self) -> Self:
        if self.overlap >= self.chunk:
            raise ValueError(f"overlap {self.overlap} must be less than chunk {self.chunk}")
        return self

    def files(self) -> tuple[str, ...]:
        """The folder."""
        return (self.folder,)

    def problem(self, folder: Path) -> str:
        """Why there is nothing to retrieve from, or what cannot be found in it."""
        place = folder / self.folder
        if not place.is_dir():
            return f"there is no folder {place}"
        names = {str(file.relative_to(place)) for file in files_below(place)}
        if not names:
            return f"there is no file in {place}"
        missing = [name for name in self.relevant if name not in names]
        return f"relevant: there is no file {shown(missing[0])} in {place}" if missing else ""


@dataclass(frozen=True)
class Passages:
    """A folder's texts in chunks.

    Attributes:
        chunks: what is embedded.
        sources: each chunk's file, by its path in the folder.
    """

    chunks: tuple[str, ...]
    sources: tuple[str, ...]


def similarity_texts(answer: Answer, parameters: EmbeddingSimilarity) -> Sequence[str]:
    """What the model has to embed for `embedding-similarity`."""
    output, references = _compared(answer, parameters)
    return (output, *references) if output and references else ()


def embedding_similarity(answer: Answer, parameters: EmbeddingSimilarity) -> Finding:
    """The cosine of the answer's vector and the nearest reference's, 0 where it is negative."""
    output, references = _compared(answer, parameters)
    if not references:
        return Finding("nothing to compare with: the sample has no reference, and the check no text", score=0.0)
    if not output:
        return Finding("the answer is empty", score=0.0)
    vectors = answer.resources.vectors.get(parameters.model, Vectors())
    for text in (output, *references):
        if text not in vectors.known:
            return Finding(_no_vector(vectors, text), score=0.0)
    cosine = max(float(vectors.known[output] @ vectors.known[text]) for text in references)
    return judged("embedding_similarity", cosine, parameters.threshold, shown(answer.output))


def retrieval_texts(answer: Answer, parameters: Retrieval) -> Sequence[str]:
    """What the model has to embed of one sample."""
    return (parameters.query_prefix + answer.input,)


def retrieval_passages(folder: Path, parameters: Retrieval) -> Sequence[str]:
    """What the model has to embed for all samples."""
    return passages(folder, parameters).chunks


def retrieval(answer: Answer, parameters: Retrieval) -> Finding:
    """How well the question finds the files that answer it; the generator's answer plays no part.

    A file is as near as its nearest chunk. hit@k: whether a relevant one is among the first k; mrr: 1 / the first
    relevant one's place, of all; ndcg@k: with gain 1 for relevant ones and log2 discount; recall@k: their share.
    """
    wanted = parameters.relevant or _variable(answer)
    if not wanted:
        return Finding("no file is named as relevant: give `relevant`, or the variable of that name", score=0.0)
    vectors = answer.resources.vectors.get(parameters.model, Vectors())
    query = parameters.query_prefix + answer.input
    if query not in vectors.known:
        return Finding(_no_vector(vectors, query), score=0.0)
    ranked = _index(answer, parameters, vectors).ranked(vectors.known[query])
    k = parameters.k
    figures = {
        f"hit@{k}": float(any(name in wanted for name in ranked[:k])),
        "mrr": next((1 / place for place, name in enumerate(ranked, 1) if name in wanted), 0.0),
        f"ndcg@{k}": _ndcg(ranked[:k], wanted, k),
        f"recall@{k}": sum(name in wanted for name in ranked[:k]) / len(wanted),
    }
    name = parameters.measure if parameters.measure == "mrr" else f"{parameters.measure}@{k}"
    least, score = parameters.threshold, figures[name]
    message = ""
    if least is not None and score < least:
        found = ", ".join(shown(one, 40) for one in ranked[:3])
        message = f"expected {name} of at least {least:g}, found {score:.3f}: the nearest files are {found}"
    return Finding(message, score=score, figures=figures)


def passages(folder: Path, parameters: Retrieval) -> Passages:
    """The chunks of the folder's files; cut between sentences where there is one in the last third of a chunk.

    Raises:
        InputError: a file is no text, or there are more than `_MOST_CHUNKS` chunks.
    """
    place = folder / parameters.folder
    chunks: list[str] = []
    sources: list[str] = []
    for file in files_below(place):
        for chunk in cut(read_text(file), parameters.chunk, parameters.overlap):
            chunks.append(parameters.passage_prefix + chunk)
            sources.append(str(file.relative_to(place)))
        if len(chunks) > _MOST_CHUNKS:
            raise InputError(f"{place} has more than {_MOST_CHUNKS} chunks", hint="larger chunks, or a smaller folder")
    return Passages(tuple(chunks), tuple(sources))


def cut(text: str, size: int, overlap: int) -> list[str]:
    """A text in pieces of at most `size` characters, each repeating the last `overlap` of the one before."""
    pieces = []
    start = 0
    while start < len(text):
        end = min(len(text), start + size)
        if end < len(text):
            # Not behind a cut that would not move on.
            least = max(start + 2 * size // 3, start + overlap + 1)
            places = [found.end() for found in _SENTENCE.finditer(text, least, end)]
            end = places[-1] if places else end
        if piece := text[start:end].strip():
            pieces.append(piece)
        if end == len(text):
            break
        start = end - overlap
    return pieces


def _compared(answer: Answer, parameters: EmbeddingSimilarity) -> tuple[str, list[str]]:
    output = extract(answer.output, parameters.extract).strip()
    references = [text.strip() for text in parameters.reference or (answer.reference,) if text.strip()]
    return output and parameters.prefix + output, [parameters.prefix + text for text in references]


def _variable(answer: Answer) -> tuple[str, ...]:
    named = str(answer.vars.get("relevant", ""))
    return tuple(name.strip() for name in named.split(",") if name.strip())


@dataclass(frozen=True)
class _Index:
    """Vectors of shape (chunks, width), and each one's file."""

    matrix: Any
    sources: tuple[str, ...]

    def ranked(self, query: Any) -> list[str]:
        """The files, the nearest first."""
        nearest: dict[str, float] = {}
        for source, score in zip(self.sources, (self.matrix @ query).tolist(), strict=True):
            nearest[source] = max(nearest.get(source, -math.inf), score)
        return sorted(nearest, key=lambda source: (-nearest[source], source))


def _index(answer: Answer, parameters: Retrieval, vectors: Vectors) -> _Index:
    """The folder's, made once in a run; chunks without a vector are left out."""
    import numpy as np  # noqa: PLC0415 - comes with llama-cpp-python

    how = parameters.chunk, parameters.overlap, parameters.passage_prefix
    key = ("retrieval", parameters.model, parameters.folder, *how)
    memory = answer.resources.memory
    if key not in memory:
        corpus = passages(answer.folder, parameters)
        pairs = zip(corpus.chunks, corpus.sources, strict=True)
        known = [(vectors.known[chunk], source) for chunk, source in pairs if chunk in vectors.known]
        matrix = (
            np.stack([vector for vector, _ in known])
            if known
            else np.zeros((0, len(next(iter(vectors.known.values())))))
        )
        memory[key] = _Index(matrix, tuple(source for _, source in known))
    index: _Index = memory[key]
    return index


def _ndcg(ranked: Sequence[str], wanted: Sequence[str], k: int) -> float:
    gained = math.fsum(1 / math.log2(place + 1) for place, name in enumerate(ranked, 1) if name in wanted)
    return gained / math.fsum(1 / math.log2(place + 1) for place in range(1, min(len(wanted), k) + 1))


def _no_vector(vectors: Vectors, text: str) -> str:
    return vectors.problems.get(text, f"there is no vector of {shown(text)}")
