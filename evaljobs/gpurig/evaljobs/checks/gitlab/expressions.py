"""GitLab's expressions in `rules:if`: the grammar of lib/gitlab/ci/pipeline/expression in GitLab's source (19.x).

    or      = and { "||" and }
    and     = compare { "&&" compare }
    compare = unary { ( "==" | "!=" | "=~" | "!~" ) unary }
    unary   = "!" unary | "(" or ")" | value
    value   = $variable | "text" | 'text' | /pattern/flags | null | true | false | $[[ inputs.name ]]

Operators of one level bind to the left. At most 99 tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gpurig.evaljobs.checks.subject import shown

# GitLab gives up at the hundredth.
MAX_TOKENS = 99

Kind = Literal["variable", "text", "pattern", "null", "boolean", "input"]


class ExpressionError(Exception):
    """Text that is no expression; one line."""


@dataclass(frozen=True)
class Value:
    """A leaf, its text as it stands there."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Not:
    """What is not so."""

    operand: Node


@dataclass(frozen=True)
class Operation:
    """Two operands and what is asked of them: "==", "!=", "=~", "!~", "&&", "||"."""

    operator: str
    left: Node
    right: Node


Node = Value | Not | Operation

# In the order in which GitLab tries them. A text knows no escapes and ends in its line; a pattern has at least two
# characters, because GitLab wants one before a slash that ends it.
_TOKENS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("(", re.compile(r"\(")),
    (")", re.compile(r"\)")),
    ("input", re.compile(r"\$\[\[[^\]]*\]\]")),
    ("variable", re.compile(r"\$\w+", re.ASCII)),
    ("text", re.compile(r"\"[^\"\n]*\"|'[^'\n]*'")),
    ("pattern", re.compile(r"/(?:[^/\\]|\\/|\\)+[^\\]/[ismU]*")),
    ("null", re.compile(r"null")),
    ("boolean", re.compile(r"\b(?:true|false)\b")),
    ("operator", re.compile(r"==|=~|!=|!~|&&|\|\||!")),
)
# RE2, which matches for GitLab, knows none of these.
_NOT_IN_RE2 = re.compile(r"\(\?(?:<?[=!]|>)|\\[1-9]|\\k<")
_COMPARISONS = ("==", "!=", "=~", "!~")
_Token = tuple[str, str]


def parse(text: str) -> Node:
    """The expression as a tree.

    Raises:
        ExpressionError: GitLab refuses it; the message says where.
    """
    tokens = _tokens(text)
    if not tokens:
        raise ExpressionError("it is empty")
    parser = _Parser(tokens)
    tree = parser.either()
    if rest := parser.next:
        raise ExpressionError(f"{shown(rest[1], 40)} stands where an operator or the end should be")
    return tree


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while True:
        while position < len(text) and text[position].isspace():
            position += 1
        if position == len(text):
            return tokens
        if len(tokens) == MAX_TOKENS:
            raise ExpressionError(f"it has more than {MAX_TOKENS} parts")
        for kind, pattern in _TOKENS:
            if found := pattern.match(text, position):
                tokens.append((kind, found[0]))
                position = found.end()
                break
        else:
            raise ExpressionError(_unknown(text[position : position + 200], tokens))


def _unknown(rest: str, before: list[_Token]) -> str:
    if before and before[-1][0] == "pattern":
        return f"{shown(rest, 40)} stands behind a pattern: a / inside of one is written \\/"
    if rest.startswith("${"):
        return f"{shown(rest, 40)}: a variable is written $NAME here, without braces"
    if rest.startswith(("&", "|", "=")):
        return f"{shown(rest, 40)}: the operators are ==, !=, =~, !~, &&, || and !"
    if rest[0] in "\"'":
        return f"{shown(rest, 40)}: the text has no end"
    if rest.startswith("/"):
        return f"{shown(rest, 40)}: a pattern is written /…/, with at least two characters and every / in it as \\/"
    return f"{shown(rest, 40)} is no variable ($NAME), no text in quotes, no /pattern/, no null"


class _Parser:
    """Recursive descent; parentheses and `!` are bounded by the number of tokens."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._position = 0

    @property
    def next(self) -> _Token | None:
        return self._tokens[self._position] if self._position < len(self._tokens) else None

    def either(self) -> Node:
        tree = self._both()
        while self._takes("||"):
            tree = Operation("||", tree, self._both())
        return tree

    def _both(self) -> Node:
        tree = self._compared()
        while self._takes("&&"):
            tree = Operation("&&", tree, self._compared())
        return tree

    def _compared(self) -> Node:
        tree = self._single()
        while (token := self.next) and token[0] == "operator" and token[1] in _COMPARISONS:
            self._position += 1
            right = self._single()
            if token[1] in {"=~", "!~"} and not _may_be_pattern(right):
                raise ExpressionError(f"behind {token[1]} stands a /pattern/ or a variable that holds one")
            tree = Operation(token[1], tree, right)
        return tree

    def _single(self) -> Node:
        token = self.next
        if token is None:
            raise ExpressionError("it ends where a value should be")
        self._position += 1
        kind, text = token
        if (kind, text) == ("operator", "!"):
            return Not(self._single())
        if kind == "(":
            tree = self.either()
            if not self._takes(")"):
                raise ExpressionError("a parenthesis is not closed")
            return tree
        if kind in {"operator", ")"}:
            raise ExpressionError(f"{shown(text, 40)} stands where a value should be")
        if kind == "pattern":
            _demand_pattern(text)
        return Value(kind, text)  # type: ignore[arg-type]  # what is left are the kinds of values

    def _takes(self, text: str) -> bool:
        token = self.next
        if token is None or token[1] != text or token[0] not in {"operator", text}:
            return False
        self._position += 1
        return True


def _may_be_pattern(node: Node) -> bool:
    return not (isinstance(node, Value) and node.kind in {"text", "null", "boolean"})


def _demand_pattern(text: str) -> None:
    """GitLab refuses what RE2 refuses; `regex` stands in for it, which allows more."""
    import regex as engine  # noqa: PLC0415 - heavy, and `--help` does not need it

    inner = text[1 : text.rindex("/")].replace("\\/", "/")
    if missing := _NOT_IN_RE2.search(inner):
        raise ExpressionError(f"{shown(text, 60)}: GitLab's patterns (RE2) have no {missing[0]}")
    try:
        engine.compile(inner)
    except engine.error as error:
        raise ExpressionError(f"{shown(text, 60)} is no valid pattern: {error}") from error
