from __future__ import annotations

import contextlib
import time

import pytest
from gpurig.evaljobs.checks.gitlab.expressions import MAX_TOKENS, ExpressionError, Node, Not, Operation, Value, parse
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    "text",
    [
        "$CI_COMMIT_TAG",
        '$CI_COMMIT_BRANCH == "main"',
        "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH",
        '"main" == $CI_COMMIT_BRANCH',
        "$A != 'x'",
        "$A == null",
        "$A != null && $B == ''",
        r"$CI_COMMIT_TAG =~ /^v\d+\.\d+/",
        "$CI_COMMIT_MESSAGE !~ /skip ci/i",
        r"$CI_COMMIT_REF_NAME =~ /^feature\/.*/",
        "$BRANCH =~ $PATTERN",
        "($A || $B) && $C",
        "$A && ($B == 'x' || ($C =~ /ab/ && $D))",
        "!$A",
        "!($A && $B) || !$C == 'true'",
        "$[[ inputs.run ]] == true",
        "  $A\n&& $B ",
        "$A=='x'&&$B=~/yz/",
    ],
)
def test_what_gitlab_takes_is_an_expression(text: str) -> None:
    parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is empty"),
        ("   ", "it is empty"),
        ("CI_COMMIT_BRANCH == 'main'", "no variable ($NAME)"),
        ("${CI_COMMIT_BRANCH} == 'main'", "without braces"),
        ("$A = 'x'", "the operators are"),
        ("$A & $B", "the operators are"),
        ("$A and $B", "no variable"),
        ("$A == ", "it ends where a value should be"),
        ("== 'x'", "where a value should be"),
        ("$A == 'x", "the text has no end"),
        ("$A $B", "where an operator or the end should be"),
        ("($A", "not closed"),
        ("$A)", "where an operator or the end should be"),
        ("()", "where a value should be"),
        ("$A =~ 'x'", "stands a /pattern/ or a variable"),
        ("$A =~ null", "stands a /pattern/ or a variable"),
        ("$A =~ /a/", "at least two characters"),
        ("$A =~ /^feature/.*/", "a / inside of one is written"),
        ("$A =~ /ab", "a pattern is written"),
        ("$A =~ /(ab/", "no valid pattern"),
        ("$A =~ /(?!main)ab/", "(RE2) have no (?!"),
        ("$A =~ /(?<=x)ab/", "(RE2) have no (?<="),
        (r"$A =~ /(a)b\1/", r"have no \1"),
        ("github.ref == 'refs/heads/main'", "no variable"),
        ("$A == 5", "no variable"),
        ("$A !", "where an operator or the end"),
        (" && ".join(["$A"] * 60), "more than 99 parts"),
    ],
)
def test_what_gitlab_refuses_is_told_in_words(text: str, says: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert says in str(caught.value)


def test_operators_bind_as_in_gitlab() -> None:
    a, b, c = (Value("variable", f"${name}") for name in "ABC")
    assert parse("$A || $B && $C") == Operation("||", a, Operation("&&", b, c))
    assert parse("$A && $B || $C") == Operation("||", Operation("&&", a, b), c)
    assert parse("!$A == $B") == Operation("==", Not(a), b)
    assert parse("!($A == $B)") == Not(Operation("==", a, b))
    assert parse("$A == $B == $C") == Operation("==", Operation("==", a, b), c)


LEAVES = st.one_of(
    st.sampled_from(["$A", "$CI_COMMIT_TAG", "$_1"]).map(lambda text: Value("variable", text)),
    st.text(alphabet="ab c$/&|()!=~", max_size=6).map(lambda text: Value("text", f'"{text}"')),
    st.sampled_from(["null"]).map(lambda text: Value("null", text)),
    st.sampled_from(["true", "false"]).map(lambda text: Value("boolean", text)),
)
PATTERNS = st.sampled_from(["/ab/", r"/^v\d+\/x$/i", "/[a-z]+ &&/m", "$P"]).map(
    lambda text: Value("variable" if text[0] == "$" else "pattern", text)
)


def grown(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.one_of(
        inner.map(Not),
        st.builds(Operation, st.sampled_from(["==", "!=", "&&", "||"]), inner, inner),
        st.builds(Operation, st.sampled_from(["=~", "!~"]), inner, PATTERNS),
    )


TREES = st.recursive(LEAVES, grown, max_leaves=12)
LEVELS = {"||": 0, "&&": 1, "==": 2, "!=": 2, "=~": 2, "!~": 2}


def written(node: Node, level: int = 0) -> str:
    """With as few parentheses as the grammar needs."""
    if isinstance(node, Value):
        return node.text
    if isinstance(node, Not):
        return f"!{written(node.operand, 3)}"
    own = LEVELS[node.operator]
    text = f"{written(node.left, own)} {node.operator} {written(node.right, own + 1)}"
    return f"({text})" if own < level else text


def size(node: Node) -> int:
    if isinstance(node, Value):
        return 1
    if isinstance(node, Not):
        return 3 + size(node.operand)
    return 3 + size(node.left) + size(node.right)


@given(TREES)
def test_every_tree_comes_back_from_its_text(tree: Node) -> None:
    if size(tree) <= MAX_TOKENS:
        assert parse(written(tree)) == tree


@given(st.text() | st.text(alphabet="$AB()!=~&|/\\ \"'nultrefas[]{}", max_size=60))
def test_any_text_is_an_expression_or_told_not_to_be(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        parse(text)


@pytest.mark.parametrize("text", ["(" * 100_000, "!" * 100_000, "$A =~ /" + "\\" * 100_000, '"' + "x" * 200_000])
def test_hostile_expressions_end_at_once(text: str) -> None:
    started = time.process_time()
    with pytest.raises(ExpressionError):
        parse(text)
    assert time.process_time() - started < 5
