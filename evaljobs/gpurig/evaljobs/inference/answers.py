"""One request on its way to its answer: what is written, and what is scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from gpurig.evaljobs.engine import Completion, Request
from gpurig.evaljobs.inference.likelihood import normalizers
from gpurig.evaljobs.inference.works import Branch, Work
from gpurig.evaljobs.inference.written import Written, written_token
from gpurig.evaljobs.llama_sampling import Chain
from gpurig.evaljobs.llama_vocabulary import Continuations, RequestFault, Vocabulary
from gpurig.evaljobs.records import effective_adapters

# Of an answer that failed, so many of the last characters are in the message.
_SHOWN = 40


class Answer:
    """Gets logits, says which token comes next, until the request is answered.

    Attributes:
        work: the request as the scheduler sees it.
        seconds: its share of the time that was spent on computing so far.
        output: what is written so far; a stop text that is complete is cut off, a part of one is not.
        log: the tokens that made it, where the request wants them; those behind a stop text are not there.
    """

    def __init__(self, api: Any, vocabulary: Vocabulary, request: Request, *, limit: int) -> None:
        """Tokenize.

        Args:
            api: the module llama_cpp.
            vocabulary: the model's.
            request: what is asked.
            limit: tokens of prompt and answer together, at most.

        Raises:
            RequestFault: the request cannot be answered.
        """
        self._api, self._vocabulary, self._request = api, vocabulary, request
        self.seconds = 0.0
        self._prompt = vocabulary.prompt(request.tokens or request.prompt, limit)
        self._found: Continuations | None = None
        # The choices of a branch, in the order of branches: equal tokens are fed once.
        self._branches: dict[Branch, list[str]] = {}
        if request.choices:
            self._found = vocabulary.continuations(request.prompt, self._prompt, request.choices, limit)
            self._plan_branches(self._found)
        self._room = min(request.sampling.max_tokens, limit - len(self._prompt))
        group = effective_adapters(request.adapters)
        self.work = Work(request.id, tuple(self._prompt), self._room, tuple(self._branches), group)
        self._stops = tuple(stop.encode() for stop in request.stop)
        self._chain: Chain | None = None
        self.restart()

    def restart(self) -> None:
        """Forget what was computed: it is to be computed anew."""
        self.close()
        self.output, self._count = b"", 0
        self.log: list[Written] = []
        self._finish: Literal["stop", "length", ""] = ""
        self._pending = len(self._branches)
        # A choice that adds no token at all has nothing to be computed.
        self._scores: dict[str, float] = {}
        if (found := self._found) is not None:
            self._scores = {choice: 0.0 for choice, tokens in found.tokens.items() if len(tokens) == found.shared}

    def _plan_branches(self, found: Continuations) -> None:
        """What has to be fed for the choices' logits; the first token's are the prompt's own where nothing changed."""
        whole = found.shared == len(self._prompt)
        start = found.shared if whole else found.shared - 1
        for choice, tokens in found.tokens.items():
            fed = tuple(tokens[start:-1])
            if fed:
                self._branches.setdefault(Branch(start, fed), []).append(choice)

    def close(self) -> None:
        """Free the samplers; a second call does nothing."""
        if self._chain is not None:
            self._chain.close()
            self._chain = None

    @property
    def done(self) -> bool:
        """Everything that was asked for is known."""
        return bool(self._finish) and not self._pending

    def prompted(self, start: int, logits: Any) -> int | None:  # noqa: ARG002 - of the protocol
        """The prompt's last logits: the first token to feed, or None where the answer is finished.

        Raises:
            RequestFault: the grammar is none, or allows nothing. ModelFault: no usable probabilities.
        """
        if self._found is not None and self._found.shared == len(self._prompt):
            normalizer = float(normalizers(logits)[0])
            for choice, tokens in self._found.tokens.items():
                if len(tokens) > self._found.shared:
                    self._scores[choice] = float(logits[0][tokens[self._found.shared]]) - normalizer
        self._chain = Chain(
            self._api, self._vocabulary.llama, self._request.sampling, self._request.grammar, self._request.shaping
        )
        if not self._chain.valid:
            raise RequestFault("the grammar is no valid GBNF")
        return self.written(logits[0])

    def written(self, logits: Any) -> int | None:
        """The logits after the last token: the next one to feed, or None where the answer is finished.

        Raises:
            RequestFault: the grammar allows nothing. ModelFault: no usable probabilities.
        """
        if self._chain is None:
            raise AssertionError("the prompt comes first")
        try:
            token = self._chain.pick(logits)
        except RequestFault as fault:
            raise type(fault)(f"{fault}{self._so_far()}") from fault
        if self._vocabulary.ends(token):
            self._end("stop")
            return None
        if self._request.shaping.alternatives is not None:
            self.log.append(written_token(self._vocabulary, token, logits, self._request.shaping.alternatives))
        self.output += self._vocabulary.piece(token)
        self._count += 1
        found = [position for stop in self._stops if (position := self.output.find(stop)) >= 0]
        if found:
            self.output = self.output[: min(found)]
            self._forget_behind(min(found))
            self._end("stop")
            return None
        if self._count == self._room:
            self._end("length")
            return None
        return token

    def _so_far(self) -> str:
        """What is written, for a message."""
        if not self._count:
            return ""
        text = self.output.decode("utf-8", "replace")
        shown = text if len(text) <= _SHOWN else f"…{text[-_SHOWN:]}"
        return f" after {self._count} token{'s' * (self._count > 1)}: {json.dumps(shown, ensure_ascii=False)}"

    def _forget_behind(self, length: int) -> None:
        """Keep the tokens that the first `length` bytes have something of."""
        begin = 0
        for number, token in enumerate(self.log):
            if begin >= length:
                del self.log[number:]
                return
            begin += len(token.piece)

    def _end(self, finish: Literal["stop", "length"]) -> None:
        self._finish = finish
        self.close()

    def scored(self, branch: int, logits: Any) -> None:
        """The logits of a branch's tokens, of shape (tokens, vocabulary).

        Raises:
            ModelFault: no usable probabilities.
        """
        found = self._found
        if found is None:
            raise AssertionError("there are no branches without choices")
        fed = list(self._branches)[branch]
        normalizer = normalizers(logits)
        for choice in self._branches[fed]:
            tokens: Sequence[int] = found.tokens[choice]
            following = tokens[fed.start + 1 :]
            total = sum(float(logits[row][token]) - float(normalizer[row]) for row, token in enumerate(following))
            self._scores[choice] = self._scores.get(choice, 0.0) + total
        self._pending -= 1

    def result(self, parallel: int) -> Completion:
        """The answer."""
        return Completion(
            id=self._request.id,
            text=self.output.decode("utf-8", "replace"),
            finish=self._finish or "length",
            prompt_tokens=len(self._prompt),
            completion_tokens=self._count,
            seconds=self.seconds,
            choices={choice: self._scores[choice] for choice in self._request.choices},
            parallel=parallel,
        )

    def failed(self, fault: RequestFault) -> Completion:
        """The answer where there is none."""
        return failed(self._request, fault, prompt_tokens=len(self._prompt), seconds=self.seconds)


def failed(request: Request, fault: RequestFault, *, prompt_tokens: int = 0, seconds: float = 0.0) -> Completion:
    """What is answered to a request that cannot be."""
    return Completion(
        id=request.id,
        text="",
        finish="error",
        error=str(fault),
        fault=fault.kind,
        prompt_tokens=prompt_tokens,
        seconds=seconds,
    )
