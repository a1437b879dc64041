"""A JSON schema as a GBNF grammar, so that an answer cannot but follow it.

The words are those of JSON Schema 2020-12 that say what a value looks like. Objects have their properties in the order
of the schema, and no others unless `additionalProperties` allows them, as OpenAI's structured outputs do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_BASE = {
    "ws": r'| " " | "\n" [ \t]{0,20}',
    "digits": "[0-9]{1,16}",
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": 'integer ("." digits)? ([eE] [-+]? [0-9]{1,3})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    # JSON forbids bare control characters. No lone surrogates: they are no text.
    "char": r'[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" unit)',
    "unit": "[0-9a-cA-CefEF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2}",
    "string": r'"\"" char* "\""',
    "array": '"[" ws (value (ws "," ws value)*)? ws "]"',
    "object": r'"{" ws (string ws ":" ws value (ws "," ws string ws ":" ws value)*)? ws "}"',
    "value": "object | array | string | number | boolean | null",
}
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
# Words that change nothing about what a value looks like.
_SILENT = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "nullable", "strict"}
    | {"$schema", "$id", "$comment", "$defs", "definitions", "$anchor"}
)
_KNOWN = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
}
# llama.cpp refuses grammars with larger repetitions (MAX_REPETITION_THRESHOLD).
_MOST_REPETITIONS = 2000
_DEEPEST, _MOST_RULES = 64, 5000


class SchemaFault(ValueError):  # noqa: N818 - what is wrong with a schema, not with the program
    """A schema that cannot be turned into a grammar; its text is one line that says why."""


class Grammar:
    """Collects rules."""

    def __init__(self) -> None:
        """Begin with those that JSON needs."""
        self._rules = dict(_BASE)
        self._refs: dict[tuple[int, str], str] = {}

    def text(self, root: str) -> str:
        """The grammar; `root` is the expression that an answer is."""
        return "\n".join(f"{name} ::= {rule}" for name, rule in {"root": root, **self._rules}.items())

    def add(self, schema: Any, *, strict: bool) -> str:
        """The rule for values of a schema.

        Args:
            schema: as JSON gives it.
            strict: refuse words that the grammar cannot follow, instead of passing over them.

        Raises:
            SchemaFault: it cannot be followed.
        """
        return _Converter(schema, strict=strict, rule=self._rule, refs=self._refs).convert(schema, 0)

    def _rule(self, text: str, name: str = "") -> str:
        if len(self._rules) >= _MOST_RULES:
            raise SchemaFault("the schema is too large")
        name = name or f"r{len(self._rules)}"
        self._rules[name] = text
        return name


def schema_grammar(schema: Any, *, strict: bool) -> str:
    """The grammar of a schema's values.

    Raises:
        SchemaFault: it cannot be followed.
    """
    grammar = Grammar()
    return grammar.text(grammar.add(schema, strict=strict))


def literal(text: str) -> str:
    """A text as GBNF writes it."""
    plain = {'"': r"\"", "\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
    return '"' + "".join(plain.get(one, one if one >= " " else f"\\x{ord(one):02X}") for one in text) + '"'


class _Converter:
    def __init__(self, root: Any, *, strict: bool, rule: Callable[..., str], refs: dict[tuple[int, str], str]) -> None:
        self._root, self._strict, self._rule, self._refs = root, strict, rule, refs

    def convert(self, schema: Any, depth: int) -> str:
        """The name of the rule for a part of the schema."""
        if depth > _DEEPEST:
            raise SchemaFault(f"the schema is nested deeper than {_DEEPEST} levels")
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, Mapping):
            raise SchemaFault("a schema must be an object")
        if "$ref" in schema:
            return self._referred(schema, depth)
        if "const" in schema or "enum" in schema:
            return self._values(schema)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                self._demand_known(schema, frozenset({word, "type"}))
                return self._either(schema[word], word, depth)
        if "allOf" in schema:
            parts = schema["allOf"]
            if not isinstance(parts, list) or len(parts) != 1:
                raise SchemaFault("allOf is understood with one schema only")
            self._demand_known(schema, frozenset({"allOf"}))
            return self.convert(parts[0], depth + 1)
        return self._typed(schema, depth)

    def _typed(self, schema: Mapping[str, Any], depth: int) -> str:
        kinds = schema.get("type", self._guessed(schema))
        if isinstance(kinds, list):
            return self._either([{**schema, "type": kind} for kind in kinds], "type", depth)
        if kinds not in _TYPES:
            raise SchemaFault(f"there is no type {json.dumps(kinds)[:60]}")
        # Alternatives of several types carry the words of all.
        foreign = frozenset().union(*_KNOWN.values()) if "type" in schema else frozenset()
        self._demand_known(schema, _KNOWN.get(kinds, frozenset()) | foreign | {"type"})
        match kinds:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string" if "minLength" in schema or "maxLength" in schema:
                return self._rule(f'"\\"" char{self._times(schema, "Length")} "\\""')
        return str(kinds)

    def _guessed(self, schema: Mapping[str, Any]) -> str | list[str]:
        found = [kind for kind, words in _KNOWN.items() if words & schema.keys()]
        return found[0] if len(found) == 1 else list(_TYPES)

    def _demand_known(self, schema: Mapping[str, Any], known: frozenset[str]) -> None:
        unknown = sorted(schema.keys() - known - _SILENT)
        if unknown and self._strict:
            raise SchemaFault(f'"{unknown[0][:60]}" cannot be enforced; leave it out, or say strict: false')

    def _referred(self, schema: Mapping[str, Any], depth: int) -> str:
        reference = schema["$ref"]
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaFault("$ref must name a part of the same schema (#/$defs/…)")
        key = (id(self._root), reference)
        if key not in self._refs:
            target = self._root
            for step in reference.removeprefix("#").split("/")[1:]:
                word = step.replace("~1", "/").replace("~0", "~")
                if not isinstance(target, Mapping) or word not in target:
                    raise SchemaFault(f"$ref {reference[:60]} names nothing")
                target = target[word]
            # The name is there before the rule is, so that a schema may contain itself.
            name = self._refs[key] = self._rule("")
            inner = self.convert(target, depth + 1)
            if inner == name:
                raise SchemaFault(f"$ref {reference[:60]} refers to itself alone")
            self._rule(inner, name)
        return self._refs[key]

    def _values(self, schema: Mapping[str, Any]) -> str:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if not isinstance(values, list) or not values:
            raise SchemaFault("enum must be a list of at least one value")
        self._demand_known(schema, frozenset({"const", "enum", "type"}))
        return self._rule(" | ".join(literal(json.dumps(value, ensure_ascii=False)) for value in values))

    def _either(self, schemas: Any, word: str, depth: int) -> str:
        if not isinstance(schemas, list) or not schemas:
            raise SchemaFault(f"{word} must be a list of at least one schema")
        return self._rule(" | ".join(dict.fromkeys(self.convert(one, depth + 1) for one in schemas)))

    def _object(self, schema: Mapping[str, Any], depth: int) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, Mapping) or not isinstance(required, list):
            raise SchemaFault("properties must be an object, required a list")
        if unknown := [name for name in required if not isinstance(name, str) or name not in properties]:
            raise SchemaFault(f"required names {json.dumps(unknown[0])[:60]}, and properties does not")
        others = schema.get("additionalProperties", not properties)
        if not properties and others is True:
            return "object"
        tail = head = ""
        if others is not False:
            pair = f'string ws ":" ws {self.convert(others, depth + 1)}'
            tail = self._rule(f'(ws "," ws {pair})*')
            head = self._rule(f"({pair} {tail})?")
        for name, inner in reversed(list(properties.items())):
            key = literal(json.dumps(name, ensure_ascii=False))
            pair = self._rule(f'{key} ws ":" ws {self.convert(inner, depth + 1)}')
            # What follows a first property, and what follows none.
            first, later = f"{pair} {tail}", f'ws "," ws {pair} {tail}'
            if name in required:
                head, tail = self._rule(first), self._rule(later)
            else:
                head, tail = self._rule(_or_else(first, head)), self._rule(_or_else(later, tail))
        return self._rule(f'"{{" ws {head} ws "}}"')

    def _array(self, schema: Mapping[str, Any], depth: int) -> str:
        firsts = schema.get("prefixItems", [])
        if not isinstance(firsts, list):
            raise SchemaFault("prefixItems must be a list")
        if firsts:
            if self._strict and schema.keys() & {"minItems", "maxItems"}:
                raise SchemaFault("minItems and maxItems cannot be enforced beside prefixItems")
            return self._rule('"[" ws ' + _joined([self.convert(one, depth + 1) for one in firsts]) + ' ws "]"')
        item = self.convert(schema.get("items", {}), depth + 1)
        least, most = self._bounds(schema, "Items")
        if most == 0:
            return self._rule('"[" ws "]"')
        more = f'(ws "," ws {item}){{{max(least - 1, 0)},{"" if most is None else most - 1}}}'
        inner = f"{item} {more}" if least else f"({item} {more})?"
        return self._rule(f'"[" ws {inner} ws "]"')

    def _times(self, schema: Mapping[str, Any], what: str) -> str:
        least, most = self._bounds(schema, what)
        return f"{{{least},{'' if most is None else most}}}"

    def _bounds(self, schema: Mapping[str, Any], what: str) -> tuple[int, int | None]:
        least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}")
        for value in (least, 0 if most is None else most):
            if type(value) is not int or not 0 <= value <= _MOST_REPETITIONS:
                raise SchemaFault(f"min{what} and max{what} must be whole numbers of 0 to {_MOST_REPETITIONS}")
        if most is not None and most < least:
            raise SchemaFault(f"max{what} is less than min{what}")
        return least, most


def _or_else(first: str, other: str) -> str:
    # GBNF has no empty alternative at a line's end.
    return f"{first} | {other}" if other else f"({first})?"


def _joined(rules: Iterable[str]) -> str:
    return ' ws "," ws '.join(rules)
