"""Checks on the text of an answer: contains, not-contains, starts-with, ends-with, equals, regex."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from gpurig.common.terminal import shorten
from gpurig.evaljobs.checks.parameters import Parameters, Texts, listed
from gpurig.evaljobs.checks.subject import Answer, Finding, extract, shown

# A pattern that needs longer on one answer than this is a mistake in the suite: it would stop the pipeline.
REGEX_SECONDS = 2.0

Normalization = Literal["case", "spaces", "punctuation", "unicode", "accents"]


class Contains(Parameters):
    """Parameters of `contains`.

    Attributes:
        text: one text or several.
        match: "all" of the texts are there, "any" one of them, or all of them one behind the other ("ordered").
    """

    text: Texts
    match: Literal["all", "any", "ordered"] = "all"
    ignore_case: bool = False


class NotContains(Parameters):
    """Parameters of `not-contains`: none of the texts is there."""

    text: Texts
    ignore_case: bool = False


class Edge(Parameters):
    """Parameters of `starts-with` and `ends-with`: one of the texts stands there; white space around does not count."""

    text: Texts
    ignore_case: bool = False


class Equals(Parameters):
    """Parameters of `equals`.

    Attributes:
        text: what the answer must be, one of several; the sample's reference where none is given.
        normalize: what does not count beside the white space around: "case", how much white space stands between words
            ("spaces"), "punctuation", how a character is composed ("unicode", NFKC), "accents".
    """

    text: Texts | None = None
    normalize: Annotated[tuple[Normalization, ...], BeforeValidator(listed)] = ()


class Regex(Parameters):
    """Parameters of `regex`.

    Attributes:
        pattern: in the syntax of Python's `regex` package, a superset of `re`.
        match: "search" anywhere, or "full": the whole answer, without surrounding white space.
        expect: False turns it round: the pattern must not match.
    """

    pattern: str = Field(min_length=1)
    match: Literal["search", "full"] = "search"
    ignore_case: bool = False
    multiline: bool = False
    dot_all: bool = False
    expect: bool = True

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        import regex as engine  # noqa: PLC0415 - heavy, and `--help` does not need it

        try:
            engine.compile(pattern)
        except engine.error as error:
            raise ValueError(f"no valid pattern: {error}") from error
        return pattern


def contains(answer: Answer, parameters: Contains) -> Finding:
    """Fails where a text is not in the answer; the score of several is the share that is."""
    whole = extract(answer.output, parameters.extract)
    texts = parameters.text
    output, wanted = _cased(whole, texts, ignore_case=parameters.ignore_case)
    if parameters.match == "any":
        lacks = "" if any(text in output for text in wanted) else f"any of {_several(texts)}"
        return Finding(lacks and _contains_not(lacks, whole))
    if parameters.match == "ordered":
        found = _in_order(output, wanted)
        missing = texts[found:]
        lacks = shown(missing[0], 200) + (f" behind {shown(texts[found - 1], 60)}" if found else "") if missing else ""
    else:
        missing = tuple(text for text, one in zip(texts, wanted, strict=True) if one not in output)
        several = f"{len(missing)} of {len(texts)} texts: {_several(missing)}"
        lacks = several if len(texts) > 1 else shown(texts[0], 200)
    score = 1 - len(missing) / len(texts) if len(texts) > 1 else None
    return Finding(_contains_not(lacks, whole) if missing else "", score=score)


def not_contains(answer: Answer, parameters: NotContains) -> Finding:
    """Fails where a text is in the answer."""
    whole = extract(answer.output, parameters.extract)
    output, wanted = _cased(whole, parameters.text, ignore_case=parameters.ignore_case)
    for text, looked_for in zip(parameters.text, wanted, strict=True):
        if (place := output.find(looked_for)) >= 0:
            line = output.count("\n", 0, place) + 1
            return Finding(f"the answer contains {shown(text, 200)}, in line {line}")
    return Finding()


def starts_with(answer: Answer, parameters: Edge) -> Finding:
    """Fails where the answer begins with none of the texts."""
    whole = extract(answer.output, parameters.extract).strip()
    longest = max(map(len, parameters.text))
    # Case folding may lengthen a text, up to three times.
    head, wanted = _cased(whole[: 3 * longest], parameters.text, ignore_case=parameters.ignore_case)
    if head.startswith(wanted):
        return Finding()
    return Finding(f"the answer does not start with {_several(parameters.text)}; it starts with {shown(whole[:60])}")


def ends_with(answer: Answer, parameters: Edge) -> Finding:
    """Fails where the answer ends with none of the texts."""
    whole = extract(answer.output, parameters.extract).strip()
    longest = max(map(len, parameters.text))
    tail, wanted = _cased(whole[-3 * longest :], parameters.text, ignore_case=parameters.ignore_case)
    if tail.endswith(wanted):
        return Finding()
    return Finding(f"the answer does not end with {_several(parameters.text)}; it ends with {shown(whole[-60:])}")


def equals(answer: Answer, parameters: Equals) -> Finding:
    """Fails where the answer is none of the texts."""
    whole = extract(answer.output, parameters.extract)
    texts = parameters.text if parameters.text is not None else (answer.reference,)
    if not any(texts):
        return Finding("there is nothing to compare with: the sample has no reference, and the check no text")
    found = _normalized(whole, parameters.normalize)
    if any(found == _normalized(text, parameters.normalize) for text in texts):
        return Finding()
    return Finding(f"the answer is not {_several(texts)}; it is {shown(whole)}")


def regex(answer: Answer, parameters: Regex) -> Finding:
    """Fails where the pattern does not match, or needs more than `REGEX_SECONDS` to say so."""
    import regex as engine  # noqa: PLC0415 - heavy, and `--help` does not need it

    flags = engine.V0
    for wanted, flag in (
        (parameters.ignore_case, engine.IGNORECASE),
        (parameters.multiline, engine.MULTILINE),
        (parameters.dot_all, engine.DOTALL),
    ):
        flags |= flag if wanted else 0
    pattern = engine.compile(parameters.pattern, flags)
    output = extract(answer.output, parameters.extract)
    name = shown(parameters.pattern, 200)[1:-1]
    try:
        if parameters.match == "full":
            found = pattern.fullmatch(output.strip(), timeout=REGEX_SECONDS)
        else:
            found = pattern.search(output, timeout=REGEX_SECONDS)
    except TimeoutError:
        return Finding(f"/{name}/ took longer than {REGEX_SECONDS:g} s on this answer: make the pattern simpler")
    if (found is not None) == parameters.expect:
        return Finding()
    if found is None:
        return Finding(f"/{name}/ does not match; the answer is {shown(output)}")
    return Finding(f"/{name}/ matches {shown(found[0])}, which it must not")


def _cased(output: str, texts: Sequence[str], *, ignore_case: bool) -> tuple[str, tuple[str, ...]]:
    if ignore_case:
        return output.casefold(), tuple(text.casefold() for text in texts)
    return output, tuple(texts)


def _in_order(output: str, texts: Sequence[str]) -> int:
    """How many of the texts stand one behind the other, from the first on."""
    position = 0
    for count, text in enumerate(texts):
        place = output.find(text, position)
        if place < 0:
            return count
        position = place + len(text)
    return len(texts)


def _contains_not(what: str, output: str) -> str:
    return f"the answer does not contain {what}; it is {shown(output)}"


def _normalized(text: str, how: Sequence[Normalization]) -> str:
    if "unicode" in how or "accents" in how:
        text = unicodedata.normalize("NFKC", text)
    if "accents" in how:
        apart = unicodedata.normalize("NFD", text)
        text = "".join(one for one in apart if not unicodedata.combining(one))
    if "case" in how:
        text = text.casefold()
    if "punctuation" in how:
        text = "".join(one for one in text if not unicodedata.category(one).startswith("P"))
    return " ".join(text.split()) if "spaces" in how else text.strip()


def _several(texts: Sequence[str]) -> str:
    """A few of the texts for a message."""
    named = " or ".join(shown(text, 60) for text in texts[:3])
    return shorten(named + (f" or {len(texts) - 3} more" if len(texts) > 3 else ""), 260)
