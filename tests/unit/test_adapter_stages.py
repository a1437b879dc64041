"""Adapters in suites: what they change in keys, records and what is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.evaljobs.engine import Completion, Request
from gpurig.evaljobs.records import AdapterRef, ModelRef, effective_adapters
from gpurig.evaljobs.stages import generate, grade, run_stages
from gpurig.evaljobs.store import read_records
from standins.eval_box import EvalBox
from standins.scripted_engine import ScriptedProvider, by_hash
from standins.tiny_lora import write_lora


@pytest.fixture
def box(tmp_path: Path) -> EvalBox:
    box = EvalBox(tmp_path)
    write_lora(box.models / "style.gguf", box.models / "writer.gguf", seed=1)
    write_lora(box.models / "tone.gguf", box.models / "writer.gguf", seed=2)
    return box


def given(box: EvalBox, adapters: Any, *, to: str = "generator") -> EvalBox:
    box.data[to]["adapters"] = adapters
    box.save()
    return box


def asked(box: EvalBox) -> list[str]:
    provider = ScriptedProvider()
    generate(box.settings(provider))
    return provider.asked


def test_requests_and_records_say_which_adapters_answered_and_how_strongly(box: EvalBox) -> None:
    given(box, ["style", {"model": "models/tone.gguf", "scale": 0.5}])
    given(box, ["tone"], to="grader")
    seen: dict[str, set[tuple[AdapterRef, ...]]] = {}

    def answer(request: Request) -> Completion:
        seen.setdefault("grader" if request.choices else "generator", set()).add(request.adapters)
        return by_hash(request)

    run_stages(box.settings(ScriptedProvider(answer)))
    records = read_records(box.out, box.suite())
    model = records.generations["s0"].model
    assert [(one.name, one.file, one.scale) for one in model.adapters] == [
        ("style", "style.gguf", 1.0),
        ("models/tone.gguf", "tone.gguf", 0.5),
    ]
    assert model.title == "writer with style, models/tone.gguf (0.5)"
    assert seen == {"generator": {model.adapters}, "grader": {records.grades["s0"].model.adapters}}
    assert records.grades["s0"].model.title == "judge with tone"


def test_adapters_and_their_scales_are_in_the_keys_and_what_changes_nothing_is_not(box: EvalBox) -> None:
    everything = [f"s{number}" for number in range(5)]
    assert asked(box) == everything
    assert asked(given(box, ["style"])) == everything
    assert asked(given(box, [{"model": "style", "scale": 0.5}])) == everything
    assert asked(given(box, ["style", "tone"])) == everything
    assert asked(given(box, ["tone", "style"])) == []
    assert asked(given(box, [{"model": "style", "scale": 0}])) == [], "as the model alone"
    assert asked(given(box, ["models/style.gguf"])) == [], "the same file by another name"
    assert read_records(box.out, box.suite()).generations["s0"].model.title == "writer with models/style.gguf"


def test_a_suite_without_adapters_has_the_keys_that_it_had(box: EvalBox) -> None:
    generate(box.settings())
    before = box.out.joinpath("generations.jsonl").read_bytes()
    assert asked(given(box, [])) == []
    assert box.out.joinpath("generations.jsonl").read_bytes() == before
    assert effective_adapters([]) == ()


def test_graders_with_other_adapters_grade_again(box: EvalBox) -> None:
    run_stages(box.settings())
    given(box, ["tone"], to="grader")
    assert generate(box.settings()).done == 0
    assert grade(box.settings()).done == 5


def test_generators_that_differ_in_adapters_share_the_model_in_memory(box: EvalBox) -> None:
    spec = box.data.pop("generator")
    box.data["generators"] = {
        "plain": spec,
        "styled": {**spec, "adapters": ["style"]},
        "both": {**spec, "adapters": ["tone", {"model": "style", "scale": 0.5}]},
    }
    box.data.pop("grader")
    box.save()
    provider = ScriptedProvider()
    loaded: list[list[str]] = []
    opened = provider.open

    def noted(model: Any, settings: Any) -> Any:
        loaded.append([adapter.ref.name for adapter in model.adapters])
        return opened(model, settings)

    provider.open = noted  # type: ignore[method-assign] # what is loaded is all that is asked
    generate(box.settings(provider))
    assert loaded == [["style", "tone"]]
    assert len(provider.asked) == 15
    titles = {
        name.partition("@")[2]: one.model.title for name, one in read_records(box.out, box.suite()).generations.items()
    }
    assert titles == {
        "plain": "writer",
        "styled": "writer with style",
        "both": "writer with tone, style (0.5)",
    }


@pytest.mark.parametrize(
    ("adapters", "kind", "said"),
    [
        (["judge"], InputError, "is no LoRA adapter, but a model"),
        (["style", "models/style.gguf"], InputError, "models/style.gguf is the same file as style"),
        (["nobody"], PrerequisiteError, 'no model "nobody"'),
        (["./none.gguf"], InputError, "there is no model file"),
        ([{"model": "style", "scale": "much"}], InputError, r"suite.yaml:\d+: generator.adapters\[0\].scale"),
        ([{"scale": 1.0}], InputError, r"suite.yaml:\d+: generator.adapters\[0\].model"),
        ("style", InputError, r"suite.yaml:\d+: generator.adapters"),
    ],
)
def test_wrong_adapters_are_told_before_anything_is_loaded(
    box: EvalBox, adapters: Any, kind: type[Exception], said: str
) -> None:
    provider = ScriptedProvider()
    with pytest.raises(kind, match=said):
        generate(given(box, adapters).settings(provider))
    assert provider.opened == []


def test_that_the_graders_adapter_is_missing_is_said_before_anything_is_generated(box: EvalBox) -> None:
    provider = ScriptedProvider()
    with pytest.raises(PrerequisiteError, match='no model "nobody"'):
        run_stages(given(box, ["nobody"], to="grader").settings(provider))
    assert provider.asked == []


def test_models_with_different_adapters_are_different_models() -> None:
    def ref(**scales: float) -> ModelRef:
        adapters = tuple(AdapterRef(name=n, file=n, sha256=n, size_bytes=1, scale=s) for n, s in scales.items())
        return ModelRef(name="m", file="m", sha256="0", size_bytes=1, adapters=adapters)

    assert ref(a=1, b=0).identity == ref(a=1).identity != ref(a=2).identity
    assert ref(a=1, b=2).identity == ref(b=2, a=1).identity
    assert ref(a=1.5).title == "m with a (1.5)"
