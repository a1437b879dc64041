"""Names of served models and adapters."""

from __future__ import annotations

import pytest
from gpurig.common.errors import InputError
from gpurig.evaljobs.records import AdapterRef, effective_adapters
from gpurig.evaljobs.serving.naming import AdapterOption, ModelNames, adapter_option


def ref(name: str, scale: float = 1.0) -> AdapterRef:
    return AdapterRef(name=name, file=name, sha256=name, size_bytes=1, scale=scale)


@pytest.mark.parametrize(
    ("text", "name", "path", "scale"),
    [
        ("style=adapters/style.gguf", "style", "adapters/style.gguf", 1.0),
        ("style=style.gguf:0.5", "style", "style.gguf", 0.5),
        ("s-1.x=a=b:c.gguf:-2", "s-1.x", "a=b:c.gguf", -2.0),
        ("a=dir:3/x.gguf", "a", "dir:3/x.gguf", 1.0),
        ("a=name", "a", "name", 1.0),
        ("a=x:0", "a", "x", 0.0),
    ],
)
def test_an_adapter_is_given_by_name_and_path_and_scale(text: str, name: str, path: str, scale: float) -> None:
    assert adapter_option(text) == AdapterOption(name, path, scale)


@pytest.mark.parametrize("text", ["", "style", "=x", "a=", "a b=x", "a:b=x", "a+b=x", "a=x:1000", "a=:1"])
def test_what_is_no_adapter_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not NAME=PATH"):
        adapter_option(text)


def test_a_model_whose_own_name_has_a_colon_keeps_it() -> None:
    names = ModelNames(("a", "a:b"), {"b": ref("b"), "c": ref("c")})

    def adapters(asked: str) -> tuple[AdapterRef, ...] | None:
        chosen = names.find(asked)
        return None if chosen is None else chosen.adapters

    assert adapters("a:b") == ()
    assert adapters("a:b:c") == (ref("c"),)
    assert adapters("a:c+b") == (ref("c"), ref("b"))
    assert adapters("a:d") is adapters("b") is adapters("") is adapters("a:") is None


def test_one_adapter_under_two_names_is_as_strong_as_both() -> None:
    assert effective_adapters([ref("x", 0.5), ref("x", 1.0)]) == (("x", 1.5),)
    assert effective_adapters([ref("x", 0.5), ref("x", -0.5)]) == ()
