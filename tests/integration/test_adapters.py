"""LoRA adapters by request, held against models with the same weights merged in."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpurig.common.errors import InputError
from gpurig.common.gguf import read_gguf
from gpurig.common.models.resolving import Search
from gpurig.evaljobs.adapters import open_adapter, with_adapters
from gpurig.evaljobs.engine import Completion, EngineSettings, Request
from gpurig.evaljobs.inference.engine import InferenceEngine
from gpurig.evaljobs.llama import LlamaProvider
from gpurig.evaljobs.models import AdapterFile, ModelFile, open_model
from gpurig.evaljobs.records import AdapterRef, Sampling
from gpurig.images.memory.forecast import forecast
from gpurig.images.memory.forecast import model_of as model_of_header
from gpurig.images.memory.settings import LoadSettings
from standins.llama_words import llama_log
from standins.tiny_gguf import write_tiny_gguf
from standins.tiny_lora import TARGETS, write_lora, write_merged
from standins.tiny_shapes import tiny_shapes, write_random

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

CHOICES = (" yes", " no", "a longer one of several tokens")
NAMES = ("one", "other", "third")


def model_of(path: Path) -> ModelFile:
    return open_model(str(path), search=Search.of_folders(), suite_folder=Path())


def adapter_of(path: Path, scale: float = 1.0) -> AdapterFile:
    return open_adapter(str(path), scale, search=Search.of_folders(), suite_folder=Path())


def engine_of(model: ModelFile, *, parallel: int | None = 6) -> InferenceEngine:
    return InferenceEngine(model, EngineSettings(context=256, threads=1, parallel=parallel))


def answers(path: Path, asked: list[Request], *, exact: bool = True) -> dict[str, Completion]:
    engine = engine_of(model_of(path))
    try:
        return {done.id: done for done in engine.run(asked, exact=exact)}
    finally:
        engine.close()


def requests(count: int, adapters: tuple[AdapterRef, ...] = (), *, seed: int = 5) -> list[Request]:
    """Greedy, with shared beginnings; some with choices."""
    draw = random.Random(seed)
    stems = ["", "build the image and push it to the registry: "]
    made = []
    for number in range(count):
        text = draw.choice(stems) + "".join(draw.choice("abcdef \n") for _ in range(draw.randint(1, 30)))
        sampling = Sampling(max_tokens=draw.randint(4, 14))
        choices = CHOICES if number % 3 == 0 else ()
        made.append(Request(f"r{number}", text, sampling, choices=choices, adapters=adapters))
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("adapters") / "base.gguf", sharpness=12.0)


@pytest.fixture(scope="module")
def loras(base: Path) -> dict[str, Path]:
    everything = (*TARGETS, "token_embd.weight", "output.weight")
    made = {
        "one": write_lora(base.with_name("one.gguf"), base, seed=1),
        "other": write_lora(base.with_name("other.gguf"), base, seed=2, rank=2, alpha=None, targets=everything),
        "third": write_lora(base.with_name("third.gguf"), base, seed=3, rank=8, alpha=4.0),
    }
    assert set(made) == set(NAMES)
    return made


@pytest.fixture(scope="module")
def engine(base: Path, loras: dict[str, Path]) -> Iterator[InferenceEngine]:
    engine = engine_of(with_adapters(model_of(base), [adapter_of(path) for path in loras.values()]))
    yield engine
    engine.close()


def wanted(loras: dict[str, Path], **scales: float) -> tuple[AdapterRef, ...]:
    return tuple(adapter_of(loras[name], scale).ref for name, scale in scales.items())


@pytest.mark.parametrize(
    "scales",
    [{"one": 1.0}, {"one": -0.5}, {"other": 1.0}, {"other": 2.0}, {"third": 0.7}, {"one": 1.0, "other": 0.5}],
    ids=str,
)
def test_an_adapter_answers_as_the_model_with_its_weights_merged_in(
    engine: InferenceEngine, base: Path, loras: dict[str, Path], scales: dict[str, float], tmp_path: Path
) -> None:
    merged = write_merged(tmp_path / "merged.gguf", base, {loras[name]: scale for name, scale in scales.items()})
    asked = requests(9, wanted(loras, **scales))
    found = {done.id: done for done in engine.run(asked, exact=True)}
    expected = answers(merged, requests(9))
    plain = answers(base, requests(9))
    assert {name: done.text for name, done in found.items()} == {name: done.text for name, done in expected.items()}
    assert [found[name].text != plain[name].text for name in found].count(True) >= 5, "the adapter changes nothing"
    for name, done in found.items():
        assert done.choices == pytest.approx(expected[name].choices, rel=1e-5, abs=2e-3)


def test_a_batch_of_the_model_alone_and_with_adapters_answers_each_as_it_is_answered_alone(
    engine: InferenceEngine, loras: dict[str, Path]
) -> None:
    sets = [(), wanted(loras, one=1.0), wanted(loras, other=1.0), wanted(loras, one=0.5), wanted(loras, one=1, third=1)]
    asked = [
        dataclasses.replace(one, id=f"{one.id}-{number}", adapters=adapters)
        for one in requests(8)
        for number, adapters in enumerate(sets)
    ]
    random.Random(1).shuffle(asked)
    together = {done.id: done for done in engine.run(asked)}
    alone = {done.id: done for one in asked for done in engine.run([one], exact=True)}
    assert together.keys() == alone.keys()
    assert {done.parallel for done in together.values()} == {6}
    assert sum(together[name].text != alone[name].text for name in alone) <= 1
    for name, done in alone.items():
        assert together[name].choices == pytest.approx(done.choices, abs=1e-3)
    texts = [[alone[f"r{number}-{which}"].text for which in range(len(sets))] for number in range(8)]
    assert sum(len(set(row)) for row in texts) > 4 * 8 * 0.8, "the adapters do not differ"
    again = {done.id: (done.text, done.choices) for done in engine.run(asked)}
    assert again == {name: (done.text, done.choices) for name, done in together.items()}


def test_an_adapter_at_scale_0_is_the_model_alone_and_the_order_of_adapters_means_nothing(
    engine: InferenceEngine, loras: dict[str, Path]
) -> None:
    def run(adapters: tuple[AdapterRef, ...]) -> list[tuple[str, dict[str, float]]]:
        return [(done.text, dict(done.choices)) for done in engine.run(requests(5, adapters), exact=True)]

    assert run(wanted(loras, one=0.0)) == run(())
    assert run(wanted(loras, one=1.0, other=0.0)) == run(wanted(loras, one=1.0)) != run(())
    assert run(wanted(loras, one=1.0, other=0.5)) == run(wanted(loras, other=0.5, one=1.0))


def test_an_adapter_that_was_not_loaded_is_an_error_of_its_request_alone(
    engine: InferenceEngine, loras: dict[str, Path]
) -> None:
    stranger = AdapterRef(name="stranger", file="stranger.gguf", sha256="0" * 64, size_bytes=1)
    asked = [*requests(1), dataclasses.replace(requests(1)[0], id="lost", adapters=(stranger,))]
    found = {done.id: done for done in engine.run(asked)}
    assert (found["lost"].finish, found["lost"].error) == ("error", "the adapter stranger is not loaded")
    assert found["r0"].finish != "error"


@pytest.mark.parametrize("shape", tiny_shapes())
def test_every_kind_of_model_takes_an_adapter(shape: str, tmp_path: Path) -> None:
    base = write_random(tmp_path / "base.gguf", tiny_shapes()[shape])
    recurrent = ("blk.0.ssm_in.weight", "blk.1.ssm_out.weight")
    targets = {"recurrent": recurrent, "hybrid": ("blk.0.ssm_in.weight", "blk.1.attn_v.weight")}.get(shape, TARGETS)
    lora = write_lora(tmp_path / "lora.gguf", base, targets=targets)
    merged = answers(write_merged(tmp_path / "merged.gguf", base, {lora: 1.0}), requests(6))
    engine = engine_of(with_adapters(model_of(base), [adapter_of(lora)]))
    try:
        found = {done.id: done for done in engine.run(requests(6, (adapter_of(lora).ref,)))}
    finally:
        engine.close()
    assert sum(found[name].text != done.text for name, done in merged.items()) <= 1
    for name, done in merged.items():
        assert found[name].choices == pytest.approx(done.choices, abs=5e-3)


def test_a_mixture_of_experts_takes_an_adapter_of_its_experts(tmp_path: Path) -> None:
    base = write_tiny_gguf(tmp_path / "base.gguf", experts=4)
    lora = write_lora(tmp_path / "lora.gguf", base, targets=("blk.0.ffn_up_exps.weight", "blk.1.attn_k.weight"))
    merged = answers(write_merged(tmp_path / "merged.gguf", base, {lora: 1.0}), requests(6))
    engine = engine_of(with_adapters(model_of(base), [adapter_of(lora)]))
    try:
        found = {done.id: done for done in engine.run(requests(6, (adapter_of(lora).ref,)), exact=True)}
    finally:
        engine.close()
    for name, done in merged.items():
        assert found[name].choices == pytest.approx(done.choices, abs=5e-3)


def test_a_wrong_adapter_is_refused_with_one_line_before_anything_is_loaded(base: Path, tmp_path: Path) -> None:
    model = model_of(base)
    wide = write_tiny_gguf(tmp_path / "wide.gguf", width=64)
    deep = write_tiny_gguf(tmp_path / "deep.gguf")
    cases: list[tuple[Path, str]] = [
        (write_lora(tmp_path / "a.gguf", wide), "does not fit the model: blk.0.* has another shape"),
        (
            write_lora(tmp_path / "b.gguf", base, more={"general.architecture": "qwen2"}),
            "it is for qwen2 models, this is llama",
        ),
        (write_lora(tmp_path / "c.gguf", base, more={"general.type": None}), "is no LoRA adapter, but a model"),
        (
            write_lora(tmp_path / "d.gguf", base, more={"adapter.type": "control"}),
            "no LoRA adapter, but one of type 'control'",
        ),
        (write_lora(tmp_path / "e.gguf", base, more={"adapter.lora.alpha": 16}), "damaged: adapter.lora.alpha is 16"),
        (
            write_lora(tmp_path / "f.gguf", base, more={"adapter.alora.invocation_tokens": [3, 4]}),
            "is an activated LoRA",
        ),
        (write_lora(tmp_path / "g.gguf", base, targets=()), "it holds no LoRA tensors"),
        (deep, "is no LoRA adapter, but a model"),
    ]
    for path, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            with_adapters(model, [adapter_of(path)])
        assert "\n" not in caught.value.message
    one = adapter_of(write_lora(tmp_path / "h.gguf", base))
    with pytest.raises(InputError, match="is the same file as"):
        with_adapters(model, [one, one])


def test_a_forecast_counts_what_llama_cpp_allocates_for_an_adapter(base: Path, loras: dict[str, Path]) -> None:
    import llama_cpp

    model = llama_cpp.llama_model_load_from_file(str(base).encode(), llama_cpp.llama_model_default_params())
    with llama_log() as lines:
        assert llama_cpp.llama_adapter_lora_init(model, str(loras["other"]).encode())
    llama_cpp.llama_model_free(model)
    told = re.findall(r"LoRA buffer size = +([0-9.]+) MiB", "".join(lines))
    plain, adapted = (
        forecast(model_of_header(read_gguf(base), adapters), LoadSettings(gpus=0, gpu_layers=0)).host.weights
        for adapters in ([], [read_gguf(loras["other"])])
    )
    assert adapted - plain == pytest.approx(sum(map(float, told)) * 2**20, abs=0.01 * 2**20)
    assert adapted > plain


def test_what_llama_cpp_refuses_is_told_by_the_trial_load(base: Path, tmp_path: Path) -> None:
    """Behind the back of our own checks."""
    wide = write_lora(tmp_path / "wide.gguf", write_tiny_gguf(tmp_path / "w.gguf", width=64))
    crash = write_lora(tmp_path / "crash.gguf", base, more={"adapter.lora.alpha": 16})
    model = model_of(base)
    ref = AdapterRef(name="x", file="x.gguf", sha256="1", size_bytes=1)
    for path, message in ((wide, "cannot load .*wide.gguf: .*incorrect shape"), (crash, "dies of .*crash.gguf")):
        file = AdapterFile(ref, path, model.gguf)
        with (
            pytest.raises(InputError, match=message),
            LlamaProvider().open(dataclasses.replace(model, adapters=(file,)), EngineSettings(256, 1)),
        ):
            pass
