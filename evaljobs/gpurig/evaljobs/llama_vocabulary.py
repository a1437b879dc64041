"""Between text and a model's tokens."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from gpurig.evaljobs.engine import Fault


class RequestFault(Exception):  # noqa: N818 - what is wrong with a request, not with the program
    """A request cannot be answered; its text says why.

    Attributes:
        kind: as completions have it.
    """

    kind: ClassVar[Fault] = "request"


class PromptTooLong(RequestFault):
    """The prompt leaves no room for an answer."""

    kind = "too-long"


class ModelFault(RequestFault):
    """The model computed what is no probability; the same figures lie in the cache then."""

    kind = "model"


@dataclass(frozen=True)
class Continuations:
    """A prompt with each of its choices, as tokens.

    Attributes:
        shared: how many first tokens of the prompt all of them begin with; at least one.
        tokens: prompt and choice together, by choice.
    """

    shared: int
    tokens: Mapping[str, Sequence[int]]


class Vocabulary:
    """A model's tokenizer.

    Attributes:
        llama: llama.cpp's handle.
        size: how many tokens there are.
    """

    def __init__(self, api: Any, model: Any) -> None:
        """Take a loaded model's."""
        self._api = api
        self.llama = api.llama_model_get_vocab(model)
        self.size = int(api.llama_vocab_n_tokens(self.llama))

    def prompt(self, text: str | Sequence[int], limit: int) -> list[int]:
        """A prompt's tokens, with the model's BOS where the text does not begin with it; tokens are taken as they are.

        Raises:
            RequestFault: there are none, or more than leave room for an answer in a context of `limit` tokens.
        """
        tokens = self.tokens(text) if isinstance(text, str) else list(text)
        if not tokens or not text:
            raise RequestFault("the prompt is empty")
        if len(tokens) >= limit:
            raise PromptTooLong(
                f"the prompt has {len(tokens)} tokens, and the context of {limit} must hold an answer too"
            )
        return tokens

    @property
    def bos(self) -> int:
        """The token that begins texts; -1 where there is none."""
        return int(self._api.llama_vocab_bos(self.llama))

    @property
    def eos(self) -> int:
        """The token that ends texts; -1 where there is none."""
        return int(self._api.llama_vocab_eos(self.llama))

    def tokens(self, text: str, *, begin: bool | None = None) -> list[int]:
        """The tokens of a text with special ones written out.

        Args:
            text: is read as it is.
            begin: whether BOS comes before it; None lets the model say, unless the text begins with it.

        Raises:
            RequestFault: llama.cpp cannot tell.
        """
        api = self._api
        raw = text.encode("utf-8", "replace")
        bos = self.bos
        if begin is None:
            begin = not (bos >= 0 and raw.startswith(api.llama_vocab_get_text(self.llama, bos) or b"\0"))
        tokens = self._tokenized(raw, begin=begin, special=True)
        if tokens and api.llama_vocab_get_add_eos(self.llama) and tokens[-1] == api.llama_vocab_eos(self.llama):
            tokens.pop()  # an end before the answer would end it
        return tokens

    def plain_tokens(self, text: str) -> list[int]:
        """The tokens of a text in which nothing is special, with what the model wants before and behind it.

        Raises:
            RequestFault: llama.cpp cannot tell.
        """
        return self._tokenized(text.encode("utf-8", "replace"), begin=True, special=False)

    def _tokenized(self, raw: bytes, *, begin: bool, special: bool) -> list[int]:
        size = len(raw) + 8
        buffer = (self._api.llama_token * size)()
        count = self._api.llama_tokenize(self.llama, raw, len(raw), buffer, size, begin, special)
        if count < 0:
            raise RequestFault("the prompt cannot be turned into tokens")
        return list(buffer[:count])

    def continuations(self, text: str, prompt: Sequence[int], choices: Sequence[str], limit: int) -> Continuations:
        """The choices after a prompt.

        A choice is tokenized together with the prompt, as the model has seen text in training. Where that changes the
        prompt's last tokens, every choice is scored from the first token that changes, so that all are comparable.

        Raises:
            RequestFault: one is longer than a context of `limit` tokens.
        """
        whole = {choice: self.tokens(text + choice) for choice in choices}
        for tokens in whole.values():
            if len(tokens) > limit:
                raise RequestFault(f"the prompt and its continuation have {len(tokens)} tokens, the context {limit}")
        return Continuations(max(1, min(_common(prompt, tokens) for tokens in whole.values())), whole)

    def ends(self, token: int) -> bool:
        """Whether a token ends an answer."""
        return bool(self._api.llama_vocab_is_eog(self.llama, token))

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """What a token adds to a text; special ones add nothing, unless they shall be written out."""
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = self._api.llama_token_to_piece(self.llama, token, buffer, size, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            size = -count


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    length = min(len(one), len(other))
    return next((index for index in range(length) if one[index] != other[index]), length)
