"""Log-likelihoods: what a model thinks of tokens that it did not write.

`InferenceEngine.score(requests)` takes ScoreRequests and answers each with a Scored. Tokens in, figures out: how a text
is cut into tokens is the caller's.

All continuations of one context are computed after that context was computed once, whichever requests they come from;
contexts that begin alike share their beginnings as all prompts do. A continuation of n tokens needs n - 1 of them fed:
its first token's probability is in the context's last logits, and nothing follows its last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpurig.evaljobs.engine import Fault
from gpurig.evaljobs.inference.works import Branch, Group, Work
from gpurig.evaljobs.llama_vocabulary import ModelFault, PromptTooLong, RequestFault
from gpurig.evaljobs.records import AdapterRef, effective_adapters

# A continuation of one request: the request's id and the continuation's number.
Place = tuple[str, int]
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class ScoreRequest:
    """Continuations whose probabilities after a context are wanted.

    Attributes:
        id: unique; comes back in the answer.
        context: tokens, at least one (a BOS where there is nothing else).
        continuations: each of any number of tokens.
        adapters: LoRA adapters that the model is computed with.
    """

    id: str
    context: Tokens
    continuations: tuple[Tokens, ...]
    adapters: tuple[AdapterRef, ...] = ()


@dataclass(frozen=True)
class Likelihood:
    """What the model thinks of one continuation.

    Attributes:
        logprobs: every token's natural logarithm of its probability, given all before it.
        greedy: every one is the likeliest in its place (the first of equally likely ones).
    """

    logprobs: tuple[float, ...]
    greedy: bool

    @property
    def total(self) -> float:
        """The logarithm of the whole continuation's probability."""
        return sum(self.logprobs)


@dataclass(frozen=True)
class Scored:
    """The answer to a request.

    Attributes:
        continuations: in the request's order; empty where there is an error.
        error: why there is no answer.
        fault: of which kind the error is, as completions have it.
        seconds: its share of the time that was spent on computing.
        parallel: how many contexts were computed at the same time, at most.
    """

    id: str
    continuations: tuple[Likelihood, ...] = ()
    error: str = ""
    fault: Fault = ""
    seconds: float = 0.0
    parallel: int = 1


@dataclass(frozen=True)
class Piece:
    """What a task came to: some continuations' likelihoods, or why there are none."""

    found: Mapping[Place, Likelihood]
    places: tuple[Place, ...]
    seconds: float
    parallel: int = 1
    fault: RequestFault | None = None


class _Scoring:
    """What both kinds of task share."""

    def __init__(self, work: Work, places: Sequence[Place]) -> None:
        self.work, self.places = work, tuple(places)
        self.seconds = 0.0
        self.found: dict[Place, Likelihood] = {}

    def written(self, logits: Any) -> int | None:  # noqa: ARG002 - of the protocol
        raise AssertionError("nothing is written here")

    def close(self) -> None:
        """Nothing is held."""

    def result(self, parallel: int) -> Piece:
        return Piece(self.found, self.places, self.seconds, parallel)

    def failed(self, fault: RequestFault) -> Piece:
        return Piece({}, self.places, self.seconds, fault=fault)


class BranchedScores(_Scoring):
    """Short continuations of one context, each fed as a branch and forgotten again."""

    def __init__(
        self, name: str, context: Tokens, group: Group, continuations: Mapping[Place, Tokens], *, ride: bool
    ) -> None:
        """Plan the branches.

        Args:
            name: unique among the tasks.
            context: at least one token.
            group: the adapters.
            continuations: each of at least one token.
            ride: one whose fed tokens are the beginning of another's is not fed itself.
        """
        self._continuations = continuations
        self._branches: dict[Tokens, list[Place]] = {}
        for place, tokens in sorted(continuations.items(), key=lambda entry: -len(entry[1])):
            fed = tokens[:-1]
            if not fed:
                continue
            carrier = fed
            if ride:
                carrier = next((one for one in self._branches if one[: len(fed)] == fed), fed)
            self._branches.setdefault(carrier, []).append(place)
        branches = tuple(Branch(len(context), fed) for fed in self._branches)
        super().__init__(Work(name, context, 0, branches, group), tuple(continuations))
        self._firsts: dict[Place, tuple[float, bool]] = {}
        self._pending = len(branches)

    @property
    def done(self) -> bool:
        return len(self.found) == len(self._continuations)

    def restart(self) -> None:
        self.found, self._firsts = {}, {}

    def prompted(self, start: int, logits: Any) -> None:  # noqa: ARG002 - of the protocol
        normalizer, best = normalizers(logits), int(logits[0].argmax())
        for place, tokens in self._continuations.items():
            first = (float(logits[0][tokens[0]]) - float(normalizer[0]), tokens[0] == best)
            self._firsts[place] = first
            if len(tokens) == 1:
                self.found[place] = Likelihood((first[0],), first[1])

    def scored(self, branch: int, logits: Any) -> None:
        places = list(self._branches.values())[branch]
        normalizer, best = normalizers(logits), logits.argmax(axis=1)
        for place in places:
            following = self._continuations[place][1:]
            first, greedy = self._firsts[place]
            values = [float(logits[row][token]) - float(normalizer[row]) for row, token in enumerate(following)]
            likeliest = all(int(best[row]) == token for row, token in enumerate(following))
            self.found[place] = Likelihood((first, *values), greedy and likeliest)


class LongScore(_Scoring):
    """One continuation of any length: the prompt goes up to its last token, and logits come in pieces."""

    def __init__(self, name: str, context: Tokens, group: Group, place: Place, continuation: Tokens) -> None:
        """Plan the prompt; context and continuation have at least one token each."""
        self._continuation, self._begin, self._place = continuation, len(context) - 1, place
        super().__init__(Work(name, (*context, *continuation[:-1]), 0, group=group, logits=len(continuation)), (place,))
        self._values: list[float] = []
        self._greedy = True

    @property
    def done(self) -> bool:
        return bool(self.found)

    def restart(self) -> None:
        self.found, self._values, self._greedy = {}, [], True

    def prompted(self, start: int, logits: Any) -> None:
        begin = start - self._begin
        if begin != len(self._values):
            raise AssertionError("logits come in order")
        targets = self._continuation[begin : begin + len(logits)]
        normalizer, best = normalizers(logits), logits.argmax(axis=1)
        for row, token in enumerate(targets):
            self._values.append(float(logits[row][token]) - float(normalizer[row]))
            self._greedy = self._greedy and int(best[row]) == token
        if len(self._values) == len(self._continuation):
            self.found[self._place] = Likelihood(tuple(self._values), self._greedy)

    def scored(self, branch: int, logits: Any) -> None:  # noqa: ARG002 - of the protocol
        raise AssertionError("there are no branches here")


@dataclass(frozen=True)
class Plan:
    """What has to be computed for requests.

    Attributes:
        tasks: every continuation of at least one token is in one of them.
        empty: continuations of no token.
        refused: requests that cannot be answered, and why.
    """

    tasks: tuple[BranchedScores | LongScore, ...]
    empty: tuple[Place, ...]
    refused: Mapping[str, RequestFault]


def plan_scores(
    requests: Sequence[ScoreRequest], *, limit: int, longest: int, vocabulary: int, alone: bool = False
) -> Plan:
    """Which contexts are computed, and what after each; pure.

    Args:
        requests: their ids are unique.
        limit: tokens of the model's context.
        longest: tokens of a branch; what is longer is computed as a prompt of its own.
        vocabulary: how many tokens the model knows.
        alone: what is computed for a continuation must not depend on the other ones.

    Raises:
        ValueError: an id is there twice.
    """
    if len({request.id for request in requests}) < len(requests):
        raise ValueError("two requests have one id")
    refused = {request.id: fault for request in requests if (fault := _refusal(request, limit, vocabulary)) is not None}
    branched: dict[tuple[Tokens, Group, str], dict[Place, Tokens]] = {}
    tasks: list[BranchedScores | LongScore] = []
    empty: list[Place] = []
    for request in requests:
        if request.id in refused:
            continue
        group = effective_adapters(request.adapters)
        for number, continuation in enumerate(request.continuations):
            place = (request.id, number)
            if not continuation:
                empty.append(place)
            elif len(continuation) - 1 > longest:
                tasks.append(LongScore(f"long-{len(tasks)}", request.context, group, place, continuation))
            else:
                key = (request.context, group, request.id if alone else "")
                branched.setdefault(key, {})[place] = continuation
    for (context, group, _), continuations in branched.items():
        tasks.append(BranchedScores(f"short-{len(tasks)}", context, group, continuations, ride=not alone))
    return Plan(tuple(tasks), tuple(empty), refused)


def _refusal(request: ScoreRequest, limit: int, vocabulary: int) -> RequestFault | None:
    if not request.context:
        return RequestFault("the context is empty: a model needs one token to begin with")
    for tokens in (request.context, *request.continuations):
        # llama.cpp fails the whole call for one, and numpy counts negative ones from the end.
        if tokens and not 0 <= min(tokens) <= max(tokens) < vocabulary:
            return RequestFault(f"a token is none of the model's, which has 0 to {vocabulary - 1}")
    # The last token is not fed.
    longest = len(request.context) + max((len(tokens) for tokens in request.continuations), default=0) - 1
    if longest > limit:
        return PromptTooLong(f"the context and its continuation have {longest + 1} tokens, the model's context {limit}")
    return None


def gathered(requests: Sequence[ScoreRequest], plan: Plan, pieces: Iterator[Piece]) -> Iterator[Scored]:
    """Every request's answer, as soon as all of its continuations are known."""
    waiting = {request.id: _Waiting(request) for request in requests}
    for name, fault in plan.refused.items():
        yield waiting.pop(name).failed(fault)
    for name, number in plan.empty:
        waiting[name].known[number] = Likelihood((), greedy=True)
    for name in tuple(waiting):
        if waiting[name].done:
            yield waiting.pop(name).answer()
    for piece in pieces:
        for name, number in piece.places:
            one = waiting.get(name)
            if one is None:
                continue  # it failed already
            one.seconds += piece.seconds / len(piece.places)
            one.parallel = max(one.parallel, piece.parallel)
            if piece.fault is not None:
                yield waiting.pop(name).failed(piece.fault)
                continue
            one.known[number] = piece.found[name, number]
            if one.done:
                yield waiting.pop(name).answer()


class _Waiting:
    """A request of which not everything is known."""

    def __init__(self, request: ScoreRequest) -> None:
        self._request = request
        self.known: dict[int, Likelihood] = {}
        self.seconds, self.parallel = 0.0, 1

    @property
    def done(self) -> bool:
        return len(self.known) == len(self._request.continuations)

    def answer(self) -> Scored:
        ordered = tuple(self.known[number] for number in range(len(self._request.continuations)))
        return Scored(self._request.id, ordered, seconds=self.seconds, parallel=self.parallel)

    def failed(self, fault: RequestFault) -> Scored:
        return Scored(self._request.id, error=str(fault), fault=fault.kind, seconds=self.seconds)


def normalizers(logits: Any) -> Any:
    """What turns logits of shape (tokens, vocabulary) into log-probabilities when it is taken from them: float64.

    log Σ exp(logit) of each row, its largest logit taken out before, so that nothing overflows.

    Raises:
        ModelFault: a row has no finite largest one.
    """
    import numpy as np  # noqa: PLC0415 - comes with llama-cpp-python

    top = logits.max(axis=1)
    # The largest of numbers of which one is NaN is NaN.
    if not np.isfinite(top).all():
        raise ModelFault("the model computed no usable probabilities (NaN or infinite logits)")
    return np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)) + top
