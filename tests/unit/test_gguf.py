from __future__ import annotations

import random
from pathlib import Path

import pytest
from gpurig.common.errors import InputError
from gpurig.common.gguf import Gguf, read_gguf
from hypothesis import given, settings
from hypothesis import strategies as st
from standins.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", chat_template="{{ messages }}")


def read(data: bytes, folder: Path) -> Gguf | None:
    path = folder / "changed.gguf"
    path.write_bytes(data)
    try:
        return read_gguf(path)
    except InputError as error:
        # Which byte is wrong decides the words; that the file is named does not.
        if "changed.gguf" not in error.message or not error.hint:
            raise
        return None


def test_a_header_is_read(model: Path) -> None:
    gguf = read_gguf(model)
    assert gguf.architecture == "llama"
    assert gguf.of_architecture("context_length") == 512
    assert gguf.metadata["tokenizer.chat_template"] == "{{ messages }}"
    assert gguf.metadata["tokenizer.ggml.tokens"][:3] == ("<unk>", "<s>", "</s>")
    assert gguf.metadata["tokenizer.ggml.token_type"][3] == 6
    assert gguf.size_bytes == model.stat().st_size
    by_name = {tensor.name: tensor for tensor in gguf.tensors}
    assert by_name["blk.0.ffn_up.weight"].shape == (32, 64)
    assert by_name["blk.0.ffn_up.weight"].size_bytes == 32 * 64 * 4


def test_a_file_cut_anywhere_is_refused(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    header = read_gguf(model).tensors[0].offset
    for size in [*range(0, header, 97), *range(header, len(data), 9973), len(data) - 1]:
        assert read(data[:size], tmp_path) is None


def test_a_changed_byte_of_the_header_is_read_or_refused_never_a_crash(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    header = read_gguf(model).tensors[0].offset
    chance = random.Random(1)
    refused = 0
    for _ in range(400):
        changed = bytearray(data)
        changed[chance.randrange(header)] = chance.randrange(256)
        refused += read(bytes(changed), tmp_path) is None
    assert 0 < refused < 400


@settings(max_examples=50)
@given(st.binary(max_size=400))
def test_garbage_behind_the_magic_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    assert read(b"GGUF\x03\x00\x00\x00" + data, tmp_path_factory.getbasetemp()) is None
