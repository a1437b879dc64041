"""The forecast's parts: what each must be, whatever the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gpurig.common.errors import InputError
from gpurig.common.gguf import read_gguf
from gpurig.images.memory.architectures import WINDOWS, Window
from gpurig.images.memory.cards import DRIVER_BYTES, parse_card, smallest_class, sold_card
from gpurig.images.memory.forecast import Model, forecast, model_of
from gpurig.images.memory.placement import HOST, place
from gpurig.images.memory.settings import LoadSettings
from gpurig.images.memory.verdict import judge, tags_for_job
from hypothesis import given, settings
from hypothesis import strategies as st
from standins.model_shapes import Shape, published_shapes, write_shape

GIB = 2**30


def model_named(name: str, folder: Path, quantization: str = "Q4_K_M") -> Model:
    return model_of(read_gguf(write_shape(folder / f"{name}.gguf", published_shapes()[name], quantization)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    return {name: model_named(name, folder) for name in published_shapes()}


@pytest.mark.parametrize(
    ("text", "gib", "size"),
    [("8GB", 8 * 0.93, 8), ("24gb", 24 * 0.93, 24), ("11", 11 * 0.93, 11), ("7.5GiB", 7.5, 8), ("8192MiB", 8.0, 8)],
)
def test_a_sold_size_is_the_least_such_a_card_may_have_and_a_free_size_is_exact(
    text: str, gib: float, size: int
) -> None:
    card = parse_card(text)
    assert (card.memory_bytes, card.class_gb) == (round(gib * GIB), size)
    assert card.usable_bytes == card.memory_bytes - DRIVER_BYTES


@pytest.mark.parametrize("text", ["9GB", "8 TB", "-8GB", "0.5GB", "eight", "", "8GB; rm", "1e9GB", "99999999GB"])
def test_another_size_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_card(text)
    assert "GiB" in caught.value.hint or "GB" in caught.value.hint


def test_the_smallest_class_has_room_and_the_one_below_has_not() -> None:
    needed = 7 * GIB
    size = smallest_class(needed)
    assert size == 10
    assert sold_card(8).usable_bytes < needed <= sold_card(10).usable_bytes
    assert smallest_class(10_000 * GIB) is None


def test_the_last_layers_are_on_the_gpu_and_the_output_layer_counts() -> None:
    assert place(4, LoadSettings(gpu_layers=2)).devices == (HOST, HOST, HOST, 0, 0)
    assert place(4, LoadSettings()).devices == (0,) * 5
    assert place(4, LoadSettings(gpu_layers=0)).host_layers == 4
    assert place(5, LoadSettings(gpus=2)).devices == (0, 0, 0, 1, 1, 1)
    assert place(4, LoadSettings(gpus=0)).devices == (HOST,) * 5


def test_a_context_is_shared_out_and_rounded_up_to_256() -> None:
    assert LoadSettings(context=1000).cells == 1024
    assert LoadSettings(context=4096, parallel=3).cells == 1536
    assert LoadSettings(context=4096, parallel=3, unified=True).cells == 4096
    assert LoadSettings(context=100, parallel=16).cells == 256
    assert LoadSettings(context=32768, swa_full=False).window_cells(1024) == 1536
    assert LoadSettings(context=32768).window_cells(1024) == 32768


def test_windows_follow_the_architecture_or_the_files_own_pattern() -> None:
    gemma = WINDOWS["gemma3"].of(1024)
    assert gemma.layers(7, None) == (True,) * 5 + (False, True)
    assert gemma.layers(4, (0, 1, 1, 0)) == (False, True, True, False)
    assert WINDOWS["smallthinker"].of(4096).layers(5, None) == (False, True, True, True, False)
    assert Window().layers(3, 2) == (False,) * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"context": 0},
        {"parallel": 257},
        {"batch": 0},
        {"gpus": 17},
        {"kv": "q9"},
        {"kv": "q8_0", "flash_attention": "off"},
    ],
)
def test_what_llama_cpp_would_refuse_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        LoadSettings(**wrong)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_cache_type_whose_blocks_do_not_divide_a_head_is_refused(tmp_path: Path) -> None:
    shape = published_shapes()["llama-3.2-1b"]
    odd = replace(shape, metadata={**shape.metadata, "attention.key_length": 40, "attention.value_length": 40})
    model = model_of(read_gguf(write_shape(tmp_path / "odd.gguf", odd)))
    with pytest.raises(InputError, match="heads of 40"):
        forecast(model, LoadSettings(kv="q8_0"))


def test_tied_embeddings_take_their_place_on_the_cpu_and_a_copy_on_the_gpu(models: dict[str, Model]) -> None:
    model = models["llama-3.2-1b"]
    (tied,) = [tensor for tensor in model.gguf.tensors if tensor.name == "token_embd.weight"]
    whole, none = forecast(model, LoadSettings()), forecast(model, LoadSettings(gpus=0))
    assert whole.host.weights == tied.size_bytes
    assert whole.gpus[0].weights + whole.host.weights == pytest.approx(none.host.weights + tied.size_bytes, rel=0.001)


def test_a_latent_cache_holds_one_vector_a_token(models: dict[str, Model]) -> None:
    # 27 layers of 576 f16 elements.
    assert forecast(models["deepseek-v2-lite"], LoadSettings()).gpus[0].cache == 27 * 576 * 2 * 4096


def test_a_recurrent_state_does_not_grow_with_the_context(models: dict[str, Model]) -> None:
    short, long = (forecast(models["mamba-2.8b"], LoadSettings(context=size)) for size in (2048, 131072))
    assert short.gpus[0].cache == long.gpus[0].cache > 0
    two = forecast(models["mamba-2.8b"], LoadSettings(parallel=2))
    assert two.gpus[0].cache == 2 * short.gpus[0].cache


settings_of_loads = st.builds(
    LoadSettings,
    context=st.integers(1, 200_000),
    parallel=st.integers(1, 32),
    kv=st.sampled_from(["f16", "q8_0", "q4_0"]),
    batch=st.sampled_from([64, 512, 2048]),
    unified=st.booleans(),
    swa_full=st.booleans(),
    gpus=st.integers(0, 4),
)


@settings(max_examples=150)
@given(load=settings_of_loads, name=st.sampled_from(sorted(published_shapes())), more=st.integers(1, 100_000))
def test_more_context_never_takes_less_and_every_weight_is_somewhere(
    load: LoadSettings, name: str, more: int, models: dict[str, Model]
) -> None:
    model = models[name]
    less, larger = forecast(model, load), forecast(model, load.with_context(load.context + more))
    assert (
        sum(gpu.cache for gpu in less.gpus) + less.host.cache
        <= sum(gpu.cache for gpu in larger.gpus) + larger.host.cache
    )
    stored = sum(tensor.size_bytes or 0 for tensor in model.gguf.tensors)
    assert sum(gpu.weights for gpu in less.gpus) + less.host.weights >= stored


@settings(max_examples=25)
@given(
    name=st.sampled_from(sorted(published_shapes())),
    card=st.sampled_from(["2GB", "4GB", "8GB", "24GB", "80GB"]),
    parallel=st.sampled_from([1, 4]),
)
def test_what_a_verdict_promises_holds(name: str, card: str, parallel: int, models: dict[str, Model]) -> None:
    model, room = models[name], parse_card(card)
    load = LoadSettings(parallel=parallel)
    verdict = judge(model, load, room)
    if verdict.best_forecast is not None:
        assert verdict.best_forecast.gpu_bytes <= room.usable_bytes
        assert verdict.best_forecast.gpu_layers == verdict.gpu_layers
    assert (verdict.answer == "fits") == (verdict.forecast.gpu_bytes <= room.usable_bytes)
    if verdict.largest_context:
        assert forecast(model, load.with_context(verdict.largest_context)).gpu_bytes <= room.usable_bytes
        assert verdict.largest_context <= (model.sizes.context or 131072) * parallel
    (tag,) = tags_for_job(verdict.forecast)
    asked = sold_card(int(tag.removeprefix("vram-").removesuffix("gb")))
    assert judge(model, load, asked).answer == "fits"


def test_several_cards_are_asked_for_with_their_number(models: dict[str, Model]) -> None:
    assert tags_for_job(forecast(models["llama-3.1-8b"], LoadSettings(gpus=2))) == ("vram-4gb", "gpus-2")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", 0),
        ("block_count", 100_000),
        ("embedding_length", 0),
        ("attention.head_count", 2**31),
        ("attention.head_count_kv", [8, 8]),
        ("attention.key_length", 2**31),
        ("expert_used_count", 4.5),
        ("feed_forward_length", "wide"),
    ],
)
def test_sizes_that_no_model_has_are_refused_by_name(key: str, value: object, tmp_path: Path) -> None:
    shape = published_shapes()["llama-3.2-1b"]
    wrong = Shape("x", "llama", {**shape.metadata, key: value}, shape.tensors[:1], shape.vocabulary)
    path = tmp_path / "x.gguf"
    written = replace(wrong, metadata={**wrong.metadata, "block_count": 4})
    if key == "block_count":
        written = replace(wrong, metadata=wrong.metadata)
    write_shape(path, replace(written, tensors=[]))
    with pytest.raises(InputError, match=key.replace(".", r"\.")):
        model_of(read_gguf(path))
