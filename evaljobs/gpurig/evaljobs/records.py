"""The records between stages: JSON Lines, one record a sample, each with everything that explains it.

The format is documented in docs/formats.md; a change that an older reader cannot ignore raises `RECORD_VERSION`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

RECORD_VERSION: Literal[1] = 1


class Part(BaseModel):
    """What records are made of. Unknown fields are left out, so that a newer writer's additions do no harm."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Record(Part):
    """What all records share: the version of their format."""

    version: Literal[1] = RECORD_VERSION


class RunRecord(Record):
    """What a run of a stage wants, written before its first record; the last one of a file counts.

    Attributes:
        started: ISO 8601 in UTC.
        keys: every wanted sample's key, in the suite's order; records with other keys are of other runs.
    """

    record: Literal["run"] = "run"
    started: str
    keys: dict[str, str]


class AdapterRef(Part):
    """A LoRA adapter that a model ran with.

    Attributes:
        name: as the suite or the user names it.
        file: the file's name, without its folder.
        sha256: of the whole file, hexadecimal.
        size_bytes: of the file.
        scale: how strongly it was applied: 1 as it was trained, 0 not at all.
    """

    name: str
    file: str
    sha256: str
    size_bytes: int
    scale: float = 1.0


def effective_adapters(adapters: Iterable[AdapterRef]) -> tuple[tuple[str, float], ...]:
    """What adapters come to: SHA-256 and scale of each, in one order, those that change nothing left out.

    An adapter that is there twice is as strong as both together.
    """
    scales: dict[str, float] = {}
    for one in adapters:
        scales[one.sha256] = scales.get(one.sha256, 0.0) + one.scale
    return tuple(sorted((sha256, scale) for sha256, scale in scales.items() if scale))


class ModelRef(Part):
    """A model file that ran.

    Attributes:
        name: as the suite names it.
        file: the file's name, without its folder.
        sha256: of the whole file, hexadecimal; of a split model over its parts (`models.model_sha256`).
        size_bytes: of the whole model.
        place: where it was found: "given", "image", "bundled", "volume", "box", "cache", "download" or "path"; "" in
            records that were written before this was noted.
        source: where a pull brought it from, with its revision; "" where nobody knows.
        others: files of the same name in later places that have other bytes.
        adapters: that it ran with.
    """

    name: str
    file: str
    sha256: str
    size_bytes: int
    place: str = ""
    source: str = ""
    others: tuple[str, ...] = ()
    adapters: tuple[AdapterRef, ...] = ()

    @property
    def identity(self) -> tuple[str, tuple[tuple[str, float], ...]]:
        """The same for models that answer the same."""
        return self.sha256, effective_adapters(self.adapters)

    @property
    def title(self) -> str:
        """What a person calls it: "qwen3-8b with style.gguf, tone.gguf (0.5)"."""
        names = [one.name + (f" ({one.scale:g})" if one.scale != 1 else "") for one in self.adapters]
        return self.name + (f" with {', '.join(names)}" if names else "")


class Sampling(Part):
    """How tokens are chosen. Temperature 0 is greedy."""

    temperature: float = Field(default=0.0, ge=0.0, le=10.0)
    top_k: int = Field(default=40, ge=0)
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    min_p: float = Field(default=0.05, ge=0.0, le=1.0)
    repeat_penalty: float = Field(default=1.0, ge=0.0)
    max_tokens: int = Field(default=256, ge=1)
    seed: int = Field(default=1, ge=0, lt=2**32)


def trial_id(sample: str, generator: str = "", epoch: int = 1) -> str:
    """What names one answer: "lint", "lint@small" by the generator of that name, "lint@small#2" in the second epoch.

    Neither sample ids nor names hold an at sign or a hash.
    """
    return sample + (f"@{generator}" if generator else "") + (f"#{epoch}" if epoch > 1 else "")


class TrialRecord(Record):
    """A record about one answer to one sample.

    Attributes:
        sample: the sample's id.
        generator: whose answer; "" where the suite has one generator without a name.
        epoch: the how-manieth answer of that generator to that sample, from 1.
    """

    sample: str
    generator: str = ""
    epoch: int = Field(default=1, ge=1)

    @property
    def trial(self) -> str:
        """What names the answer."""
        return trial_id(self.sample, self.generator, self.epoch)


class PromptRef(Part):
    """A prompt of the suite's library.

    Attributes:
        version: as its file says; may be empty.
        sha256: of the template, what it includes in it.
    """

    name: str
    version: str = ""
    sha256: str


class Generation(TrialRecord):
    """What the generator wrote for one sample.

    Attributes:
        key: SHA-256 over everything that changes the answer; the same key is never generated twice.
        basis: SHA-256 over what the suite says of it: later stages see by it, without the model, whether it answers
            the suite as it is now.
        prompt_sha256: of the prompt as the model got it.
        template: which prompt of the library it was made from; None where the suite itself writes it.
        finish: why it ended: "stop", "length" (max_tokens), or "error".
        error: what went wrong where `finish` is "error".
        prompt_tokens, completion_tokens: counts.
        seconds: its share of the time that was spent on computing.
        parallel: samples that were answered at the same time, at most; 0 in records from before this was noted.
        exact: whether the sample alone came to the same answer; None where that was not tried.
        packages: versions that produced it, by package name.
    """

    record: Literal["generation"] = "generation"
    key: str
    basis: str = ""
    model: ModelRef
    prompt_sha256: str
    template: PromptRef | None = None
    sampling: Sampling
    output: str
    finish: Literal["stop", "length", "error"]
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    parallel: int = 0
    exact: bool | None = None
    packages: dict[str, str] = Field(default_factory=dict)


class CheckOutcome(Part):
    """One check on one output.

    Attributes:
        check: the kind, for example "gitlab-ci".
        label: which one of that kind, for a person: the text looked for, the pattern; may be empty.
        message: why it failed; empty where it passed.
        score: how good, 0 ... 1, where the check knows more than passed or not; None elsewhere.
        weight: how much the score counts among those of the sample's checks; one without a score counts 1 or 0.
        figures: what it measured, by name, for the run's metrics ("bleu", "hit@5").
        skipped: it could not be looked at and counts nowhere; `message` says why. `passed` is true then.
    """

    check: str
    label: str = ""
    passed: bool
    message: str = ""
    score: float | None = None
    weight: float = 1.0
    figures: dict[str, float] = Field(default_factory=dict)
    skipped: bool = False


class Checked(TrialRecord):
    """All checks of one sample.

    Attributes:
        key: SHA-256 over the output, the checks' definitions and the packages.
        basis: SHA-256 over the output and what the suite says of it.
    """

    record: Literal["check"] = "check"
    key: str
    basis: str = ""
    outcomes: tuple[CheckOutcome, ...]
    packages: dict[str, str] = Field(default_factory=dict)


class ScoredText(Part):
    """How probable one text is.

    Attributes:
        text: the choice; "" for the text of a whole item.
        logprob: natural logarithm of its probability.
        tokens, bytes: that it has; the first choice's tokens may begin within the prompt (docs/score.md).
        greedy: every token is the likeliest in its place.
    """

    text: str = ""
    logprob: float
    tokens: int
    bytes: int
    greedy: bool = False


class Score(TrialRecord):
    """The log-likelihoods of a line of `gpurig-job score`; `sample` is its id.

    Attributes:
        kind: "choices" after a prompt, or a whole "text".
        scored: the choices in their order, or the text alone.
        answer: the number of the right choice; None where the line has none.
        words: of a text, separated by white space.
        windows: that a text was computed in.
        error: why there is nothing.
    """

    record: Literal["score"] = "score"
    key: str
    model: ModelRef
    kind: Literal["choices", "text"]
    scored: tuple[ScoredText, ...] = ()
    answer: int | None = None
    words: int = 0
    windows: int = 0
    seconds: float = 0.0
    error: str = ""
    packages: dict[str, str] = Field(default_factory=dict)


class Grade(TrialRecord):
    """The grader's verdict on one sample.

    Attributes:
        template: which prompt of the library asked for it; None where the suite itself writes it.
        key: SHA-256 over everything that changes the verdict.
        basis: SHA-256 over the output and what the suite says of it.
        verdict: the most probable of the suite's verdicts.
        written: the verdict that the model writes at temperature 0 under a grammar that allows nothing else; where it
            differs from `verdict`, the grader is of two minds.
        probabilities: of every verdict, adding up to 1.
        score: the expectation of the verdicts' values over `probabilities`, 0 … 1.
        error: what went wrong; verdict is "" then.
    """

    record: Literal["grade"] = "grade"
    key: str
    basis: str = ""
    model: ModelRef
    prompt_sha256: str
    template: PromptRef | None = None
    verdict: str
    written: str = ""
    score: float
    probabilities: dict[str, float] = Field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    packages: dict[str, str] = Field(default_factory=dict)
