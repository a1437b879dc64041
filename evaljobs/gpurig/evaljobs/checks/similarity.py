"""How near an answer is to a reference: BLEU, chrF, ROUGE-L, edit distance. All scores are from 0 to 1."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from gpurig.evaljobs.checks.parameters import Scored, Texts
from gpurig.evaljobs.checks.subject import Answer, Finding, extract, shown

# Longer texts are not compared: edit distance takes time by the product of the lengths.
MAX_CHARACTERS = 100_000

_WORD = re.compile(r"\w+")


class Similar(Scored):
    """Parameters of what compares with references.

    Attributes:
        reference: one text or several; the sample's where none is given.
    """

    reference: Texts | None = None


class Chrf(Similar):
    """Parameters of `chrf`.

    Attributes:
        word_order: 0 is chrF, 2 is chrF++.
    """

    word_order: int = Field(default=0, ge=0, le=4)


class Edit(Similar):
    """Parameters of `edit-distance`.

    Attributes:
        unit: what is inserted, deleted and replaced.
    """

    unit: Literal["characters", "words"] = "characters"


def bleu(answer: Answer, parameters: Similar) -> Finding:
    """BLEU of one answer as sacrebleu computes it: tokens as mteval-13a, exponential smoothing, effective order."""
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - heavy

    metric = BLEU(effective_order=True)
    return _compared(
        "bleu", answer, parameters, lambda output, texts: metric.sentence_score(output, texts).score / 100, joint=True
    )


def chrf(answer: Answer, parameters: Chrf) -> Finding:
    """ChrF of one answer as sacrebleu computes it: n-grams of up to 6 characters, beta 2."""
    from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415 - heavy

    metric = CHRF(word_order=parameters.word_order)
    return _compared(
        "chrf", answer, parameters, lambda output, texts: metric.sentence_score(output, texts).score / 100, joint=True
    )


def rouge_l(answer: Answer, parameters: Similar) -> Finding:
    """F1 of the longest common subsequence of words, without case and punctuation (Lin 2004, sentence level)."""
    return _compared("rouge_l", answer, parameters, lambda output, texts: _rouge_l(output, texts[0]))


def edit_distance(answer: Answer, parameters: Edit) -> Finding:
    """1 - Levenshtein's distance / the longer text's length."""
    from rapidfuzz.distance import Levenshtein  # noqa: PLC0415 - heavy

    def similarity(output: str, texts: list[str]) -> float:
        if parameters.unit == "words":
            return Levenshtein.normalized_similarity(output.split(), texts[0].split())
        return Levenshtein.normalized_similarity(output, texts[0])

    return _compared("edit_similarity", answer, parameters, similarity)


def judged(name: str, score: float, threshold: float | None, found: str) -> Finding:
    """A score, its figure, and whether it is enough.

    Args:
        name: of the figure.
        score: 0 … 1.
        threshold: the least that passes; None where nothing fails.
        found: what was compared, for the message.
    """
    score = min(1.0, max(0.0, score))
    message = ""
    if threshold is not None and score < threshold:
        message = f"expected {name} of at least {threshold:g}, found {score:.3f} for {found}"
    return Finding(message, score=score, figures={name: score})


def _rouge_l(output: str, text: str) -> float:
    from rapidfuzz.distance import LCSseq  # noqa: PLC0415 - heavy

    found, wanted = _WORD.findall(output.casefold()), _WORD.findall(text.casefold())
    common = LCSseq.similarity(found, wanted)
    return 2 * common / (len(found) + len(wanted)) if common else 0.0


def _compared(
    name: str,
    answer: Answer,
    parameters: Similar,
    similarity: Callable[[str, list[str]], float],
    *,
    joint: bool = False,
) -> Finding:
    """The score against all references at once (`joint`), or the best of those against each."""
    output = extract(answer.output, parameters.extract).strip()
    texts = [text.strip() for text in parameters.reference or (answer.reference,) if text.strip()]
    if not texts:
        return Finding(
            "there is nothing to compare with: the sample has no reference, and the check no text", score=0.0
        )
    longest = max(map(len, (output, *texts)))
    if longest > MAX_CHARACTERS:
        return Finding(f"a text has {longest} characters; at most {MAX_CHARACTERS} are compared", score=0.0)
    score = similarity(output, texts) if joint else max(similarity(output, [text]) for text in texts)
    return judged(name, score, parameters.threshold, shown(output))
