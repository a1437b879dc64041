"""What clients send is a body, or refused in OpenAI's words."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from gpurig.evaljobs.serving.access import Access, read_keys
from gpurig.evaljobs.serving.asking import Limits, ask_completion
from gpurig.evaljobs.serving.bodies import ChatBody, CompletionBody, parse_body, parse_json
from gpurig.evaljobs.serving.faults import ApiFault
from gpurig.evaljobs.serving.tool_calls import Call, call_format, read_calls
from hypothesis import given
from hypothesis import strategies as st

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([*ChatBody.model_fields, *CompletionBody.model_fields, "unknown"])


def read(kind: type[ChatBody | CompletionBody], data: Any) -> None:
    body = parse_body(kind, data)
    if isinstance(body, CompletionBody):
        ask_completion(body, Limits(context=64, vocabulary=100))


def refusal(ask: Callable[[], object]) -> int | None:
    """The status of what is refused, whose body can be sent."""
    try:
        ask()
    except ApiFault as fault:
        json.dumps(fault.body)
        return fault.status
    return None


@given(st.dictionaries(names, values, max_size=4), st.sampled_from([ChatBody, CompletionBody]))
def test_any_data_is_a_body_or_refused(data: dict[str, Any], kind: type[ChatBody | CompletionBody]) -> None:
    for given_ in (data, {**CHAT, **data}, {"model": "m", "prompt": "x", **data}, [data]):
        assert refusal(lambda: read(kind, given_)) in (None, 400)  # noqa: B023 - called at once


@given(st.binary(max_size=40))
def test_any_bytes_are_json_or_refused(raw: bytes) -> None:
    assert refusal(lambda: parse_json(raw)) in (None, 400)


@pytest.mark.parametrize(
    "raw", [b"[" * 100_000, b'{"a":' * 100_000, b"NaN", b'{"n": Infinity}', b"\xff", b"", b"1" * 5000]
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ApiFault, match="JSON"):
        parse_json(raw)


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"messages": None}, "messages", "invalid_type"),
        ({"n": True}, "n", "invalid_type"),
        ({"n": 0}, "n", "invalid_value"),
        ({"temperature": float("nan")}, "temperature", "invalid_value"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content", "invalid_type"),
        ({"messages": [{"role": "user", "content": "x", "extra": 1}]}, "messages.0.extra", "unknown_parameter"),
    ],
)
def test_a_wrong_parameter_is_named(change: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(ApiFault) as caught:
        parse_body(ChatBody, {**CHAT, **change})
    error = caught.value.body["error"]
    assert (error["param"].removesuffix(".str"), error["code"]) == (param, code)


def test_a_key_opens_and_nothing_else_does() -> None:
    access = Access(("the-first-key-of-two", "the-second-key-of-two"), loopback=False)
    access.demand({"authorization": "Bearer the-second-key-of-two"})
    for header in ("", "Bearer", "Bearer the-second-key", "Basic the-first-key-of-two", "Bearer \udcff"):
        with pytest.raises(ApiFault) as caught:
            access.demand({"authorization": header})
        assert caught.value.status == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "", "127.0.0.1.evil.example"])
def test_without_a_key_a_foreign_name_for_this_machine_is_refused(host: str) -> None:
    with pytest.raises(ApiFault):
        Access((), loopback=True).demand({"host": host})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000"])
def test_without_a_key_this_machines_own_names_are_served(host: str) -> None:
    Access((), loopback=True).demand({"host": host})


def test_a_key_that_can_be_guessed_is_refused() -> None:
    from gpurig.common.errors import InputError

    with pytest.raises(InputError, match="16 or more"):
        read_keys(None, {"GPURIG_SERVE_API_KEY": "short"})
    assert read_keys(None, {}) == ()


def test_calls_are_read_as_the_template_lets_them_be_written() -> None:
    tagged, bare = call_format("… <tool_call> …"), call_format("… tools …")
    call = Call("f", '{"a": 1}')
    text = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    assert read_calls(f"Well. {text}{text}", tagged, ["f"]) == ("Well. ", [call, call])
    assert read_calls('{"name": "f", "parameters": {"a": 1}}', bare, ["f"]) == ("", [call])


@pytest.mark.parametrize(
    "text", ["plain", "<tool_call>{broken", '<tool_call>{"name": "other", "arguments": {}}</tool_call>', "[" * 99_999]
)
def test_what_is_no_call_stays_text(text: str) -> None:
    for template in ("<tool_call>", "tools"):
        assert read_calls(text, call_format(template), ["f"]) == (text, [])


@pytest.mark.parametrize(
    ("content", "param", "said"),
    [
        ([{"type": "image_url", "image_url": {"url": "x"}}], "messages.0.content.0.type", "'text' or 'refusal'"),
        ([{"type": "text", "text": 3}], "messages.0.content.0.text", "valid string"),
        (5, "messages.0.content", "valid string"),
    ],
)
def test_a_wrong_part_of_a_message_is_named_by_its_place(content: object, param: str, said: str) -> None:
    with pytest.raises(ApiFault) as caught:
        parse_body(ChatBody, {"model": "x", "messages": [{"role": "user", "content": content}]})
    error = caught.value.body["error"]
    assert error["param"] == param
    assert said in error["message"]
