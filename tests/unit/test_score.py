"""Windows, lines and figures of `gpurig-job score`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from gpurig.common.errors import InputError
from gpurig.evaljobs.inference.windows import rolling_windows
from gpurig.evaljobs.records import ModelRef, Score, ScoredText
from gpurig.evaljobs.scoring.figures import accuracy, chosen, perplexity
from gpurig.evaljobs.scoring.items import Item, read_items
from hypothesis import given
from hypothesis import strategies as st

MODEL = ModelRef(name="m", file="m.gguf", sha256="0", size_bytes=1)


@given(st.integers(0, 300), st.integers(1, 40), st.data())
def test_every_token_is_scored_once_and_no_window_is_too_long(tokens: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    windows = list(rolling_windows(tokens, size=size, overlap=overlap))
    assert [token for one in windows for token in range(one.scored, one.end)] == list(range(tokens))
    for number, one in enumerate(windows):
        # The last token is not fed, and there is one before the first that is scored.
        assert one.begin < one.scored < one.end
        assert one.end - 1 - one.begin <= size
        assert one.begin == -1 if number == 0 else one.scored - one.begin >= min(overlap, one.scored)


def test_more_overlap_costs_more_windows() -> None:
    counts = [len(list(rolling_windows(1000, size=100, overlap=overlap))) for overlap in (0, 25, 50, 75, 99)]
    assert counts == sorted(counts)
    assert counts[0] == 10


@pytest.mark.parametrize("overlap", [-1, 8, 9])
def test_an_overlap_that_leaves_nothing_is_refused(overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        list(rolling_windows(20, size=8, overlap=overlap))


def read(tmp_path: Path, *lines: str) -> tuple[Item, ...]:
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return read_items(path)


def test_lines_without_an_id_are_named_by_their_number_and_an_answer_may_be_a_text(tmp_path: Path) -> None:
    found = read(tmp_path, '{"text": "a"}', "", '{"prompt": "q", "choices": [" x", " y"], "answer": " y"}')
    assert [(one.id, one.right) for one in found] == [("line-1", None), ("line-3", 1)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "no JSON object"),
        ("3", "no JSON object"),
        ("{}", "needs choices or text, and not both"),
        ('{"text": "a", "choices": ["b"]}', "needs choices or text, and not both"),
        ('{"text": "a", "prompt": "b"}', "a text has neither prompt nor answer"),
        ('{"text": ""}', "an empty text has no probability"),
        ('{"choices": ["a", ""]}', "an empty text has no probability"),
        ('{"choices": ["a", "a"]}', "choices: two are the same"),
        ('{"choices": ["a", "b"], "answer": 2}', "answer: 2 is no number of a choice: from 0 to 1"),
        ('{"choices": ["a", "b"], "answer": "c"}', 'answer: "c" is none of the choices'),
        ('{"choices": "a"}', "choices: must be a list"),
        ('{"choice": ["a"]}', "choice: unknown key; did you mean"),
        ('{"text": "a", "id": "../x"}', "id: "),
        ('{"id": "line-1", "text": "b"}', 'id: "line-1" is there twice, first in line 1'),
    ],
)
def test_a_wrong_line_is_named_with_what_would_be_right(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, '{"text": "fine"}', line)
    assert str(caught.value).startswith(f"{tmp_path / 'items.jsonl'}:2: {said}")
    assert "\n" not in str(caught.value)


def test_no_file_and_an_empty_one_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_items(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="has no line"):
        read(tmp_path, "", "")


def question(answer: int | None, *choices: tuple[float, int, int], error: str = "") -> Score:
    scored = tuple(ScoredText(text="x", logprob=value, tokens=t, bytes=b) for value, t, b in choices)
    return Score(sample="q", key="", model=MODEL, kind="choices", scored=scored, answer=answer, error=error)


def test_normalizations_take_different_choices() -> None:
    one = question(0, (-4.0, 1, 8), (-5.0, 2, 6), (-4.5, 1, 10))
    assert [chosen(one, how) for how in ("sum", "token", "byte")] == [0, 1, 2]


def test_the_first_of_equal_choices_is_taken() -> None:
    assert chosen(question(0, (-1.0, 1, 1), (-1.0, 1, 1)), "sum") == 0


def test_a_question_without_scores_counts_as_wrong_and_one_without_an_answer_does_not_count() -> None:
    scores = [question(0, (-1.0, 1, 1), (-2.0, 1, 1)), question(0, error="too long"), question(None, (-1.0, 1, 1))]
    found = accuracy(scores, "sum")
    assert found is not None
    assert (found.value, found.n) == (0.5, 2)
    assert accuracy([question(None, (-1.0, 1, 1))], "sum") is None


def test_perplexity_is_over_all_texts_together() -> None:
    texts = [
        Score(
            sample=name,
            key="",
            model=MODEL,
            kind="text",
            words=words,
            scored=(ScoredText(logprob=value, tokens=t, bytes=b),),
        )
        for name, value, t, b, words in (("a", -8.0, 4, 16, 2), ("b", -2.0, 1, 4, 3))
    ]
    found = perplexity(texts)
    assert found is not None
    assert (found.token, found.byte, found.word) == pytest.approx((math.exp(2), math.exp(0.5), math.exp(2)))
    assert found.bits_per_byte == pytest.approx(0.5 / math.log(2))
    assert perplexity([question(0, (-1.0, 1, 1))]) is None


def test_what_no_number_can_hold_is_infinite() -> None:
    text = Score(
        sample="a", key="", model=MODEL, kind="text", words=1, scored=(ScoredText(logprob=-1e6, tokens=1, bytes=1),)
    )
    found = perplexity([text])
    assert found is not None
    assert found.token == math.inf
