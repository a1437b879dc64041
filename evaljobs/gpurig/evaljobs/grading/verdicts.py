"""The grader's verdict: constrained by a grammar, and its score from the verdicts' probabilities.

The score of an answer is the expectation of the verdicts' values:

    P(v) = sum over forms f of v of exp(sum over tokens t of log p(t | prompt, tokens of f before t))
    p(v) = P(v) / sum of P(u) over all verdicts u
    score = sum of value(v) * p(v)

with the forms "v" and " v", because models differ in whether an answer begins with a space. Nothing is sampled, so the
score has no noise; and every token of a verdict counts, so verdicts may share their first ones. The verdict is the most
probable one. What the model writes at temperature 0 under a grammar that allows nothing but the verdicts is kept beside
it: greedy decoding looks one token ahead only, so it can prefer another, which tells that the grader is of two minds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gpurig.evaljobs.engine import Completion, Request
from gpurig.evaljobs.records import Sampling

_FORMS = ("{}", " {}")


@dataclass(frozen=True)
class Verdict:
    """What a completion says about an answer.

    Attributes:
        verdict: the most probable one of the suite's; "" where there is none.
        written: what the model wrote under the grammar.
        probabilities: of every verdict, adding up to 1.
        score: 0 … 1.
        error: why there is no verdict.
    """

    verdict: str
    written: str
    probabilities: Mapping[str, float]
    score: float
    error: str = ""


def grading_request(identifier: str, prompt: str, verdicts: Mapping[str, float]) -> Request:
    """The request that lets a model judge."""
    longest = max(len(verdict.encode()) for verdict in verdicts)
    # Every token is a byte at least; one more for the leading space and one for the end of the answer.
    return Request(
        id=identifier,
        prompt=prompt,
        sampling=Sampling(temperature=0.0, max_tokens=longest + 2),
        grammar=verdict_grammar(tuple(verdicts)),
        choices=tuple(form.format(verdict) for verdict in verdicts for form in _FORMS),
    )


def verdict_grammar(verdicts: tuple[str, ...]) -> str:
    """GBNF that allows one of `verdicts`, and a space before it."""
    return f'root ::= " "? ({" | ".join(_quoted(verdict) for verdict in verdicts)})'


def _quoted(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return f'"{"".join(escapes.get(character, character) for character in text)}"'


def judge(completion: Completion, verdicts: Mapping[str, float]) -> Verdict:
    """The verdict in a completion of `grading_request`."""
    if completion.finish == "error":
        return Verdict("", "", {}, 0.0, completion.error)
    written = completion.text.removeprefix(" ") if completion.text not in verdicts else completion.text
    if written not in verdicts:
        return Verdict("", "", {}, 0.0, f'the grader\'s vocabulary cannot spell the verdicts: it got to "{written}"')
    logarithms = {
        verdict: _log_sum(tuple(completion.choices[form.format(verdict)] for form in _FORMS)) for verdict in verdicts
    }
    total = _log_sum(tuple(logarithms.values()))
    if not math.isfinite(total):
        return Verdict("", "", {}, 0.0, "the grader gives every verdict the probability 0")
    probabilities = {verdict: math.exp(value - total) for verdict, value in logarithms.items()}
    score = sum(verdicts[verdict] * probability for verdict, probability in probabilities.items())
    verdict = max(probabilities, key=lambda word: probabilities[word])
    return Verdict(verdict, written, probabilities, min(max(score, 0.0), 1.0))


def _log_sum(values: tuple[float, ...]) -> float:
    """log(sum(exp(value))), without overflow."""
    top = max(values)
    if not math.isfinite(top):
        return top
    return top + math.log(sum(math.exp(value - top) for value in values))
