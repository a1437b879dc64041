from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from gpurig.common import gguf_file_types
from gpurig.common.errors import InputError
from gpurig.common.process import Finished
from gpurig.runner import quantizing
from gpurig.runner.commands.models_quantize import quantize
from gpurig.runner.quantizing import choose_source
from standins.tiny_gguf import gguf_bytes

np = pytest.importorskip("numpy", reason="the eval extra is not installed")

_NUMBERS = {name: number for number, name in gguf_file_types.FILE_TYPES.items()}


def model(folder: Path, name: str, kind: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.gguf"
    metadata = {"general.architecture": "llama", "general.file_type": _NUMBERS[kind]}
    path.write_bytes(gguf_bytes(metadata, {"token_embd.weight": np.ones((2, 32), np.float32)}))
    return path


def nobody(names: Sequence[str]) -> int:
    raise AssertionError(names)


def test_a_name_is_looked_for_in_the_folders_in_order(tmp_path: Path) -> None:
    first, second = model(tmp_path / "a", "m", "F16"), model(tmp_path / "b", "m", "F16")
    assert choose_source("m", [tmp_path / "a", tmp_path / "b"], nobody) == first
    assert choose_source("m", [tmp_path / "none", tmp_path / "b"], nobody) == second


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = model(tmp_path, "m", "Q8_0")
    assert choose_source(str(path), [], None) == path


@pytest.mark.parametrize(("given", "said"), [("m", 'no model "m"'), ("./m", "no file"), ("m.gguf", "no file m.gguf")])
def test_what_is_not_there_is_told(tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        choose_source(given, [tmp_path], None)


def test_without_a_name_the_only_model_that_is_not_quantized_is_taken(tmp_path: Path) -> None:
    path = model(tmp_path, "m-bf16", "BF16")
    model(tmp_path, "m-Q8_0", "Q8_0")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    assert choose_source(None, [tmp_path], nobody) == path


def test_without_a_name_and_with_several_the_user_chooses(tmp_path: Path) -> None:
    paths = [model(tmp_path, "a-f16", "F16"), model(tmp_path, "b-f32", "F32")]
    asked: list[Sequence[str]] = []

    def second(names: Sequence[str]) -> int:
        asked.append(names)
        return 1

    assert choose_source(None, [tmp_path], second) == paths[1]
    assert asked == [["a-f16", "b-f32"]]
    with pytest.raises(InputError) as caught:
        choose_source(None, [tmp_path], None)
    assert caught.value.details == ("a-f16", "b-f32")


def test_without_a_name_and_without_a_model_it_says_where_it_looked(tmp_path: Path) -> None:
    model(tmp_path, "m-Q8_0", "Q8_0")
    with pytest.raises(InputError, match="no model in F16, BF16 or F32") as caught:
        choose_source(None, [tmp_path], nobody)
    assert str(tmp_path) in caught.value.message


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The programs that would have been started; each fails its gate."""
    words: list[list[str]] = []

    def remember(argv: Sequence[str], **_: object) -> Finished:
        words.append(list(argv))
        return Finished(tuple(argv), 3, "", "")

    monkeypatch.setattr(quantizing, "run", remember)
    return words


def test_the_box_hands_everything_to_the_jobs_program_and_keeps_its_exit_code(
    tmp_path: Path, started: list[list[str]]
) -> None:
    source = model(tmp_path, "m-f16", "F16")
    given = ["m-f16", "--to", "Q8_0,Q4_0", "--dir", str(tmp_path), "--max-kld", "0.1", "--no-container"]
    done = CliRunner().invoke(quantize, given)
    assert done.exit_code == 3
    wanted = ["quantize", str(source), "--to", "Q8_0,Q4_0", "--context", "512", "--max-kld", "0.1"]
    assert started == [[sys.executable, "-m", "gpurig.evaljobs", *wanted, "--out", str(tmp_path)]]


def test_an_unknown_type_is_refused_before_anything_is_looked_for(tmp_path: Path, started: list[list[str]]) -> None:
    done = CliRunner().invoke(quantize, ["m", "--to", "Q4_Z", "--dir", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert "'Q4_Z'" in done.exception.message
    assert started == []
