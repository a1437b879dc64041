"""What clients send: bodies of requests, refused with OpenAI's words where they are wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gpurig.evaljobs.serving.faults import ApiFault

_MOST_STOPS, _MOST_CHOICES, MOST_ALTERNATIVES = 16, 128, 20
_DEEPEST = 100
# What pydantic calls the plain ones of several types that a parameter may have.
_ALTERNATIVES = frozenset({"str", "int", "float", "bool"})

Stop = Annotated[str, Field(min_length=1)]
Bias = Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StreamOptions(_Body):
    """What a stream tells beside the text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Common(_Body):
    """What both kinds of completion take. The last four are llama.cpp's, not OpenAI's."""

    model: str
    n: Annotated[int, Field(ge=1, le=_MOST_CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=_MOST_STOPS)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Bias], Field(max_length=1024)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0.0, le=10.0, allow_inf_nan=False)] | None = None
    grammar: str | None = None


class CompletionBody(Common):
    """/v1/completions."""

    # Lists of numbers are taken here to be refused with their own words.
    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None


class TextPart(_Body):
    """A part of a message's content."""

    type: Literal["text", "refusal"]
    text: str = ""
    refusal: str | None = None


class FunctionCall(_Body):
    """Of an earlier answer."""

    name: str
    arguments: str


class ToolCall(_Body):
    """Of an earlier answer."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None


class Message(_Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    # What clients send back of an answer that they got.
    annotations: Any = None
    audio: Any = None
    function_call: None = None
    reasoning_content: str | None = None


class Function(_Body):
    """What a model may call."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Body):
    """What a model may call."""

    type: Literal["function"]
    function: Function


class ChosenFunction(_Body):
    """The name in a tool choice."""

    name: str


class ToolChoice(_Body):
    """One tool that has to be called."""

    type: Literal["function"]
    function: ChosenFunction


class JsonSchema(_Body):
    """What an answer looks like."""

    name: str
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(_Body):
    """What an answer looks like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatBody(Common):
    """/v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # Of OpenAI's own service: they change nothing here.
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None


class EmbeddingBody(_Body):
    """/v1/embeddings."""

    model: str
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


B = TypeVar("B", bound=BaseModel)


def parse_json(raw: bytes) -> Any:
    """The data of a body.

    Raises:
        ApiFault: it is no JSON: no UTF-8, NaN, too deep.
    """
    try:
        data = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise ApiFault(400, f"We could not parse the JSON body of your request: {error}") from None
    _demand_shallow(data)
    return data


def _demand_shallow(data: Any) -> None:
    """What goes through the data later does so by recursion: templates, schemas."""
    level = [data]
    for _ in range(_DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> ApiFault:
    return ApiFault(400, f"The JSON of the request's body is nested deeper than {_DEEPEST} levels.")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def parse_body(kind: type[B], data: Any) -> B:
    """The data as a body.

    Raises:
        ApiFault: it is none; its message names the first parameter that is wrong.
    """
    if not isinstance(data, Mapping):
        raise ApiFault(400, "The request's body must be a JSON object.")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _told(error) from None


def _place(location: Sequence[int | str]) -> list[str]:
    """Without the names of alternatives (`str`, `list[str]`), which are pydantic's and not in the data."""
    named = location[:-1] if location[-1] in _ALTERNATIVES else location
    return [str(part) for part in named if isinstance(part, int) or part.isidentifier()]


def _told(error: ValidationError) -> ApiFault:
    first, *others = error.errors(include_url=False, include_context=False, include_input=False)
    if first["loc"][-1] in _ALTERNATIVES:
        # What may be a text or a list, and is a list with something wrong in it, is no text either.
        beside = [one for one in others if one["loc"][: len(first["loc"]) - 1] == first["loc"][:-1]]
        first = max([first, *beside], key=lambda one: len(_place(one["loc"])))
    param = ".".join(_place(first["loc"]))[:200]
    match first["type"]:
        case "extra_forbidden":
            return ApiFault(400, f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
        case "missing":
            message = f"Missing required parameter: '{param}'."
            return ApiFault(400, message, param=param, code="missing_required_parameter")
        case kind if kind.endswith("_type"):
            return ApiFault(400, f"Invalid type for '{param}': {first['msg']}.", param=param, code="invalid_type")
    return ApiFault(400, f"Invalid value for '{param}': {first['msg']}.", param=param, code="invalid_value")
