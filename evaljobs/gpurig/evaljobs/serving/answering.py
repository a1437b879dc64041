"""What clients get: bodies and chunks in OpenAI's shape."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gpurig.evaljobs.engine import Completion
from gpurig.evaljobs.inference.written import Likely, Written
from gpurig.evaljobs.serving.tool_calls import Call

Kind = Literal["chat", "text"]


@dataclass(frozen=True)
class Envelope:
    """What all parts of one answer carry.

    Attributes:
        kind: of the endpoint.
        id: of the answer.
        model: the name that the client used.
        fingerprint: changes with what answers.
        created: seconds since the epoch.
    """

    kind: Kind
    id: str
    model: str
    fingerprint: str
    created: int

    @classmethod
    def new(cls, kind: Kind, call: str, model: str, fingerprint: str) -> Envelope:
        """For an answer that begins now."""
        prefix = "chatcmpl" if kind == "chat" else "cmpl"
        return cls(kind, f"{prefix}-{call}", model, fingerprint, int(time.time()))

    def whole(self, choices: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer at once."""
        return {**self._head("chat.completion"), "choices": choices, "usage": usage}

    def chunk(
        self, choices: list[dict[str, Any]], *, usage: dict[str, Any] | None = None, told: bool = False
    ) -> dict[str, Any]:
        """A part of a stream; where usage is told at its end, every part has the key."""
        rest = {"usage": usage} if told else {}
        return {**self._head("chat.completion.chunk"), "choices": choices, **rest}

    def _head(self, name: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": name if self.kind == "chat" else "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def usage(done: Sequence[Completion], choices: int) -> dict[str, Any]:
    """Tokens that were used; a prompt with several choices counts once."""
    prompt = sum(one.prompt_tokens for one in done[::choices])
    completion = sum(one.completion_tokens for one in done)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def chat_logprobs(log: Sequence[Written]) -> dict[str, Any]:
    """Log-probabilities as chat completions have them."""
    return {
        "content": [{**_likely(one), "top_logprobs": [_likely(other) for other in one.alternatives]} for one in log],
        "refusal": None,
    }


def text_logprobs(log: Sequence[Written], offset: int) -> dict[str, Any]:
    """Log-probabilities as completions have them.

    Args:
        log: the tokens.
        offset: characters of the answer before the first.
    """
    places = []
    for one in log:
        places.append(offset)
        offset += len(one.piece.decode("utf-8", "replace"))
    return {
        "tokens": [_text(one) for one in log],
        "token_logprobs": [one.logprob for one in log],
        "top_logprobs": [{_text(other): other.logprob for other in one.alternatives} for one in log],
        "text_offset": places,
    }


def message(text: str, calls: Sequence[Call]) -> dict[str, Any]:
    """The assistant's turn."""
    turn: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if calls:
        turn["tool_calls"] = [call.as_data() for call in calls]
    return turn


def _likely(one: Likely) -> dict[str, Any]:
    return {"token": _text(one), "logprob": one.logprob, "bytes": list(one.text)}


def _text(one: Likely) -> str:
    return one.text.decode("utf-8", "replace")
