"""From a trained model to a quantized GGUF: llama.cpp's own converter, then `llama_model_quantize`."""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
import tarfile
import tempfile
from pathlib import Path

import llama_cpp
from gpurig.common.process import run
from transformers import LlamaForCausalLM

from demo_models.tasks import ANSWER, TASK, VERDICT

# The tree that the pinned llama-cpp-python was built from carries the converter that fits it.
_PACKAGE = f"llama-cpp-python=={llama_cpp.__version__}"
_LIMIT_BYTES = 4_000_000


def write_checkpoint(model: LlamaForCausalLM, tokenizer: bytes, vocabulary: list[str], folder: Path) -> None:
    """The model as Transformers and the converter know it."""
    model.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(tokenizer)
    markers = {str(vocabulary.index(text)): {"content": text, "special": False} for text in (TASK, ANSWER, VERDICT)}
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "add_prefix_space": False,
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "added_tokens_decoder": markers,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def fetch_llama_cpp(folder: Path) -> Path:
    """The llama.cpp tree of llama-cpp-python's sdist; downloaded once into `folder`."""
    found = sorted(folder.glob("llama_cpp_python-*/vendor/llama.cpp/convert_hf_to_gguf.py"))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        _must(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps", "--dest"],
            str(folder),
            _PACKAGE,
        )
        with tarfile.open(next(folder.glob("llama_cpp_python-*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        found = sorted(folder.glob("llama_cpp_python-*/vendor/llama.cpp/convert_hf_to_gguf.py"))
    return found[0].parent


def convert(checkpoint: Path, llama_cpp_tree: Path, target: Path, name: str) -> None:
    """Write `target`, a Q8_0 GGUF.

    Raises:
        RuntimeError: the converter or the quantization failed, or the file is larger than 4 MB.
    """
    with tempfile.TemporaryDirectory() as scratch:
        full = Path(scratch) / "f32.gguf"
        _must(
            [sys.executable, str(llama_cpp_tree / "convert_hf_to_gguf.py"), str(checkpoint), "--outtype", "f32"],
            *("--outfile", str(full), "--model-name", name),
        )
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
        parameters.nthread = 2
        failed = llama_cpp.llama_model_quantize(str(full).encode(), str(target).encode(), ctypes.byref(parameters))
    if failed:
        raise RuntimeError(f"llama_model_quantize failed with {failed}")
    if target.stat().st_size > _LIMIT_BYTES:
        raise RuntimeError(f"{target} has {target.stat().st_size} bytes, more than {_LIMIT_BYTES}")


def write_sums(folder: Path) -> None:
    """SHA256SUMS beside the models, as `sha256sum --check` reads it."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.glob("*.gguf"))]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def _must(argv: list[str], *more: str) -> None:
    done = run([*argv, *more], timeout_s=900)
    if done.code:
        raise RuntimeError(f"{argv[0]} {argv[1]} failed with {done.code}:\n{done.stderr}")
