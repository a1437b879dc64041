from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpurig.common.errors import InputError
from gpurig.evaljobs.checks import Answer, parse_check, run_check
from gpurig.evaljobs.checks.embedding import cut
from gpurig.evaljobs.checks.resources import Resources, Vectors
from gpurig.evaljobs.records import CheckOutcome
from gpurig.evaljobs.stages import check, generate
from gpurig.evaljobs.store import CHECKS
from gpurig.evaljobs.suites.suite import load_suite
from hypothesis import given
from hypothesis import strategies as st
from standins.eval_box import EvalBox
from standins.scripted_engine import ScriptedProvider
from standins.tiny_gguf import write_tiny_gguf

# Relevant files at the first and fourth place.
NDCG = (1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3))

# Files at the angles 0°, 30°, 60°, 90° from the question.
ANGLES = {"question": 0, "first": 0, "second": 30, "third": 60, "fourth": 90, "opposite": 180}


def at(degrees: float) -> Any:
    return np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))], np.float32)


def found(check_: object, folder: Path = Path(), **facts: Any) -> CheckOutcome:
    vectors = Vectors({text: at(angle) for text, angle in ANGLES.items()}, {"long": "a text has 900 tokens"})
    resources = Resources(vectors={"m": vectors})
    return run_check(parse_check(check_), Answer(**{"output": "x", **facts}, folder=folder, resources=resources))


@pytest.mark.parametrize(
    ("output", "reference", "score"),
    [
        ("first", "question", 1.0),
        ("second", "question", math.sqrt(3) / 2),
        ("third", "first", 0.5),
        ("opposite", "first", 0),
    ],
)
def test_the_score_is_the_cosine(output: str, reference: str, score: float) -> None:
    outcome = found({"embedding-similarity": "m"}, output=output, reference=reference)
    assert outcome.score == pytest.approx(score, abs=1e-6)
    assert outcome.passed
    assert outcome.figures == {"embedding_similarity": outcome.score}


def test_the_nearest_reference_and_the_threshold_decide() -> None:
    check_ = {"embedding-similarity": {"model": "m", "reference": ["fourth", "second"], "threshold": 0.9}}
    assert found(check_, output="second").passed
    assert "expected embedding_similarity of at least 0.9, found 0.866" in found(check_, output="third").message


@pytest.mark.parametrize(
    ("output", "reference", "says"),
    [("long", "first", "a text has 900 tokens"), ("first", "", "no reference"), (" ", "first", "the answer is empty")],
)
def test_what_has_no_vector_fails_and_says_why(output: str, reference: str, says: str) -> None:
    assert says in found({"embedding-similarity": "m"}, output=output, reference=reference).message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    for name in ("first", "second", "third", "fourth"):
        (tmp_path / "docs" / f"{name}.md").write_text(f"{name}\n")
    return tmp_path


def retrieval(**parameters: Any) -> dict[str, Any]:
    return {"retrieval": {"model": "m", "folder": "docs", **parameters}}


@pytest.mark.parametrize(
    ("relevant", "k", "figures"),
    [
        (["first.md"], 1, {"hit@1": 1, "mrr": 1, "ndcg@1": 1, "recall@1": 1}),
        (["third.md"], 2, {"hit@2": 0, "mrr": 1 / 3, "ndcg@2": 0, "recall@2": 0}),
        (["third.md"], 3, {"hit@3": 1, "mrr": 1 / 3, "ndcg@3": 1 / 2, "recall@3": 1}),
        # Järvelin and Kekäläinen's discount: the second and third place, of an ideal first and second.
        (
            ["second.md", "third.md"],
            3,
            {"hit@3": 1, "mrr": 1 / 2, "ndcg@3": (1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3)), "recall@3": 1},
        ),
        (
            ["fourth.md", "first.md"],
            10,
            {"hit@10": 1, "mrr": 1, "ndcg@10": (1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3)), "recall@10": 1},
        ),
    ],
)
def test_figures_of_retrieval_are_those_of_the_ranking(
    folder: Path, relevant: list[str], k: int, figures: dict[str, float]
) -> None:
    outcome = found(retrieval(relevant=relevant, k=k), folder, input="question")
    assert outcome.figures == pytest.approx(figures)
    assert outcome.score == pytest.approx(figures[f"hit@{k}"])


def test_retrieval_fails_below_its_threshold_and_names_what_it_found(folder: Path) -> None:
    outcome = found(retrieval(relevant="fourth.md", k=2, threshold=1.0), folder, input="question")
    assert outcome.message == (
        'expected hit@2 of at least 1, found 0.000: the nearest files are "first.md", "second.md", "third.md"'
    )
    by_variable = found(retrieval(measure="mrr"), folder, input="question", vars={"relevant": "gone.md, second.md"})
    assert by_variable.score == pytest.approx(0.5)
    assert "no file is named as relevant" in found(retrieval(), folder, input="question").message


def test_a_missing_folder_or_file_is_a_mistake_in_the_suite(folder: Path) -> None:
    data = {"version": 1, "name": "x", "generator": {"model": "m"}, "samples": [{"id": "a", "input": "b"}]}
    for parameters, says in (
        ({"folder": "gone"}, "there is no folder"),
        ({"relevant": ["gone.md"]}, "there is no file"),
    ):
        (folder / "suite.yaml").write_text(json.dumps({**data, "checks": [retrieval(**parameters)]}))
        with pytest.raises(InputError, match=says):
            load_suite(folder)


@given(st.text(alphabet="ab. \n!", max_size=400), st.integers(2, 60), st.data())
def test_chunks_hold_the_whole_text_in_order(text: str, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    pieces = cut(text, size, overlap)
    assert all(0 < len(piece) <= size for piece in pieces)
    place = 0
    for piece in pieces:
        start = text.find(piece, max(0, place - size))
        assert start >= 0
        place = start + len(piece)
    if not overlap:
        assert "".join("".join(pieces).split()) == "".join(text.split())


@pytest.fixture
def box(tmp_path: Path) -> EvalBox:
    box = EvalBox(tmp_path)
    write_tiny_gguf(box.models / "embedder.gguf", seed=3)
    write_tiny_gguf(box.models / "other.gguf", seed=4)
    box.data["checks"] = [
        {"embedding-similarity": {"model": "embedder", "reference": ["job script echo", "zzz"], "threshold": 0.5}},
        {"embedding-similarity": {"model": "other", "reference": "job script echo"}},
    ]
    box.save()
    generate(box.settings())
    return box


def test_each_embedding_model_is_loaded_once_for_all_and_never_two_at_a_time(box: EvalBox) -> None:
    provider = ScriptedProvider()
    check(box.settings(provider))
    assert provider.opened == ["embedder", "other"]
    assert provider.most == 1
    assert provider.asked.count("zzz") == 1
    records = [one for one in box.records(CHECKS) if one["record"] == "check"]
    assert len(records) == 5
    assert all(one["outcomes"][0]["passed"] and one["outcomes"][0]["score"] > 0.5 for one in records)
    assert {"model embedder", "model other"} <= records[0]["packages"].keys()


def test_another_embedding_model_of_the_same_name_is_asked_again(box: EvalBox) -> None:
    check(box.settings())
    again = ScriptedProvider()
    check(box.settings(again))
    assert again.opened == []
    write_tiny_gguf(box.models / "embedder.gguf", seed=9)
    assert check(box.settings(again)).done == 5
    assert again.opened == ["embedder", "other"]


def test_one_text_without_a_vector_fails_alone(box: EvalBox) -> None:
    box.data["checks"][0]["embedding-similarity"]["reference"] = ["x" * 3000]
    box.save()
    provider = ScriptedProvider()
    check(box.settings(provider))
    outcomes = [one["outcomes"] for one in box.records(CHECKS) if one["record"] == "check"]
    assert all("more than 2000 letters" in first["message"] and second["passed"] for first, second in outcomes)
