"""What goes wrong with one request stays with it, and is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gpurig.common.models.resolving import Search
from gpurig.evaljobs.engine import Completion, EngineSettings, Request
from gpurig.evaljobs.inference import engine as module
from gpurig.evaljobs.inference.engine import InferenceEngine
from gpurig.evaljobs.models import open_model
from gpurig.evaljobs.records import Sampling
from standins.model_shapes.blocks import dense
from standins.tiny_gguf import BYTE, CONTROL, UNKNOWN, vocabulary, write_tiny_gguf
from standins.tiny_shapes import tiny_shapes, write_random

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

POISON = "z"
GREEDY = Sampling(max_tokens=6)
HARMLESS = "root ::= [a-y ]+"
PLAIN = [
    Request(f"r{number}", "job script " + "abcdefgh"[number] * (number + 1), GREEDY, grammar=HARMLESS)
    for number in range(8)
]


def loaded(path: Path, *, parallel: int = 3) -> InferenceEngine:
    model = open_model(str(path), search=Search.of_folders(), suite_folder=Path())
    return InferenceEngine(model, EngineSettings(context=256, threads=1, parallel=parallel))


def answers(engine: InferenceEngine, *requests: Request, exact: bool = False) -> dict[str, Completion]:
    return {answer.id: answer for answer in engine.run(requests, exact=exact)}


@pytest.fixture(scope="module", params=["attention", "recurrent"])
def poisoned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceEngine]:
    attention = dense(
        "attention", architecture="llama", context=512,
        width=64, layers=2, heads=4, kv_heads=2, inner=128, vocabulary=len(vocabulary()),
    )  # fmt: skip
    shape = attention if request.param == "attention" else tiny_shapes()["recurrent"]
    engine = loaded(write_random(tmp_path_factory.mktemp("models") / "model.gguf", shape, poison=POISON))
    yield engine
    engine.close()


@pytest.mark.parametrize("exact", [False, True])
def test_a_model_that_computes_no_numbers_is_an_error_that_says_so(poisoned: InferenceEngine, exact: bool) -> None:
    found = answers(poisoned, Request("nan", f"job {POISON}", GREEDY), *PLAIN, exact=exact)
    assert found["nan"].finish == "error"
    assert "no usable probabilities (NaN" in found["nan"].error
    assert found["nan"].fault == "model"
    assert len(found) == 1 + len(PLAIN)


@pytest.mark.parametrize("exact", [False, True])
def test_so_is_one_that_does_it_after_some_tokens_and_the_answer_is_no_stop(
    poisoned: InferenceEngine, exact: bool
) -> None:
    request = Request("nan", "job", Sampling(max_tokens=40), grammar=f'root ::= "ab{POISON}ab"')
    completion = answers(poisoned, request, exact=exact)["nan"]
    assert completion.finish == "error"
    assert "NaN" in completion.error
    assert completion.error.endswith(f' tokens: "ab{POISON}"')
    assert completion.text == ""


@pytest.mark.parametrize("exact", [False, True])
def test_figures_that_are_no_numbers_do_not_spoil_the_requests_that_come_after(
    poisoned: InferenceEngine, exact: bool
) -> None:
    alone = {one.id: answers(poisoned, one, exact=exact)[one.id] for one in PLAIN}
    assert not any(one.error for one in alone.values())
    with poisoned.session(3, 100, exact=exact) as session:
        session.add(poisoned.answer(Request("nan", f"job stage script test build {POISON} {POISON}", GREEDY)))
        found = []
        while len(session):
            found += session.step()
        assert [(one.result.fault, one.spoilt) for one in found] == [("model", True)]
        for one in PLAIN:
            session.add(poisoned.answer(one))
        while len(session):
            found += session.step()
    texts = {one.result.id: (one.result.text, one.result.error) for one in found[1:]}
    assert {name: error for name, (_, error) in texts.items()} == dict.fromkeys(alone, "")
    assert sum(texts[name][0] != alone[name].text for name in alone) <= 1


def test_nor_those_that_are_answered_beside_them(poisoned: InferenceEngine) -> None:
    choices = (" yes", "a longer one")
    plain = [replace(one, choices=choices) for one in PLAIN]
    spoilt = [Request(f"nan{number}", f"{one.prompt} {POISON} x", GREEDY) for number, one in enumerate(PLAIN)]
    mixed = [request for pair in zip(plain, spoilt, strict=True) for request in pair]
    found = answers(poisoned, *mixed)
    assert {name for name, one in found.items() if one.error} == {one.id for one in spoilt}
    alone = answers(poisoned, *plain, exact=True)
    for name, one in alone.items():
        assert found[name].choices == pytest.approx(one.choices, abs=1e-3)
    assert sum(found[name].text != alone[name].text for name in alone) <= 1


def test_what_fails_only_because_it_began_with_a_copy_of_spoilt_cells_is_answered(
    poisoned: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In small pieces, so that cells behind the shared beginning are spoilt and copied long before anybody sees a logit.
    monkeypatch.setattr(module, "_BATCH", 16)
    begin = "job script test build " * 3
    spoilt = Request("nan", f"{begin}{POISON * 40}", GREEDY)
    # In the order of tokens the colon comes after the letters.
    plain = [
        Request(f"p{number}", f"{begin}{':' * 20}{'abc'[number]}", GREEDY, grammar=HARMLESS) for number in range(3)
    ]
    found = answers(poisoned, spoilt, *plain)
    assert {name: one.fault for name, one in found.items()} == {"nan": "model", "p0": "", "p1": "", "p2": ""}


@pytest.fixture(scope="module")
def mute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceEngine]:
    """A model that can write bytes below 97 only: no small letters."""
    pieces = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    pieces += [(f"<0x{byte:02X}>", 0.0, BYTE if byte < 97 else CONTROL) for byte in range(256)]
    engine = loaded(write_tiny_gguf(tmp_path_factory.mktemp("models") / "mute.gguf", vocabulary_=pieces))
    yield engine
    engine.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        ('root ::= "good"', "the grammar allows no token of the model's vocabulary"),
        ('root ::= "12" "good"', 'vocabulary after 2 tokens: "12"'),
        ('root ::= "\\"" "good"', 'vocabulary after 1 token: "\\""'),
    ],
)
def test_a_grammar_that_cannot_be_met_is_an_error_and_no_end(
    mute: InferenceEngine, grammar: str, says: str, temperature: float
) -> None:
    sampling = Sampling(max_tokens=20, temperature=temperature)
    found = answers(mute, Request("bad", "1", sampling, grammar=grammar), Request("good", "2", GREEDY))
    assert found["bad"].finish == "error"
    assert found["bad"].error.endswith(says)
    assert found["bad"].fault == "request"
    assert found["bad"].text == ""
    assert not found["good"].error


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceEngine]:
    engine = loaded(write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf"))
    yield engine
    engine.close()


def test_a_grammar_that_is_met_is_an_end(tiny: InferenceEngine) -> None:
    found = answers(tiny, Request("a", "job", Sampling(max_tokens=20), grammar='root ::= "good"'))["a"]
    assert (found.text, found.finish, found.error) == ("good", "stop", "")


@pytest.mark.parametrize(("tokens", "text"), [(1, "\ufffd"), (2, "\ufffd"), (3, "☃"), (4, "☃\ufffd"), (7, "☃🦊")])
def test_characters_that_are_written_byte_by_byte_are_put_together(
    tiny: InferenceEngine, tokens: int, text: str
) -> None:
    request = Request("a", "job", Sampling(max_tokens=tokens), grammar='root ::= "☃🦊"')
    found = answers(tiny, request)["a"]
    assert (found.text, found.completion_tokens) == (text, tokens)


def test_a_stop_text_of_several_bytes_is_found_across_tokens(tiny: InferenceEngine) -> None:
    request = Request("a", "job", Sampling(max_tokens=20), stop=("🦊",), grammar='root ::= "☃🦊☃"')
    found = answers(tiny, request)["a"]
    assert (found.text, found.finish) == ("☃", "stop")
