"""What is computed for log-likelihoods: every continuation once, and nothing twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from gpurig.evaljobs.inference.likelihood import (
    BranchedScores,
    LongScore,
    Piece,
    Scored,
    ScoreRequest,
    gathered,
    normalizers,
    plan_scores,
)
from gpurig.evaljobs.llama_vocabulary import ModelFault, PromptTooLong
from hypothesis import given
from hypothesis import strategies as st

VOCABULARY = 5
LIMIT, LONGEST = 24, 4

tokens = st.lists(st.integers(0, VOCABULARY - 1), max_size=9).map(tuple)
contexts = st.lists(st.integers(0, 1), max_size=20).map(tuple)


@st.composite
def requests(draw: st.DrawFn) -> list[ScoreRequest]:
    return [
        ScoreRequest(f"r{number}", draw(contexts), tuple(draw(st.lists(tokens, max_size=4))))
        for number in range(draw(st.integers(0, 6)))
    ]


def logits_after(before: Sequence[int]) -> np.ndarray:
    """A model that is a function of all tokens before."""
    return np.random.default_rng([len(before), *before]).normal(0, 2, VOCABULARY).astype(np.float32)


def expected(context: Sequence[int], continuation: Sequence[int]) -> tuple[list[float], bool]:
    values, greedy = [], True
    for place, token in enumerate(continuation):
        row = logits_after([*context, *continuation[:place]]).astype(np.float64)
        values.append(float(row[token] - np.log(np.exp(row).sum())))
        greedy = greedy and int(row.argmax()) == token
    return values, greedy


def pieces(tasks: Sequence[BranchedScores | LongScore], *, chunk: int = 3) -> Iterator[Piece]:
    """What the session would do, token by token."""
    for task in tasks:
        prompt = task.work.prompt
        wanted = range(len(prompt) - task.work.logits, len(prompt))
        for some in itertools.batched(wanted, chunk) if hasattr(itertools, "batched") else [wanted]:
            task.prompted(some[0], np.stack([logits_after(prompt[: place + 1]) for place in some]))
        for number, branch in enumerate(task.work.branches):
            whole = [*prompt[: branch.start], *branch.tokens]
            rows = [logits_after(whole[: branch.start + place + 1]) for place in range(len(branch.tokens))]
            task.scored(number, np.stack(rows))
        assert task.done
        yield task.result(1)


def answers(asked: Sequence[ScoreRequest], *, alone: bool = False) -> dict[str, Scored]:
    plan = plan_scores(asked, limit=LIMIT, longest=LONGEST, vocabulary=VOCABULARY, alone=alone)
    found = list(gathered(asked, plan, pieces(plan.tasks)))
    assert sorted(one.id for one in found) == sorted(one.id for one in asked), "each is answered once"
    return {one.id: one for one in found}


@given(requests(), st.booleans())
def test_every_continuation_has_the_probabilities_that_it_has_alone(asked: list[ScoreRequest], alone: bool) -> None:
    found = answers(asked, alone=alone)
    for request in asked:
        fed = len(request.context) + max((len(one) for one in request.continuations), default=0) - 1
        if not request.context or fed > LIMIT:
            assert found[request.id].error
            assert found[request.id].fault == ("too-long" if request.context else "request")
            continue
        assert not found[request.id].error
        for continuation, likelihood in zip(request.continuations, found[request.id].continuations, strict=True):
            values, greedy = expected(request.context, continuation)
            assert likelihood.logprobs == pytest.approx(values, abs=1e-5)
            assert likelihood.greedy == greedy
            assert likelihood.total == pytest.approx(sum(values), abs=1e-4)


@given(requests())
def test_a_context_is_computed_once_for_all_that_follow_it_and_no_fed_token_twice(asked: list[ScoreRequest]) -> None:
    tasks = plan_scores(asked, limit=LIMIT, longest=LONGEST, vocabulary=VOCABULARY).tasks
    branched = [task for task in tasks if isinstance(task, BranchedScores)]
    assert len({task.work.prompt for task in branched}) == len(branched)
    for task in branched:
        fed = [branch.tokens for branch in task.work.branches]
        for one, other in itertools.permutations(fed, 2):
            assert other[: len(one)] != one, "what is the beginning of another rides on it"


@given(requests())
def test_alone_what_is_computed_for_a_request_does_not_depend_on_the_others(asked: list[ScoreRequest]) -> None:
    def works(some: Sequence[ScoreRequest], of: ScoreRequest) -> list[object]:
        plan = plan_scores(some, limit=LIMIT, longest=LONGEST, vocabulary=VOCABULARY, alone=True)
        mine = [task.work for task in plan.tasks if task.places[0][0] == of.id]
        return [(work.prompt, work.branches, work.logits) for work in mine]

    for request in asked:
        assert works(asked, request) == works([request], request)


def test_what_no_number_can_be_made_of_fails_the_request_and_no_other() -> None:
    asked = [ScoreRequest("a", (1,), ((2, 3), (4,))), ScoreRequest("b", (2,), ((1,),)), ScoreRequest("c", (2,), ())]
    plan = plan_scores(asked, limit=LIMIT, longest=LONGEST, vocabulary=VOCABULARY)

    def broken() -> Iterator[Piece]:
        for task, piece in zip(plan.tasks, pieces(plan.tasks), strict=True):
            yield task.failed(ModelFault("no numbers")) if task.places[0][0] == "a" else piece

    found = {one.id: one for one in gathered(asked, plan, broken())}
    assert (found["a"].error, found["a"].fault, found["a"].continuations) == ("no numbers", "model", ())
    assert found["b"].continuations[0].total < 0
    assert found["c"].continuations == ()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_without_a_finite_largest_logit_is_the_models_fault(bad: float) -> None:
    rows = np.zeros((2, 4), dtype=np.float32)
    rows[1, 2] = bad
    with pytest.raises(ModelFault):
        normalizers(rows)


def test_very_large_and_impossible_logits_overflow_nothing() -> None:
    rows = np.array([[1e30, 0, -np.inf], [-1e30, -1e30, -1e30]], dtype=np.float32)
    assert normalizers(rows) == pytest.approx([float(np.float32(1e30)), float(np.float32(-1e30))])


def test_two_requests_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="one id"):
        plan_scores([ScoreRequest("a", (1,), ())] * 2, limit=9, longest=9, vocabulary=9)


def test_too_long_is_said_with_both_lengths() -> None:
    plan = plan_scores([ScoreRequest("a", (1,) * 5, ((1,) * 5,))], limit=8, longest=9, vocabulary=9)
    assert isinstance(plan.refused["a"], PromptTooLong)
    assert str(plan.refused["a"]) == "the context and its continuation have 10 tokens, the model's context 8"


@pytest.mark.parametrize("token", [-1, 9, 1_000_000])
@pytest.mark.parametrize("place", ["context", "continuation"])
def test_a_token_that_the_model_does_not_have_fails_its_request_alone(token: int, place: str) -> None:
    bad = ScoreRequest("bad", (1, token), ((2,),)) if place == "context" else ScoreRequest("bad", (1,), ((2, token),))
    plan = plan_scores([bad, ScoreRequest("good", (1,), ((2,),))], limit=9, longest=9, vocabulary=9)
    assert str(plan.refused["bad"]) == "a token is none of the model's, which has 0 to 8"
    assert plan.refused.keys() == {"bad"}
    assert [task.places for task in plan.tasks] == [(("good", 0),)]
