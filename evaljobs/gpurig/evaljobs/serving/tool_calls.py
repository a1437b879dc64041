"""Calls of tools: how a chat template lets the model write them, and how they are read.

Two ways are known: between <tool_call> tags (Hermes; Qwen and many others), and as an answer that is nothing but JSON
(Llama 3). What a model writes in another way stays text.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpurig.evaljobs.serving.bodies import Tool
from gpurig.evaljobs.serving.schema_grammar import Grammar, literal


@dataclass(frozen=True)
class CallFormat:
    """How calls are written.

    Attributes:
        opening: before each call; empty where the whole answer is one.
        closing: behind it.
        arguments: the key of the arguments.
    """

    opening: str
    closing: str
    arguments: str


_TAGGED = CallFormat("<tool_call>", "</tool_call>", "arguments")
_BARE = CallFormat("", "", "parameters")


@dataclass(frozen=True)
class Call:
    """A call that a model wrote; arguments are JSON."""

    name: str
    arguments: str

    def as_data(self) -> dict[str, Any]:
        """As OpenAI writes it, with an id of its own."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def call_format(template: str) -> CallFormat:
    """The way of a chat template."""
    return _TAGGED if _TAGGED.opening in template else _BARE


def calls_grammar(tools: Sequence[Tool], form: CallFormat) -> str:
    """GBNF of one call of one of these tools.

    Raises:
        SchemaFault: a tool's parameters cannot be followed.
    """
    grammar = Grammar()
    calls = []
    for tool in tools:
        function = tool.function
        inner = grammar.add(function.parameters or {"type": "object"}, strict=bool(function.strict))
        begin = f'{{"name": {json.dumps(function.name)}, {json.dumps(form.arguments)}: '
        calls.append(f'{literal(begin)} {inner} ws "}}"')
    either = f"({' | '.join(calls)})"
    if not form.opening:
        return grammar.text(either)
    return grammar.text(literal(form.opening + "\n") + f" {either} " + literal("\n" + form.closing))


def read_calls(text: str, form: CallFormat, names: Sequence[str]) -> tuple[str, list[Call]]:
    """The text of an answer without its calls, and these; all of it is text where it is none of the names."""
    if not form.opening:
        call = _read(text, names)
        return (text, []) if call is None else ("", [call])
    first, *others = text.split(form.opening)
    calls = [_read(other.split(form.closing)[0], names) for other in others]
    found = [call for call in calls if call is not None]
    # One that is broken would be lost without a word.
    return (first, found) if others and len(found) == len(others) else (text, [])


def _read(text: str, names: Sequence[str]) -> Call | None:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or data.get("name") not in names:
        return None
    arguments = data.get("arguments", data.get("parameters", {}))
    if not isinstance(arguments, dict):
        return None
    return Call(data["name"], json.dumps(arguments, ensure_ascii=False))
