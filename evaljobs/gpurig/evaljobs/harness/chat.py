"""The model's chat template, as lm-evaluation-harness uses it: a conversation in, the prompt's text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpurig.common.errors import InputError
from gpurig.common.files import read_text
from gpurig.common.gguf import Gguf
from gpurig.evaljobs.suites.prompts import token_text
from gpurig.evaljobs.suites.template import TemplateFault, check_syntax, render

_KEY = "tokenizer.chat_template"
# Stands behind the last message's text while a conversation is rendered that its last message shall go on.
_END = "\u2063gpurig-end-of-prefill\u2063"


class Chat:
    """A model's chat template.

    Attributes:
        text: the template.
    """

    def __init__(self, gguf: Gguf, *, file: Path | None, arguments: Mapping[str, Any]) -> None:
        """Take the model's own, or a file's.

        Args:
            gguf: the model's header.
            file: a Jinja2 template instead of the model's own.
            arguments: further variables of the template.

        Raises:
            InputError: the file cannot be read, or is no template.
        """
        self._gguf, self._arguments = gguf, dict(arguments)
        self._what = f"the chat template of {file or gguf.path}"
        if file is None:
            own = gguf.metadata.get(_KEY)
            self.text = own if isinstance(own, str) else ""
            return
        self.text = read_text(file)
        try:
            check_syntax(self.text)
        except TemplateFault as fault:
            raise InputError(f"{file}: {fault}", hint="correct the template") from None

    def choose(self, name: str) -> None:
        """Take the model's template of that name instead.

        Raises:
            InputError: it has none.
        """
        named = self._gguf.metadata.get(f"{_KEY}.{name}")
        if not isinstance(named, str):
            names = sorted(key[len(_KEY) + 1 :] for key in self._gguf.metadata if key.startswith(f"{_KEY}."))
            raise InputError(
                f'the model has no chat template "{name}"',
                hint=f"its templates: {', '.join(names) or 'none with a name'}; without a name its own is taken",
            )
        self.text = named

    def prompt(self, history: Sequence[Mapping[str, str]], *, go_on: bool) -> str:
        """The text of a conversation.

        Args:
            history: messages with `role` and `content`.
            go_on: the model shall go on with the last message, instead of beginning an answer.

        Raises:
            InputError: there is no template, or it refuses the conversation.
        """
        if not self.text:
            raise InputError(
                f"{self._gguf.path} has no chat template",
                hint="leave out --apply_chat_template, or give one: --model_args chat_template=FILE",
            )
        messages = [dict(message) for message in history]
        if go_on:
            messages[-1]["content"] = messages[-1]["content"] + _END
        values = {
            **self._arguments,
            "messages": messages,
            "add_generation_prompt": not go_on,
            **{f"{which}_token": token_text(self._gguf, which) for which in ("bos", "eos")},
        }
        text = render(self.text, values, what=self._what, strict=False)
        if not go_on:
            return text
        head, found, _ = text.rpartition(_END)
        if not found:
            raise InputError(f"{self._what} changes what an answer begins with", hint="leave out the task's gen_prefix")
        return head
