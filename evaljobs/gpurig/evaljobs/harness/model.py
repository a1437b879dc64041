"""lm-evaluation-harness' model "gpurig": log-likelihoods and texts of the inference engine.

What it computes is what the harness' own model `hf` computes on the same weights: the same tokens before and behind,
cut at the left where they are too long, windows of the same length. Importing this module imports the harness.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.common.gguf import Gguf
from gpurig.evaljobs.engine import DEFAULT_CONTEXT, EngineSettings, Request, cache_type, thread_count
from gpurig.evaljobs.harness.chat import Chat
from gpurig.evaljobs.harness.generation import generation
from gpurig.evaljobs.inference.likelihood import Likelihood, ScoreRequest
from gpurig.evaljobs.llama import LlamaProvider
from gpurig.evaljobs.models import open_model
from gpurig.evaljobs.options import ModelOptions
from gpurig.evaljobs.suites.prompts import token_text

_LOG = logging.getLogger(__name__)
T = TypeVar("T")

# A question as the harness has it (None for a window of a longer text), the context's tokens, the continuation's.
Tokenized = tuple[tuple[str, str] | None, Sequence[int], Sequence[int]]


class GpurigLM(TemplateLM):  # type: ignore[misc]  # the harness is not installed where types are checked
    """A GGUF model in this process, on the batched inference engine.

    All questions of a task are answered together; contexts that begin alike (few-shot examples, the choices of one
    question) are computed once.

    Attributes:
        model: its file, hash and header.
    """

    def __init__(
        self,
        model: str,
        *,
        models_dir: str | Sequence[str] = (),
        models_cache: str | None = None,
        no_download: bool = False,
        allow_license: str | Sequence[str] = (),
        catalogue: str | Sequence[str] = (),
        threads: int | None = None,
        parallel: int | None = None,
        exact: bool = False,
        prefix_cache: str | None = None,
        prefix_limit_gib: float | None = None,
        cache: str = "auto",
        max_length: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        chat_template: str | None = None,
        chat_template_args: Mapping[str, Any] | None = None,
        enable_thinking: bool | None = None,
        think_end_token: str | None = None,
        seed: int = 1234,
        batch_size: Any = None,  # noqa: ARG002 - the harness gives it to every model; `parallel` is ours
        max_batch_size: Any = None,  # noqa: ARG002 - likewise
        device: Any = None,  # noqa: ARG002 - likewise; the engine takes the GPUs that its llama.cpp was built for
        trust_remote_code: bool = False,  # noqa: ARG002 - there is none
    ) -> None:
        """Find and load a model.

        Args:
            model: a name, looked for as everywhere, or the path of a GGUF file.
            models_dir: folders that are looked into first.
            models_cache: where downloads go.
            no_download: fail where no folder has the model.
            allow_license: licenses with conditions that are accepted.
            catalogue: TOML files with more models.
            threads: CPU threads.
            parallel: how many are answered at the same time; as many as pay where None.
            exact: one after the other, so that a figure depends on its question alone, to the bit.
            prefix_cache: a folder where computed beginnings of prompts are kept for the next run.
            prefix_limit_gib: what it may hold; 4 where None.
            cache: the KV cache's type; "auto" is f32 for a model in F32, else f16.
            max_length: tokens of context and answer together; what the model was trained for where None.
            max_gen_toks: tokens of an answer whose task does not say.
            add_bos_token: whether texts begin with BOS; as the model says where None.
            prefix_token_id: what an empty context consists of; BOS, else EOS, where None.
            chat_template: a Jinja2 file instead of the model's own.
            chat_template_args: further variables of the template.
            enable_thinking: the template's variable of that name.
            think_end_token: a text; what an answer has up to it is no part of the answer.
            seed: of the sampling; every repeat of a question gets the next one.
            batch_size: not heeded.
            max_batch_size: not heeded.
            device: not heeded.
            trust_remote_code: not heeded.

        Raises:
            InputError: there is no such file, it cannot be loaded, or an argument is wrong.
            PrerequisiteError: this machine lacks the model, memory or a GPU.
        """
        super().__init__()
        options = ModelOptions(
            folders=tuple(map(Path, _several(models_dir))),
            cache=Path(models_cache) if models_cache else None,
            no_download=no_download,
            licenses=_several(allow_license),
            catalogues=tuple(map(Path, _several(catalogue))),
            exact=exact,
            prefix_cache=Path(prefix_cache) if prefix_cache else None,
        )
        if prefix_limit_gib is not None:
            options = replace(options, prefix_limit_gib=prefix_limit_gib)
        self.model = open_model(str(model), search=options.search(), suite_folder=Path())
        self._max_length = max_length or _trained(self.model.gguf)
        self._max_gen_toks, self._seed, self._begin = max_gen_toks, seed, add_bos_token
        self._custom_prefix, self._think_end = prefix_token_id, think_end_token
        arguments = dict(chat_template_args or {})
        if enable_thinking is not None:
            arguments["enable_thinking"] = enable_thinking
        self._chat = Chat(self.model.gguf, file=Path(chat_template) if chat_template else None, arguments=arguments)
        self._end_text = token_text(self.model.gguf, "eos")
        kept = cache_type(self.model, cache)
        settings = EngineSettings(
            self._max_length,
            thread_count(self.model, threads),
            parallel=parallel,
            exact=exact,
            cache=kept,
            prefixes=options.prefixes(),
        )
        resources = contextlib.ExitStack()
        self._engine = resources.enter_context(LlamaProvider().open(self.model, settings))
        self._close = weakref.finalize(self, resources.close)
        self._prefix_text = self._engine.vocabulary.piece(self.prefix_token_id, special=True).decode("utf-8", "replace")

    def close(self) -> None:
        """Free the model's memory; the harness does not, the process's end does. A second call does nothing."""
        self._close()

    @property
    def eot_token_id(self) -> int:
        """The token that ends texts."""
        return self._engine.vocabulary.eos

    @property
    def prefix_token_id(self) -> int:
        """What comes first where there is no context."""
        if self._custom_prefix is not None:
            return self._custom_prefix
        bos = self._engine.vocabulary.bos
        return bos if bos >= 0 else self.eot_token_id

    @property
    def max_length(self) -> int:
        """Tokens of context and answer together."""
        return self._max_length

    @property
    def max_gen_toks(self) -> int:
        """Tokens of an answer whose task does not say."""
        return self._max_gen_toks

    @property
    def tokenizer_name(self) -> str:
        """Tells prompts of different models apart in the harness' cache of requests."""
        return f"gpurig--{self.model.ref.sha256}"

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes into its results of the model."""
        ref = self.model.ref
        return {
            "model_name": ref.name,
            "model_file": ref.file,
            "model_sha256": ref.sha256,
            "model_size_bytes": ref.size_bytes,
            "model_source": ref.source,
            "packages": dict(LlamaProvider().packages),
        }

    def chat_template(self, chat_template: bool | str = False) -> str | None:  # noqa: FBT001, FBT002 - the harness'
        """The chat template's text; None where none is used.

        Raises:
            InputError: the model has no template of that name.
        """
        if not chat_template:
            return None
        if isinstance(chat_template, str):
            self._chat.choose(chat_template)
        return self._chat.text

    def apply_chat_template(
        self,
        chat_history: list[dict[str, str]],
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        """A conversation as the model gets it; without a system message where the template has no place for one.

        Raises:
            InputError: there is no template, or it refuses the conversation.
        """
        go_on = not add_generation_prompt
        try:
            return self._chat.prompt(chat_history, go_on=go_on)
        except InputError:
            shorter = [message for message in chat_history if message["role"] != "system"]
            if not self._chat.text or len(shorter) == len(chat_history):
                raise
            _LOG.warning("the chat template refuses the conversation: the system message is left out")
            return self._chat.prompt(shorter, go_on=go_on)

    def tok_encode(self, string: str, *, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The tokens of a text, in which special ones are recognized; BOS once."""
        begin = add_special_tokens
        if begin is None:
            begin = False if self._prefix_text and string.startswith(self._prefix_text) else self._begin
        return self._engine.vocabulary.tokens(string, begin=begin)

    def loglikelihood_rolling(self, requests: Sequence[Any], *, disable_tqdm: bool = False) -> list[float]:
        """The log-likelihoods of whole texts, cut into windows as long as the model's context.

        Raises:
            InputError: a text cannot be scored. PrerequisiteError: the engine failed.
        """
        texts = [request.args[0] for request in requests]
        windows: list[Tokenized] = []
        owners: list[int] = []
        for number, text in enumerate(texts):
            for tokens in get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1
            ):
                context, continuation = make_disjoint_window(tokens)
                windows.append((None, context, continuation))
                owners.append(number)
        totals, left = [0.0] * len(texts), Counter(owners)
        scored = self._scored(windows)
        for window, found in _shown(scored, len(windows), "log-likelihoods", disabled=disable_tqdm):
            number = owners[window]
            totals[number] += found.total
            left[number] -= 1
            if not left[number]:
                self.cache_hook.add_partial("loglikelihood_rolling", (texts[number],), totals[number])
        return totals

    def _loglikelihood_tokens(
        self,
        requests: Sequence[Tokenized],
        *,
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for number, found in _shown(self._scored(requests), len(requests), "log-likelihoods", disabled=disable_tqdm):
            answers[number] = (found.total, found.greedy)
            question = requests[number][0]
            if question is not None:
                self.cache_hook.add_partial("loglikelihood", question, answers[number])
        return answers

    def _scored(self, requests: Sequence[Tokenized]) -> Iterator[tuple[int, Likelihood]]:
        """Every request's number and likelihood, as they come; the engine computes equal contexts once."""
        asked, cut = [], 0
        for number, (question, context, continuation) in enumerate(requests):
            what = "a text" if question is None else f'the continuation "{question[1][:60]}"'
            if not continuation:
                raise InputError(f"{what} adds no token to its context", hint="correct the task's choices")
            if len(continuation) > self.max_length:
                raise InputError(
                    f"{what} has {len(continuation)} tokens, and the model's context {self.max_length}",
                    hint="a larger max_length (--model_args), or shorter continuations in the task",
                )
            # The last token is not fed, so one more than the context has room for.
            whole = (*context, *continuation)[-(self.max_length + 1) :]
            cut += len(whole) < len(context) + len(continuation)
            kept = len(whole) - len(continuation)
            asked.append(ScoreRequest(str(number), whole[:kept], (whole[kept:],)))
        if cut:
            _LOG.warning("%d contexts are longer than %d tokens: their beginnings are cut off", cut, self.max_length)
        for scored in self._engine.score(asked):
            if scored.fault:
                raise _failure(scored.error, scored.fault)
            yield int(scored.id), scored.continuations[0]

    def generate_until(self, requests: Sequence[Any], *, disable_tqdm: bool = False) -> list[str]:
        """Texts that go on with contexts.

        Raises:
            InputError: an argument of the task's is not known, or impossible. PrerequisiteError: the engine failed.
        """
        asked: list[Request] = []
        repeats: Counter[str] = Counter()
        cut = 0
        for number, (context, arguments) in enumerate(request.args for request in requests):
            normal = normalize_gen_kwargs(arguments, self.max_gen_toks)
            repeat = repr((context, arguments))
            how = generation(normal, end=self._end_text, seed=self._seed + repeats[repeat])
            repeats[repeat] += 1
            room = self.max_length - how.sampling.max_tokens
            if room < 1:
                raise InputError(
                    f"an answer of {how.sampling.max_tokens} tokens leaves no room in a context of {self.max_length}",
                    hint="a smaller max_gen_toks (--gen_kwargs), or a larger max_length (--model_args)",
                )
            tokens = self.tok_encode(context) or [self.prefix_token_id]
            cut += len(tokens) > room
            asked.append(
                Request(str(number), "", how.sampling, stop=how.stop, shaping=how.shaping, tokens=tuple(tokens[-room:]))
            )
        if cut:
            _LOG.warning("%d contexts leave no room for an answer: their beginnings are cut off", cut)
        texts = [""] * len(asked)
        for completion in _shown(self._engine.run(asked), len(asked), "texts", disabled=disable_tqdm):
            if completion.finish == "error":
                raise _failure(completion.error, completion.fault)
            number = int(completion.id)
            texts[number] = postprocess_generated_text(completion.text, list(asked[number].stop), self._think_end)
            self.cache_hook.add_partial("generate_until", requests[number].args, texts[number])
        return texts


def _several(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(map(str, value))


def _trained(gguf: Gguf) -> int:
    trained = gguf.of_architecture("context_length")
    return trained if isinstance(trained, int) and trained > 0 else DEFAULT_CONTEXT


def _failure(error: str, fault: str) -> ApplianceError:
    """The harness has no place for a question without an answer: the run ends."""
    if fault == "model":
        return PrerequisiteError(error, hint="try the model with `gpurig-job selfcheck`, or another quantization")
    return InputError(error, hint="correct the task, or leave the question out (--samples)")


def _shown(found: Iterator[T], total: int, what: str, *, disabled: bool) -> Iterator[T]:
    """The same, with the harness' kind of progress bar."""
    yield from tqdm(found, total=total, desc=f"Computing {what}", disable=disabled)
