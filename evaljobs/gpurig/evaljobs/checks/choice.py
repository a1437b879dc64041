"""The check `choice`: which letter of a multiple-choice question an answer chose."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, model_validator

from gpurig.evaljobs.checks.parameters import Parameters
from gpurig.evaljobs.checks.subject import Answer, Finding, extract, shown

# How much of the answer's begin and end is looked at: a choice stands there.
_EDGE_CHARACTERS = 4000


class Choice(Parameters):
    """Parameters of `choice`.

    Attributes:
        answer: the right letter; the sample's reference where none is given.
        letters: what can be chosen, one letter or digit each.
        options: the options' texts, in the order of the letters: an answer may repeat one instead of its letter.
    """

    answer: str = Field(default="", max_length=1)
    letters: str = Field(default="ABCD", min_length=2, max_length=36, pattern=r"^[A-Za-z0-9]+$")
    options: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        letters = self.letters.upper()
        if len(set(letters)) < len(letters):
            raise ValueError("letters: one stands there twice")
        if self.answer and self.answer.upper() not in letters:
            raise ValueError(f'answer: "{self.answer}" is none of the letters {self.letters}')
        if self.options and len(self.options) != len(letters):
            raise ValueError(f"options: {len(self.options)} texts for {len(letters)} letters")
        return self


def choice(answer: Answer, parameters: Choice) -> Finding:
    """Fails where the answer chose another letter, several, or none."""
    right = (parameters.answer or answer.reference.strip()[:1]).upper()
    letters = parameters.letters.upper()
    if not right or right not in letters:
        return Finding(f"the sample's reference {shown(answer.reference)} is none of the letters {letters}")
    whole = extract(answer.output, parameters.extract)
    chosen = chosen_letter(whole, letters, tuple(parameters.options))
    if chosen == right:
        return Finding()
    found = f"found {chosen}" if chosen else "found none, or several"
    return Finding(f"expected {right}, {found} in {shown(whole)}")


def chosen_letter(text: str, letters: str, options: tuple[str, ...] = ()) -> str:
    r"""The letter that an answer chose; "" where it chose none, or several in the same way.

    The ways in which models write a choice are tried one after the other, and the first that is there decides: a
    letter alone; `\boxed{B}`; "the answer is B", "Answer: B", the last one of these; a letter in brackets, or with a
    bracket or a point behind it, at the start; one such letter anywhere; the text of one option.

    Args:
        text: the answer.
        letters: in upper case.
        options: the options' texts in the order of the letters; may be empty.
    """
    if len(text) > 2 * _EDGE_CHARACTERS:
        text = text[:_EDGE_CHARACTERS] + "\n" + text[-_EDGE_CHARACTERS:]
    text = re.sub(r"[*_`]", "", text).strip()
    one = f"[{letters}{letters.lower()}]"
    # "a" alone in a sentence is a word: outside of a fixed form only upper case counts.
    large = f"[{letters}]"
    if found := re.fullmatch(rf"\(?({one})\)?[.:)]?", text):
        return found[1].upper()
    for pattern in (
        rf"\\boxed\{{\s*(?:\\text\{{)?\(?({one})\)?\}}",
        rf"(?i:\b(?:answer|choice|option|antwort)\b\s*(?:is|ist|:|=)?\s*:?\s*)\(?({large})\)?(?![\w'])",
    ):
        if matches := re.findall(pattern, text):
            return str(matches[-1]).upper()
    if found := re.match(rf"\(?({one})(?:[).:]|\s*[-\u2013\u2014]\s|\s*\n)", text):
        return found[1].upper()
    alone = set(re.findall(rf"(?<![\w'])\(?({large})(?:[).:]|(?![\w']))", text))
    if len(alone) == 1:
        return str(alone.pop())
    said = [letter for letter, option in zip(letters, options, strict=False) if _says(text, option)]
    return said[0] if len(said) == 1 else ""


def _says(text: str, option: str) -> bool:
    words = " ".join(option.split()).casefold()
    return bool(words) and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", " ".join(text.split()).casefold()) is not None
