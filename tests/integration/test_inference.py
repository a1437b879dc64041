"""Many requests in one context, held against each of them alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.common.models.resolving import Search
from gpurig.evaljobs.engine import EngineSettings, Request, answered_with_probe
from gpurig.evaljobs.inference import engine as module
from gpurig.evaljobs.inference.context import Context, NoRoomError
from gpurig.evaljobs.inference.engine import InferenceEngine
from gpurig.evaljobs.models import open_model
from gpurig.evaljobs.records import Sampling
from standins.tiny_gguf import write_tiny_gguf
from standins.tiny_shapes import tiny_shapes, write_random

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

CHOICES = (" yes", " no", "x", "a longer one of several tokens")


def engine_of(path: Path, **settings: object) -> InferenceEngine:
    model = open_model(str(path), search=Search.of_folders(), suite_folder=Path())
    return InferenceEngine(model, EngineSettings(context=256, threads=1, **settings))  # type: ignore[arg-type] # any


def requests(count: int, *, seed: int = 3) -> list[Request]:
    """Some with a shared beginning, of different lengths, with choices and samplers."""
    draw = random.Random(seed)
    stems = ["", "build the image and test it: ", "build the image and push it to the registry: "]
    made = []
    for number in range(count):
        sampling = Sampling(max_tokens=draw.randint(1, 12), temperature=draw.choice([0.0, 0.9]), seed=number)
        text = "".join(draw.choice("abcdef \n") for _ in range(draw.randint(1, 40)))
        choices = CHOICES if number % 3 == 0 else ()
        made.append(Request(f"r{number}", draw.choice(stems) + text, sampling, choices=choices))
    return made


@pytest.fixture(scope="module", params=["llama", *tiny_shapes()])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "model.gguf"
    if request.param == "llama":
        return write_tiny_gguf(place)
    return write_random(place, tiny_shapes()[request.param])


@pytest.fixture
def engine(path: Path) -> Iterator[InferenceEngine]:
    engine = engine_of(path, parallel=5)
    yield engine
    engine.close()


def test_what_is_answered_together_is_what_each_request_alone_is_answered(engine: InferenceEngine) -> None:
    asked = requests(24)
    together = {done.id: done for done in engine.run(asked)}
    alone = {done.id: done for done in engine.run(asked, exact=True)}
    assert together.keys() == alone.keys() == {request.id for request in asked}
    assert {done.parallel for done in together.values()} == {5}
    assert {done.parallel for done in alone.values()} == {1}
    # Rounding differs; of two tokens that are nearly equally likely the other may be chosen, seldom.
    assert sum(together[name].text != alone[name].text for name in alone) <= 1
    for name, done in alone.items():
        assert together[name].choices == pytest.approx(done.choices, abs=1e-3)


def test_the_same_requests_together_have_the_same_answers_to_the_byte(engine: InferenceEngine) -> None:
    asked = requests(12)
    one, other = ({done.id: (done.text, done.choices) for done in engine.run(asked)} for _ in range(2))
    assert one == other


def test_an_exact_answer_depends_on_its_request_alone(engine: InferenceEngine) -> None:
    asked = requests(8)
    reference = {done.id: (done.text, done.choices) for done in engine.run(asked, exact=True)}
    for one in asked:
        (done,) = engine.run([one], exact=True)
        assert (done.text, done.choices) == reference[one.id]
    backwards = {done.id: (done.text, done.choices) for done in engine.run(asked[::-1], exact=True)}
    assert backwards == reference


def test_some_of_many_are_tried_alone_as_well(engine: InferenceEngine) -> None:
    done = {one.id: one for one in answered_with_probe(engine, requests(60))}
    assert len(done) == 60
    tried = [one.exact for one in done.values() if one.exact is not None]
    assert len(tried) == 2
    assert all(one.exact is None for one in answered_with_probe(engine, requests(7)))


def test_requests_come_and_go_while_others_are_answered(engine: InferenceEngine) -> None:
    asked = requests(10)
    alone = {one.id: one.text for one in engine.run(asked, exact=True)}
    with engine.session(3, 128) as session:
        for one in asked[:5]:
            session.add(engine.answer(one))
        found = session.step()
        session.cancel("r1")
        session.cancel("nobody")
        for one in asked[5:]:
            session.add(engine.answer(one))
            found += session.step()
        session.cancel("r7")
        while len(session):
            found += session.step()
        assert session.step() == []
    texts = {ended.result.id: ended.result.text for ended in found}
    assert set(texts) >= set(alone) - {"r1", "r7"}
    assert sum(texts[name] != alone[name] for name in texts) <= 1


def test_where_there_is_no_memory_for_all_fewer_are_answered_at_a_time(
    engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def few(*given: object, sequences: int, **sizes: object) -> Context:
        made.append(sequences)
        if sequences > 1:
            raise NoRoomError("not enough memory")
        return Context(*given, sequences=sequences, **sizes)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(module, "Context", few)
    done = list(engine.run(requests(6)))
    assert made == [5, 2, 1]
    assert {one.parallel for one in done} == {1}
    assert len(done) == 6


def test_where_there_is_no_memory_for_one_that_is_said(
    engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> Context:
        raise NoRoomError("failed to allocate")

    monkeypatch.setattr(module, "Context", none)
    with pytest.raises(PrerequisiteError, match=r"cannot make a context of .* failed to allocate"):
        list(engine.run(requests(2)))
