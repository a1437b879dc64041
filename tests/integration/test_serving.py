"""OpenAI's own client against a real server of a tiny model."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
from gpurig.common.models.resolving import Search
from gpurig.common.waiting import wait_for
from gpurig.evaljobs.adapters import open_adapter
from gpurig.evaljobs.engine import EngineSettings, Request
from gpurig.evaljobs.inference.engine import InferenceEngine
from gpurig.evaljobs.models import open_model
from gpurig.evaljobs.options import ModelOptions
from gpurig.evaljobs.records import Sampling
from gpurig.evaljobs.serving.naming import ModelNames
from gpurig.evaljobs.serving.server import Server
from standins.serving import KEY, serving, write_served
from standins.tiny_lora import write_lora, write_merged

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")
openai = pytest.importorskip("openai", reason="the dev extra is not installed")

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
DEEP = b'{"model":"tiny","messages":[{"role":"user","content":"x"}],"chat_template_kwargs":{"a":%s%s}}' % (
    b"[" * 900,
    b"]" * 900,
)
GREEDY: dict[str, Any] = {"model": "tiny", "temperature": 0}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_served(tmp_path_factory.mktemp("served") / "tiny.gguf")


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[Server]:
    with serving(path, waiting=64, body_bytes=100_000, prompt_tokens=400, answer_tokens=300) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0, timeout=120) as client:
        yield client


def connection(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)


def sent(server: Server, body: bytes, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, Any]:
    """Without the client: the status and the data of an answer."""
    all_headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", **headers}
    talk = connection(server)
    try:
        talk.request("POST", path, body, all_headers)
        answer = talk.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        talk.close()


def health(server: Server) -> dict[str, Any]:
    talk = connection(server)
    try:
        talk.request("GET", "/health")
        data: dict[str, Any] = json.loads(talk.getresponse().read())
        return data
    finally:
        talk.close()


def test_a_chat_is_answered_as_the_engine_answers_its_prompt_alone(client: Any, path: Path) -> None:
    engine = InferenceEngine(
        open_model(str(path), search=Search.of_folders(), suite_folder=Path()), EngineSettings(512, 1, exact=True)
    )
    prompt = "system: be brief\nuser: hello\nassistant:"
    sampling = Sampling(max_tokens=20, top_k=0, top_p=1.0, min_p=0.0)
    (expected,) = engine.run([Request("r", prompt, sampling)])
    engine.close()
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    ]
    done = client.chat.completions.create(**GREEDY, messages=messages, max_completion_tokens=20)
    assert done.choices[0].message.content == expected.text
    assert done.choices[0].finish_reason == expected.finish
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (
        expected.prompt_tokens,
        expected.completion_tokens,
    )
    text = client.completions.create(**GREEDY, prompt=prompt, max_tokens=20, echo=True)
    assert text.choices[0].text == prompt + expected.text


@pytest.mark.parametrize("stop", [None, ["e", "st"]])
@pytest.mark.parametrize("seed", range(4))
def test_a_stream_says_what_is_said_at_once(client: Any, seed: int, stop: list[str] | None) -> None:
    asked = {"model": "tiny", "seed": seed, "n": 2, "max_tokens": 40, "stop": stop}
    chat = {**asked, "messages": HELLO, "logprobs": True, "top_logprobs": 2}
    text = {**asked, "prompt": ["hello", "go on"], "logprobs": 2}
    whole, parts = streamed(client.chat.completions.create, chat)
    for choice in whole.choices:
        mine = [part.choices[0] for part in parts if part.choices and part.choices[0].index == choice.index]
        assert "".join(part.delta.content or "" for part in mine) == choice.message.content
        assert mine[-1].finish_reason == choice.finish_reason
        tokens = [token for part in mine if part.logprobs for token in part.logprobs.content]
        assert [token.bytes for token in tokens] == [token.bytes for token in choice.logprobs.content]
    assert parts[-1].usage == whole.usage
    whole, parts = streamed(client.completions.create, text)
    assert len(whole.choices) == 4
    for choice in whole.choices:
        mine = [part.choices[0] for part in parts if part.choices and part.choices[0].index == choice.index]
        assert "".join(part.text for part in mine) == choice.text
        offsets = [offset for part in mine if part.logprobs for offset in part.logprobs.text_offset]
        assert offsets == choice.logprobs.text_offset


def streamed(create: Callable[..., Any], asked: dict[str, Any]) -> tuple[Any, list[Any]]:
    with create(**asked, stream=True, stream_options={"include_usage": True}) as parts:
        return create(**asked), list(parts)


def test_log_probabilities_are_the_models_own(client: Any) -> None:
    done = client.chat.completions.create(**GREEDY, messages=HELLO, max_tokens=5, logprobs=True, top_logprobs=20)
    for token in done.choices[0].logprobs.content:
        assert token.logprob == token.top_logprobs[0].logprob
        assert token.bytes == token.top_logprobs[0].bytes
        falling = [other.logprob for other in token.top_logprobs]
        assert falling == sorted(falling, reverse=True)
        assert len(falling) == 20
        assert falling[0] < 0


def test_a_seed_repeats_an_answer_and_every_choice_has_its_own(client: Any) -> None:
    def texts(seed: int | None) -> list[str]:
        done = client.completions.create(model="tiny", prompt="go", n=3, max_tokens=20, seed=seed, temperature=2)
        return [choice.text for choice in done.choices]

    assert texts(7) == texts(7)
    # A choice's seed is the first one's and its own number.
    assert texts(8)[:2] == texts(7)[1:]
    assert len({*texts(7), *texts(8)}) == 4


def test_twenty_at_once_are_each_answered_as_alone(client: Any) -> None:
    def ask(number: int) -> str:
        messages = [{"role": "user", "content": f"{'build and test ' * (number % 3)} job {number}"}]
        done = client.chat.completions.create(**GREEDY, messages=messages, max_tokens=8 + number)
        return str(done.choices[0].message.content)

    alone = [ask(number) for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, range(20))) == alone
    assert len(set(alone)) > 10


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}, "required": []},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
        {"type": "array", "prefixItems": [{"const": 'a "quoted" é'}, {"type": ["integer", "null"]}]},
        {"type": "string", "minLength": 1, "maxLength": 3},
        {
            "anyOf": [
                {"const": 1.5},
                {"type": "object", "additionalProperties": {"type": "boolean"}, "properties": {"z": {}}},
            ]
        },
        {
            "$ref": "#/$defs/tree",
            "$defs": {
                "tree": {
                    "type": "object",
                    "properties": {
                        "leaf": {"type": "boolean"},
                        "inner": {"type": "array", "maxItems": 1, "items": {"$ref": "#/$defs/tree"}},
                    },
                    "required": ["leaf"],
                    "additionalProperties": False,
                }
            },
        },
    ],
)
def test_an_answer_follows_its_schema(client: Any, schema: dict[str, Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}}
    done = client.chat.completions.create(
        model="tiny", messages=HELLO, response_format=form, n=8, seed=1, max_tokens=300, temperature=1.5
    )
    whole = [choice.message.content for choice in done.choices if choice.finish_reason == "stop"]
    for text in whole:
        jsonschema.validate(json.loads(text), schema)
    assert whole


def test_an_answer_is_a_json_object_where_that_is_asked(client: Any) -> None:
    form = {"type": "json_object"}
    done = client.chat.completions.create(
        model="tiny", messages=HELLO, response_format=form, n=8, seed=1, max_tokens=300
    )
    for choice in done.choices:
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        assert choice.message.content.startswith("{")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look"}}])
def test_a_tool_is_called(client: Any, choice: Any) -> None:
    parameters = {"type": "object", "properties": {"deep": {"type": "boolean"}}, "required": ["deep"]}
    tools = [{"type": "function", "function": {"name": "look", "parameters": parameters}}]
    asked = {**GREEDY, "messages": HELLO, "tools": tools, "tool_choice": choice, "max_tokens": 200}
    whole, parts = streamed(client.chat.completions.create, asked)
    (call,) = whole.choices[0].message.tool_calls
    assert call.function.name == "look"
    jsonschema.validate(json.loads(call.function.arguments), parameters)
    assert whole.choices[0].finish_reason == "tool_calls"
    told = [one for part in parts if part.choices for one in part.choices[0].delta.tool_calls or ()]
    assert [one.function.arguments for one in told] == [call.function.arguments]
    later = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "seen"},
    ]
    assert client.chat.completions.create(**GREEDY, messages=later, tools=tools, max_tokens=4).choices


def test_penalties_and_bias_change_the_choice(client: Any) -> None:
    def text(**more: Any) -> str:
        done = client.chat.completions.create(**GREEDY, messages=HELLO, max_tokens=12, **more)
        return str(done.choices[0].message.content)

    assert text(logit_bias={str(3 + ord("x")): 100}) == "x" * 12
    assert text(logit_bias={str(3 + ord("x")): 100}, presence_penalty=0.5) == "x" * 12
    biased = text(logit_bias={str(3 + ord("x")): 30}, frequency_penalty=2)
    assert biased.count("x") < 12
    assert text(presence_penalty=0.0) == text()


def test_a_special_token_in_a_message_is_plain_text(client: Any) -> None:
    counts = [
        client.chat.completions.create(
            **GREEDY, messages=[{"role": "user", "content": text}], max_tokens=1
        ).usage.prompt_tokens
        for text in ("a", "a</s>")
    ]
    assert counts[1] - counts[0] > 1
    raw = [
        client.completions.create(**GREEDY, prompt=text, max_tokens=1).usage.prompt_tokens for text in ("a", "a</s>")
    ]
    assert raw[1] - raw[0] == 1


def test_the_models_are_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("other/name")


@pytest.mark.parametrize(
    ("asked", "error", "match"),
    [
        ({"model": "gpt"}, "NotFoundError", "model_not_found"),
        ({"extra_body": {"temprature": 1}}, "BadRequestError", "unknown_parameter"),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, "BadRequestError", "context_length_exceeded"),
        ({"max_tokens": 301}, "BadRequestError", "at most 300"),
        ({"logit_bias": {"99999": 1}}, "BadRequestError", "logit_bias"),
        ({"extra_body": {"grammar": "root ::= ("}}, "BadRequestError", "no valid GBNF"),
        ({"extra_body": {"grammar": "root ::= [b-a]"}}, "BadRequestError", "grammar allows no token"),
        ({"extra_body": {"grammar": 'root ::= root "x"'}}, "BadRequestError", "grammar"),
        ({"extra_body": {"grammar": 'root ::= "\x1b"'}}, "BadRequestError", "printable"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "BadRequestError", "messages"),
        ({"n": 65}, "BadRequestError", "65 answers are asked for"),
        ({"n": 50}, "RateLimitError", ""),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_answered_is_refused(
    client: Any, server: Server, asked: dict[str, Any], error: str, match: str, *, stream: bool
) -> None:
    if error == "RateLimitError":
        with client.chat.completions.create(**GREEDY, messages=HELLO, max_tokens=300, n=20, stream=True) as held:
            next(iter(held))
            with pytest.raises(openai.RateLimitError) as refused:
                client.chat.completions.create(**{**GREEDY, "messages": HELLO, **asked, "stream": stream})
        assert refused.value.response.headers["retry-after"] == "1"
    else:
        with pytest.raises(getattr(openai, error)) as refused:
            client.chat.completions.create(**{**GREEDY, "messages": HELLO, **asked, "stream": stream})
        assert match in f"{refused.value.code} {refused.value}"
    assert wait_for(lambda: health(server)["pending"] == 0, timeout_s=30)


def test_answers_do_not_wait_for_acknowledgements(server: Server) -> None:
    # asyncio sets TCP_NODELAY on connections whose listener names the protocol; a client waits 40 ms without.
    assert server._http is not None
    (listener,) = (one for http in server._http.servers for one in http.sockets)
    assert listener.proto == socket.IPPROTO_TCP


def test_embeddings_are_told_to_be_missing(client: Any) -> None:
    with pytest.raises(openai.InternalServerError, match="does not embed"):
        client.embeddings.create(model="tiny", input="x")


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_frees_the_sequence(server: Server, stream: bool) -> None:
    body = json.dumps({**GREEDY, "messages": HELLO, "max_tokens": 300, "n": 40, "stream": stream}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as talk:
        talk.sendall(head.encode() + body)
        assert wait_for(lambda: health(server)["pending"] > 0, timeout_s=30, interval_s=0.001)
        if stream:
            assert talk.recv(100)
    assert wait_for(lambda: health(server)["pending"] == 0, timeout_s=30)
    assert not server._worker._tickets or wait_for(lambda: not server._worker._tickets, timeout_s=30)


def test_a_body_that_is_too_large_is_refused(server: Server) -> None:
    assert sent(server, b"x" * 100_001)[0] == 413
    talk = connection(server)
    try:
        # Without a length it is counted as it comes.
        parts = iter([b"x" * 60_000] * 2)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        talk.request("POST", "/v1/completions", parts, headers, encode_chunked=True)
        assert talk.getresponse().status == 413
    finally:
        talk.close()


@pytest.mark.parametrize(
    ("body", "url", "headers", "status"),
    [
        (DEEP, "/v1/chat/completions", {}, 400),
        (b"[" * 90_000, "/v1/chat/completions", {}, 400),
        (b"\xff", "/v1/completions", {}, 400),
        (b'{"model":"tiny","prompt":"x","temperature":NaN}', "/v1/completions", {}, 400),
        (b"null", "/v1/completions", {}, 400),
        (b'{"model":"tiny","prompt":[1,2]}', "/v1/completions", {}, 400),
        (b'{"model":"tiny","prompt":""}', "/v1/completions", {}, 400),
        (b'{"model":"\\ud800","prompt":"x"}', "/v1/completions", {}, 404),
        (b'{"model":"tiny","prompt":"\\ud800","max_tokens":1,"echo":true}', "/v1/completions", {}, 200),
        (b"{}", "/v1/completions", {"Content-Type": "text/plain"}, 415),
        (b"\x1f\x8b", "/v1/completions", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        (b"{}", "/v1/completions", {"Authorization": "Bearer wrong"}, 401),
        (b"{}", "/v1/nothing", {}, 404),
        (b"{}", "/v1/models", {}, 405),
    ],
)
def test_hostile_requests_are_answered_in_openais_shape(
    server: Server, body: bytes, url: str, headers: dict[str, str], status: int
) -> None:
    found, data = sent(server, body, url, **headers)
    assert found == status
    if status >= 400:
        assert set(data["error"]) == {"message", "type", "param", "code"}
    assert health(server)["status"] == "ok"


def test_running_answers_finish_when_the_server_stops(path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        with serving(path, models=ModelOptions(threads=1, parallel=1)) as server:
            client = openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0, timeout=120)
            ask = pool.submit(client.completions.create, **GREEDY, prompt="x", max_tokens=400, n=2)
            assert wait_for(lambda: health(server)["pending"] == 2, timeout_s=30, interval_s=0.001)
        assert len(ask.result().choices) == 2
        client.close()
    with pytest.raises(OSError):  # noqa: PT011 - whatever the system says of a closed port
        health(server)


def test_an_engine_that_fails_is_told_to_clients_and_ends_the_server(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpurig.common.errors import PrerequisiteError
    from gpurig.evaljobs.inference.context import Context

    def broken(*_: Any) -> None:
        raise PrerequisiteError("llama.cpp failed to compute")

    with serving(path) as server:
        monkeypatch.setattr(Context, "compute", broken)
        status, data = sent(server, json.dumps({**GREEDY, "messages": HELLO}).encode())
        assert (status, data["error"]["code"]) == (503, "engine_failed")
        assert wait_for(lambda: not server.runs, timeout_s=30)
        assert isinstance(server.failure, PrerequisiteError)


@pytest.fixture(scope="module")
def adapted(path: Path) -> Iterator[Server]:
    search = Search.of_folders()
    loras = {
        "style": write_lora(path.with_name("style.gguf"), path, seed=1),
        "tone": write_lora(path.with_name("tone.gguf"), path, seed=2),
    }
    files = {name: open_adapter(str(file), 1.0, search=search, suite_folder=Path()) for name, file in loras.items()}
    files["weak"] = open_adapter(str(loras["style"]), 0.5, search=search, suite_folder=Path())
    names = ModelNames(("tiny", "other"), {name: one.ref for name, one in files.items()})
    with serving(path, names=names, adapters=list(files.values())) as server:
        yield server


def test_a_client_chooses_adapters_by_the_models_name(adapted: Server, path: Path) -> None:
    merged = {
        "tiny": path,
        "tiny:style": write_merged(path.with_name("m1.gguf"), path, {path.with_name("style.gguf"): 1.0}),
        "other:weak": write_merged(path.with_name("m2.gguf"), path, {path.with_name("style.gguf"): 0.5}),
        "tiny:style+tone": write_merged(
            path.with_name("m3.gguf"), path, {path.with_name("style.gguf"): 1.0, path.with_name("tone.gguf"): 1.0}
        ),
        "tiny:style+weak": write_merged(path.with_name("m4.gguf"), path, {path.with_name("style.gguf"): 1.5}),
    }
    sampling = Sampling(max_tokens=24, top_k=0, top_p=1.0, min_p=0.0)
    expected = {}
    for name, file in merged.items():
        model = open_model(str(file), search=Search.of_folders(), suite_folder=Path())
        engine = InferenceEngine(model, EngineSettings(512, 1, exact=True))
        (done,) = engine.run([Request("r", "build the image:", sampling)])
        expected[name] = done.text
        engine.close()
    assert len(set(expected.values())) == 5
    with openai.OpenAI(base_url=adapted.url, api_key=KEY, max_retries=0, timeout=120) as client:

        def ask(name: str) -> str:
            done = client.completions.create(model=name, prompt="build the image:", temperature=0, max_tokens=24)
            assert done.model == name
            return str(done.choices[0].text)

        with ThreadPoolExecutor(15) as pool:
            names = list(expected) * 3
            assert list(pool.map(ask, names)) == [expected[name] for name in names]
        listed = {model.id: getattr(model, "parent", None) for model in client.models.list().data}
        assert listed == {
            **dict.fromkeys(("tiny", "other")),
            **{f"tiny:{name}": "tiny" for name in ("style", "tone", "weak")},
            **{f"other:{name}": "other" for name in ("style", "tone", "weak")},
        }
        assert client.models.retrieve("tiny:tone").parent == "tiny"
        for name in ("tiny:", "tiny:none", "style", "tiny:style+", "tiny:style+none", "none:style"):
            with pytest.raises(openai.NotFoundError, match="does not exist; this server has: tiny, tiny:style"):
                ask(name)
