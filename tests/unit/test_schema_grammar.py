"""Schemas become grammars, or it is said why not; integration/test_serving.py shows that answers follow them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from gpurig.evaljobs.serving.schema_grammar import SchemaFault, literal, schema_grammar
from hypothesis import given
from hypothesis import strategies as st

DEEP: dict[str, Any] = {}
for _ in range(200):
    DEEP = {"type": "array", "items": DEEP}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "string", "pattern": "^a$"}, '"pattern" cannot be enforced'),
        ({"type": "integer", "minimum": 3}, '"minimum" cannot be enforced'),
        ({"type": "text"}, 'no type "text"'),
        ({"$ref": "#/$defs/none"}, "names nothing"),
        ({"$ref": "https://example.com/x"}, "the same schema"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "refers to itself"),
        ({"type": "string", "maxLength": 10**9}, "whole numbers of 0 to"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "less than"),
        ({"enum": []}, "at least one"),
        ({"anyOf": 3}, "at least one"),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, 'required names "b"'),
        (DEEP, "nested deeper"),
        (False, "must be an object"),
    ],
)
def test_what_cannot_be_followed_is_refused(schema: Any, why: str) -> None:
    with pytest.raises(SchemaFault, match=why):
        schema_grammar(schema, strict=True)


def test_what_cannot_be_enforced_is_passed_over_unless_it_is_strict() -> None:
    assert schema_grammar({"type": "string", "pattern": "^a$"}, strict=False).startswith("root ::= string\n")


words = st.sampled_from(["type", "properties", "items", "enum", "const", "anyOf", "$ref", "required", "minItems", "x"])
data = st.recursive(
    st.sampled_from(["object", "array", "string", "#", "a"]) | st.integers(-1, 3) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=10,
)


@given(data, st.booleans())
def test_any_data_is_a_schema_or_refused(schema: Any, strict: bool) -> None:
    with contextlib.suppress(SchemaFault):
        assert schema_grammar(schema, strict=strict).startswith("root ::= ")


def test_literals_are_written_as_gbnf_reads_them() -> None:
    assert literal('a"\\\n\x01é') == r'"a\"\\\n\x01é"'
