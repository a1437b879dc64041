"""Messages as the text that a model gets: its own chat template, in which what clients write stays plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gpurig.common.errors import InputError
from gpurig.common.gguf import Gguf
from gpurig.evaljobs.serving.bodies import ChatBody, Message, Tool
from gpurig.evaljobs.serving.faults import ApiFault
from gpurig.evaljobs.serving.tool_calls import CallFormat, call_format
from gpurig.evaljobs.suites.prompts import special_texts, token_text, without_specials
from gpurig.evaljobs.suites.template import render

_TEMPLATE = "tokenizer.chat_template"
# Set by us; a client's `chat_template_kwargs` must not speak for them.
_OWN = frozenset({"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"})


class ChatTemplate:
    """A model's chat template.

    Attributes:
        calls: how it lets the model write calls of tools.
    """

    def __init__(self, gguf: Gguf, template: str = "") -> None:
        """Read it.

        Args:
            gguf: the model's header; it must be open.
            template: instead of the model's own.
        """
        own = template or gguf.metadata.get(_TEMPLATE)
        self._text = own if isinstance(own, str) else ""
        with_tools = "" if template else gguf.metadata.get(f"{_TEMPLATE}.tool_use")
        self._tool_text = with_tools if isinstance(with_tools, str) and with_tools else self._text
        self._specials = special_texts(gguf)
        self._tokens = {f"{which}_token": token_text(gguf, which) for which in ("bos", "eos")}
        self.calls: CallFormat = call_format(self._tool_text)

    def prompt(self, body: ChatBody, tools: Sequence[Tool]) -> str:
        """The prompt of a conversation.

        Raises:
            ApiFault: the model has no template, or the template refuses the conversation.
        """
        text = self._tool_text if tools else self._text
        if not text:
            raise ApiFault(
                400, "This model has no chat template: use /v1/completions, or serve it with --chat-template FILE."
            )
        if tools and "tools" not in text:
            raise ApiFault(400, "This model's chat template has no place for tools.", param="tools")
        extra = body.chat_template_kwargs or {}
        if own := sorted(_OWN & extra.keys()):
            raise ApiFault(400, f"'{own[0]}' cannot be set.", param="chat_template_kwargs", code="invalid_value")
        values: dict[str, Any] = {
            **self._plain(extra),
            "messages": [self._plain(_turn(message)) for message in body.messages],
            "add_generation_prompt": True,
            **self._tokens,
        }
        if tools:
            values["tools"] = [self._plain(tool.model_dump(exclude_none=True)) for tool in tools]
        try:
            return render(text, values, what="the model's chat template", strict=False)
        except InputError as error:
            raise ApiFault(400, error.message[:500], param="messages") from None

    def _plain(self, value: Any) -> Any:
        """The value, in which no text is read as a special token."""
        match value:
            case str():
                return without_specials(value, self._specials)
            case list():
                return [self._plain(one) for one in value]
            case Mapping():
                return {self._plain(key): self._plain(one) for key, one in value.items()}
        return value


def _turn(message: Message) -> dict[str, Any]:
    """A message as templates know it."""
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text or part.refusal or "" for part in content)
    # What OpenAI calls developer now is what templates call system.
    turn: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role, "content": content or ""}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := getattr(message, name)) is not None:
            turn[name] = value
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": _arguments(call.function.arguments)},
            }
            for call in message.tool_calls
        ]
    return turn


def _arguments(text: str) -> Any:
    """Templates write arguments as JSON themselves; what is none stays text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
