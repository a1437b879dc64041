"""From what a client sent to what the engine is asked."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gpurig.evaljobs.engine import Request, Shaping
from gpurig.evaljobs.records import AdapterRef, Sampling
from gpurig.evaljobs.serving.bodies import ChatBody, Common, CompletionBody, ResponseFormat, Tool, ToolChoice
from gpurig.evaljobs.serving.chat import ChatTemplate
from gpurig.evaljobs.serving.faults import ApiFault
from gpurig.evaljobs.serving.schema_grammar import SchemaFault, schema_grammar
from gpurig.evaljobs.serving.tool_calls import calls_grammar


@dataclass(frozen=True)
class Limits:
    """What a client may ask for.

    Attributes:
        context: tokens of prompt and answer together.
        vocabulary: how many tokens the model has.
        body_bytes: of a request's body.
        waiting: requests that are not answered yet.
        answer_tokens: of one answer; None: what the context holds.
        read_seconds: that a body may take to arrive.
    """

    context: int
    vocabulary: int
    body_bytes: int = 4 * 1024 * 1024
    waiting: int = 256
    answer_tokens: int | None = None
    read_seconds: float = 30.0


@dataclass(frozen=True)
class Asked:
    """What is asked.

    Attributes:
        requests: every prompt as often as it has choices, in the order of the answer's choices.
        stop: texts that end an answer.
        tools: names that may be called.
        echo: what is put before each answer.
    """

    requests: tuple[Request, ...]
    stop: tuple[str, ...]
    tools: tuple[str, ...] = ()
    echo: tuple[str, ...] = ()

    def answered_with(self, adapters: tuple[AdapterRef, ...]) -> Asked:
        """The same of the model with adapters."""
        return replace(self, requests=tuple(replace(request, adapters=adapters) for request in self.requests))


def ask_chat(body: ChatBody, template: ChatTemplate, limits: Limits) -> Asked:
    """What a chat asks.

    Raises:
        ApiFault: it cannot be asked.
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiFault(400, "top_logprobs is allowed with logprobs only.", param="top_logprobs", code="invalid_value")
    tools = [] if body.tool_choice == "none" else list(body.tools or ())
    grammar = _grammar(body, tools, template)
    prompt = template.prompt(body, tools)
    most = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    alternatives = (body.top_logprobs or 0) if body.logprobs else None
    made = _Maker(body, limits, most, alternatives, grammar)
    return Asked(made.requests([prompt]), made.stop, tuple(tool.function.name for tool in tools))


def ask_completion(body: CompletionBody, limits: Limits) -> Asked:
    """What a completion asks. Its prompt is the text as the model gets it: special tokens in it are special.

    Raises:
        ApiFault: it cannot be asked.
    """
    if body.suffix:
        raise ApiFault(400, "suffix is not supported.", param="suffix", code="unsupported_value")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise ApiFault(400, "best_of is supported as the same number as n only.", param="best_of")
    if body.echo and body.logprobs is not None:
        raise ApiFault(400, "echo is not supported with logprobs.", param="echo", code="unsupported_value")
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    texts = [one for one in prompts if isinstance(one, str)]
    if len(texts) < len(prompts):
        message = "prompt must be text or a list of texts: numbers of tokens are not supported."
        raise ApiFault(400, message, param="prompt", code="unsupported_value")
    if not texts:
        raise ApiFault(400, "prompt must hold at least one text.", param="prompt", code="invalid_value")
    made = _Maker(body, limits, body.max_tokens if body.max_tokens is not None else 16, body.logprobs, body.grammar)
    requests = made.requests(texts)
    echo = tuple(request.prompt for request in requests) if body.echo else ()
    return Asked(requests, made.stop, echo=echo)


class _Maker:
    """Makes requests that differ in prompt and seed alone."""

    def __init__(
        self, body: Common, limits: Limits, most: int | None, alternatives: int | None, grammar: str | None
    ) -> None:
        largest = limits.context if limits.answer_tokens is None else limits.answer_tokens
        if limits.answer_tokens is not None and most is not None and most > largest:
            message = f"max_tokens is too large: {most}. This server writes at most {largest} tokens an answer."
            raise ApiFault(400, message, param="max_tokens", code="invalid_value")
        _demand_printable(grammar or "")
        self._choices, self._waiting = body.n or 1, limits.waiting
        # Without a seed every request has another one, as with OpenAI; with one, each choice does.
        self._seed = secrets.randbits(32) if body.seed is None else body.seed
        self.stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
        self._grammar = grammar or ""
        self._sampling = Sampling(
            temperature=1.0 if body.temperature is None else body.temperature,
            top_k=body.top_k or 0,
            # 0 is OpenAI's word for the likeliest token alone.
            top_p=1.0 if body.top_p is None else max(body.top_p, 1e-6),
            min_p=body.min_p or 0.0,
            repeat_penalty=1.0 if body.repeat_penalty is None else body.repeat_penalty,
            max_tokens=largest if most is None else most,
        )
        self._shaping = Shaping(
            bias=_bias(body.logit_bias or {}, limits.vocabulary),
            frequency_penalty=body.frequency_penalty or 0.0,
            presence_penalty=body.presence_penalty or 0.0,
            alternatives=alternatives,
        )

    def requests(self, prompts: Sequence[str]) -> tuple[Request, ...]:
        """Every prompt as often as choices are wanted.

        Raises:
            ApiFault: more than may wait.
        """
        if len(prompts) * self._choices > self._waiting:
            message = f"{len(prompts) * self._choices} answers are asked for; this server lets {self._waiting} wait."
            raise ApiFault(400, message, param="n", code="invalid_value")
        call = secrets.token_hex(12)
        first = Request(call, "", self._sampling, stop=self.stop, grammar=self._grammar, shaping=self._shaping)
        return tuple(
            replace(
                first,
                id=f"{call}-{number}-{choice}",
                prompt=prompt,
                sampling=self._sampling.model_copy(update={"seed": (self._seed + choice) % 2**32}),
            )
            for number, prompt in enumerate(prompts)
            for choice in range(self._choices)
        )


def _bias(given: Mapping[str, float], vocabulary: int) -> dict[int, float]:
    found = {}
    for token, bias in given.items():
        if not token.isascii() or not token.isdigit() or len(token) > 9 or int(token) >= vocabulary:
            message = (
                f"Invalid key in 'logit_bias': {token[:20]}. It must be the number of a token, below {vocabulary}."
            )
            raise ApiFault(400, message, param="logit_bias", code="invalid_value")
        found[int(token)] = bias
    return found


def _demand_printable(grammar: str) -> None:
    """llama.cpp prints a grammar that it does not understand, and a terminal may read it."""
    if not all(one.isprintable() or one in "\n\r\t" for one in grammar):
        raise ApiFault(400, "grammar must be printable text.", param="grammar", code="invalid_value")


def _grammar(body: ChatBody, tools: Sequence[Tool], template: ChatTemplate) -> str | None:
    form = body.response_format
    forced = _forced(body, tools)
    wanted = [
        name
        for name, there in (
            ("tool_choice", forced),
            ("response_format", form is not None and form.type != "text"),
            ("grammar", body.grammar),
        )
        if there
    ]
    if len(wanted) > 1:
        raise ApiFault(400, f"{wanted[0]} and {wanted[1]} exclude each other.", param=wanted[1], code="invalid_value")
    try:
        if forced:
            return calls_grammar(forced, template.calls)
        return body.grammar if form is None else _form_grammar(form) or body.grammar
    except SchemaFault as fault:
        param = "tools" if forced else "response_format"
        raise ApiFault(400, f"Invalid schema for {param}: {fault}.", param=param, code="invalid_value") from None


def _form_grammar(form: ResponseFormat) -> str | None:
    if form.type == "json_schema":
        if form.json_schema is None or form.json_schema.schema_ is None:
            param = "response_format.json_schema"
            raise ApiFault(400, f"Missing required parameter: '{param}'.", param=param)
        return schema_grammar(form.json_schema.schema_, strict=bool(form.json_schema.strict))
    return schema_grammar({"type": "object"}, strict=True) if form.type == "json_object" else None


def _forced(body: ChatBody, tools: Sequence[Tool]) -> list[Tool]:
    """The tools of which one has to be called."""
    if body.tool_choice in (None, "auto", "none"):
        return []
    if not tools:
        raise ApiFault(400, "tool_choice is allowed with tools only.", param="tool_choice", code="invalid_value")
    if not isinstance(body.tool_choice, ToolChoice):
        return list(tools)
    found = [tool for tool in tools if tool.function.name == body.tool_choice.function.name]
    if not found:
        raise ApiFault(400, "tool_choice names no tool of tools.", param="tool_choice", code="invalid_value")
    return found
