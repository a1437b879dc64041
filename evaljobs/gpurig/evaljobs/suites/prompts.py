"""Prompts: from a sample to the text a model gets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from gpurig.common.errors import InputError
from gpurig.common.gguf import Gguf
from gpurig.evaljobs.suites.library import prompt_variables
from gpurig.evaljobs.suites.suite import GeneratorSpec, GraderSpec, Sample
from gpurig.evaljobs.suites.template import render

# llama.cpp's token types (llama.h, llama_token_attr) that the tokenizer finds inside a text.
_SPECIAL_TYPES = (3, 4)
# Invisible, and in no special token: it keeps a text from being read as one.
_WORD_JOINER = "\u2060"


def generator_prompt(spec: GeneratorSpec, sample: Sample, gguf: Gguf) -> str:
    """What the generator gets for a sample.

    Raises:
        InputError: the template asks for something that the sample does not have.
    """
    values = {
        **_declared(spec.prompt, sample),
        "id": sample.id,
        "input": sample.input,
        "tags": list(sample.tags),
        "vars": dict(sample.vars),
    }
    what = f'sample "{sample.id}", the generator\'s prompt'
    text = sample.input if spec.prompt is None else render(spec.prompt, values, what=what)
    return _dialogue(text, system=spec.system, chat=spec.chat, gguf=gguf)


def grader_prompt(spec: GraderSpec, sample: Sample, output: str, gguf: Gguf) -> str:
    """What the grader gets for an answer; text of the answer that looks like a special token is made plain.

    Raises:
        InputError: the template asks for something that the sample does not have.
    """
    values = {
        **_declared(spec.prompt, sample),
        "id": sample.id,
        "input": sample.input,
        "output": plain(output, gguf),
        "reference": sample.reference,
        "tags": list(sample.tags),
        "vars": dict(sample.vars),
    }
    text = render(spec.prompt, values, what=f'sample "{sample.id}", the grader\'s prompt')
    return _dialogue(text, system=spec.system, chat=spec.chat, gguf=gguf)


def _declared(prompt: str | None, sample: Sample) -> dict[str, Any]:
    """The variables that a prompt of the library declares: it may name them without `vars.`."""
    return {name: sample.vars[name] for name in prompt_variables(prompt) if name in sample.vars}


def prompt_sha256(prompt: str) -> str:
    """The prompt's hash, as records carry it."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()


def plain(text: str, gguf: Gguf) -> str:
    """`text` with a word joiner inside everything that the tokenizer would read as a special token.

    Without it a generated `<|im_end|>` could end the grader's question and speak in another role's name.
    """
    return without_specials(text, special_texts(gguf))


def without_specials(text: str, specials: Iterable[str]) -> str:
    """The same where the special tokens' texts are known, the longest first."""
    for special in specials:
        if special in text:
            text = text.replace(special, special[0] + _WORD_JOINER + special[1:])
    return text


def special_texts(gguf: Gguf) -> tuple[str, ...]:
    """The texts of the model's control and user-defined tokens, the longest first."""
    tokens = gguf.metadata.get("tokenizer.ggml.tokens", ())
    types = gguf.metadata.get("tokenizer.ggml.token_type", ())
    found = {token for token, kind in zip(tokens, types, strict=False) if kind in _SPECIAL_TYPES and len(token) > 1}
    return tuple(sorted(found, key=lambda token: (-len(token), token)))


def _dialogue(text: str, *, system: str, chat: bool | None, gguf: Gguf) -> str:
    template = gguf.metadata.get("tokenizer.chat_template")
    if chat is False or (chat is None and not template):
        return text
    if not isinstance(template, str) or not template:
        raise InputError(
            f"{gguf.path} has no chat template, and the suite says chat: true",
            hint="remove `chat: true`, or take a model that has one",
        )
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    values: Mapping[str, Any] = {
        "messages": messages,
        "add_generation_prompt": True,
        "bos_token": token_text(gguf, "bos"),
        "eos_token": token_text(gguf, "eos"),
    }
    return render(template, values, what=f"the chat template of {gguf.path}", strict=False)


def token_text(gguf: Gguf, which: str) -> str:
    """The text of the model's token "bos" or "eos"; empty where it has none."""
    tokens = gguf.metadata.get("tokenizer.ggml.tokens", ())
    number = gguf.metadata.get(f"tokenizer.ggml.{which}_token_id")
    return str(tokens[number]) if isinstance(number, int) and 0 <= number < len(tokens) else ""
