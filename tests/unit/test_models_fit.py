"""`gpurig models fit` as its user sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from gpurig.common.command import run_command
from gpurig.common.errors import EXIT_OK, EXIT_PREREQUISITE, EXIT_USAGE
from gpurig.common.gguf import read_gguf
from gpurig.provisioning.facts import Gpu, HostFacts
from gpurig.runner.__main__ import cli
from gpurig.runner.commands.models_fit_view import SCHEMA
from gpurig.runner.fit import own_card
from standins.model_shapes import published_shapes, write_shape
from standins.tiny_gguf import write_tiny_gguf
from standins.tiny_lora import write_lora

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fit")
    for name in published_shapes():
        write_shape(made / f"{name}.gguf", published_shapes()[name])
    return made


def fit(folder: Path, name: str, *more: str) -> int:
    arguments = ["models", "fit", str(folder / f"{name}.gguf"), "--root", str(folder), "--no-exact", *more]
    return run_command(cli, program="gpurig", arguments=arguments)


@pytest.mark.parametrize("name", published_shapes())
@pytest.mark.parametrize("card", ["2GB", "8GB", "80GB"])
def test_the_answer_fits_in_80_columns(name: str, card: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(folder, name, "--vram", card, "--gpus", "2") == EXIT_OK
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    assert re.search(r"^verdict +(fits|does not fit)", shown, re.MULTILINE)
    assert "tags for a job" in shown


def test_an_adapter_counts_where_the_matrices_are_that_it_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_tiny_gguf(tmp_path / "base.gguf", width=64)
    targets = ("token_embd.weight", "blk.0.attn_q.weight", "blk.1.ffn_down.weight", "output.weight")
    lora = write_lora(tmp_path / "lora.gguf", base, rank=32, targets=targets)

    def weights(*more: str) -> tuple[int, int]:
        assert fit(tmp_path, "base", "--vram", "8GB", "--json", *more) == EXIT_OK
        document = json.loads(capsys.readouterr().out)
        assert document["adapters"] == [word for word in more if word.endswith(".gguf")]
        return document["forecast"]["gpus"][0]["weights"], document["forecast"]["host"]["weights"]

    sizes = {tensor.name: tensor.size_bytes or 0 for tensor in read_gguf(lora).tensors}
    embedding = sum(size for name, size in sizes.items() if name.startswith("token_embd"))
    (gpu, host), (more_gpu, more_host) = weights(), weights("--adapter", str(lora))
    assert (more_gpu - gpu, more_host - host) == (sum(sizes.values()) - embedding, embedding)
    assert weights("--adapter", str(lora), "--gpu-layers", "1")[0] - weights("--gpu-layers", "1")[0] == sum(
        size for name, size in sizes.items() if name.startswith("output")
    )
    assert fit(tmp_path, "base", "--vram", "8GB", "--adapter", str(lora)) == EXIT_OK
    assert ", with 1 adapter" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("metadata", "said"),
    [({"general.architecture": "qwen2"}, "is for qwen2 models, this is llama"), ({"adapter.type": None}, "is no LoRA")],
)
def test_an_adapter_that_cannot_be_is_refused(
    metadata: dict[str, str | None], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_tiny_gguf(tmp_path / "base.gguf")
    lora = write_lora(tmp_path / "lora.gguf", base, more=metadata)
    assert fit(tmp_path, "base", "--vram", "8GB", "--adapter", str(lora)) == EXIT_USAGE
    assert said in capsys.readouterr().err


def test_the_answers_for_a_card_name_layers_context_quantization_and_tag(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(folder, "llama-3.1-8b", "--vram", "8GB", "--json") == EXIT_OK
    document = json.loads(capsys.readouterr().out)
    verdict = document["verdict"]
    assert (document["schema"], verdict["answer"], document["tags"]) == (SCHEMA, "fits", ["vram-6gb"])
    assert verdict["best_quantization"]["name"] == "Q6_K"
    assert 16384 < verdict["largest_context"] < 24576
    assert fit(folder, "llama-3.1-8b", "--vram", "4GB", "--json") == EXIT_OK
    partly = json.loads(capsys.readouterr().out)["verdict"]
    assert partly["answer"] == "partly"
    assert 10 < partly["gpu_layers"] < 33
    assert fit(folder, "mixtral-8x7b", "--vram", "2GB", "--context", "131072", "--json") == EXIT_OK
    assert json.loads(capsys.readouterr().out)["verdict"]["answer"] in {"partly", "not"}


def test_the_documentation_names_every_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(folder, "llama-3.1-8b", "--vram", "8GB", "--json") == EXIT_OK
    document = json.loads(capsys.readouterr().out)
    text = DOCUMENT.read_text(encoding="utf-8")
    keys = {*document, *document["verdict"], *document["forecast"], *document["forecast"]["host"]}
    assert sorted(key for key in keys if f"`{key}`" not in text) == []


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--vram", "9GB"), EXIT_USAGE),
        (("--vram", "8GB", "--context", "0"), EXIT_USAGE),
        (("--vram", "8GB", "--kv", "q9"), EXIT_USAGE),
        (("--vram", "8GB", "--parallel", "1000"), EXIT_USAGE),
        (("--vram", "8GB", "--kv", "q8_0", "--flash-attention", "off"), EXIT_USAGE),
    ],
)
def test_bad_input_is_told_in_a_line_and_ends_with_2(
    more: tuple[str, ...], code: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(folder, "llama-3.1-8b", *more) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("name", ["nothing-like-it", "./nothing.gguf", "hf:only/two", "https://"])
def test_a_model_that_is_nowhere_is_bad_input(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["models", "fit", name, "--vram", "8GB", "--root", str(tmp_path)]
    assert run_command(cli, program="gpurig", arguments=arguments) == EXIT_USAGE
    assert "hint: " in capsys.readouterr().err


def test_a_hostile_name_in_a_file_does_nothing_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    shape = replace(published_shapes()["llama-3.2-1b"], architecture="ll\x1b[2Jama\nnote: all is well")
    path = write_shape(tmp_path / "x.gguf", shape)
    arguments = ["models", "fit", str(path), "--vram", "8GB", "--no-exact", "--root", str(tmp_path)]
    assert run_command(cli, program="gpurig", arguments=arguments) == EXIT_OK
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert not re.search("^note: all is well", shown, re.MULTILINE)


def test_llama_cpp_that_is_missing_is_an_error_only_where_it_was_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gpurig.runner.fit.importlib.util.find_spec", lambda _: None)
    arguments = ["models", "fit", str(folder / "llama-3.1-8b.gguf"), "--vram", "8GB", "--root", str(folder)]
    assert run_command(cli, program="gpurig", arguments=arguments) == EXIT_OK
    assert run_command(cli, program="gpurig", arguments=[*arguments, "--exact"]) == EXIT_PREREQUISITE
    assert "gpurig[eval]" in capsys.readouterr().err


def card(name: str, gib: float | None) -> Gpu:
    size = None if gib is None else round(gib * 2**30)
    return Gpu(backend="cuda", uuid=name, name=name, pci_address="0000:01:00.0", memory_bytes=size)


def test_the_smallest_card_of_a_box_decides_because_a_job_may_get_any() -> None:
    chosen, told = own_card(HostFacts(gpus=(card("large", 24), card("small", 8), card("unknown", None))))
    assert chosen is not None
    assert (chosen.label, chosen.memory_bytes, chosen.class_gb) == ("small", 8 * 2**30, 8)
    assert "2 GPUs" in told[0]


def test_a_box_without_a_card_is_told_how_to_name_one() -> None:
    chosen, told = own_card(HostFacts())
    assert chosen is None
    assert "--vram" in told[0]
