"""What lies in a folder of models is told without loading or hashing it."""

from __future__ import annotations

import json
from pathlib import Path

import llama_cpp
import pytest
from gpurig.common.command import run_command
from gpurig.common.gguf import read_gguf
from gpurig.common.gguf_file_types import FILE_TYPES, quantization, trained_context
from gpurig.common.models.installed import installed_models
from gpurig.runner.__main__ import cli
from standins.tiny_gguf import write_tiny_gguf

BUNDLED = Path(__file__).parents[2] / "evaljobs/gpurig/evaljobs/assets/models"


def test_every_file_type_has_the_name_that_llama_cpp_gives_it() -> None:
    theirs = {
        getattr(llama_cpp, name): name.removeprefix("LLAMA_FTYPE_").removeprefix("MOSTLY_").removeprefix("ALL_")
        for name in dir(llama_cpp)
        if name.startswith("LLAMA_FTYPE_")
    }
    assert theirs == {**FILE_TYPES, 1024: "GUESSED"}


def test_a_file_says_its_quantization_and_context() -> None:
    gguf = read_gguf(BUNDLED / "demo-generator.gguf")
    assert (quantization(gguf), trained_context(gguf)) == ("Q8_0", 640)


def test_a_folder_lists_its_models_by_name_and_names_the_damaged_ones(tmp_path: Path) -> None:
    whole = write_tiny_gguf(tmp_path / "b.gguf")
    (tmp_path / "a.gguf").write_bytes(whole.read_bytes()[:5000])
    (tmp_path / ".c.gguf.tmp").write_bytes(b"half")
    (tmp_path / "README").write_text("no model")
    damaged, sound = installed_models(tmp_path)
    assert (damaged.name, damaged.size_bytes) == ("a", 5000)
    assert "damaged" in damaged.problem
    assert (sound.name, sound.context, sound.problem) == ("b", 512, "")


def test_a_folder_that_is_not_there_has_no_models(tmp_path: Path) -> None:
    assert installed_models(tmp_path / "none") == ()


def test_the_list_is_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_gguf(tmp_path / "var/lib/gpurig/models/tiny.gguf")
    assert run_command(cli, program="gpurig", arguments=["models", "list", "--json", "--root", str(tmp_path)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(model["name"], model["context"]) for model in document["installed"]] == [("tiny", 512)]
