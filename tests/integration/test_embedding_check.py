"""Embedding checks with llama.cpp: the vectors are the model's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpurig.evaljobs.engine import EngineSettings
from gpurig.evaljobs.models import open_model
from gpurig.evaljobs.stages import check, generate
from gpurig.evaljobs.store import CHECKS
from standins.eval_box import EvalBox
from standins.tiny_bert import write_tiny_bert

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")


def test_the_score_is_the_cosine_of_the_model_s_own_vectors(tmp_path: Path) -> None:
    from gpurig.evaljobs.llama import LlamaProvider

    box = EvalBox(tmp_path)
    write_tiny_bert(box.models / "bert.gguf")
    (tmp_path / "docs").mkdir()
    for letter in "abc":
        (tmp_path / "docs" / f"{letter}.md").write_text(f"{letter} {letter} {letter}\n")
    (tmp_path / "docs" / "long.md").write_text("z " * 300)
    box.data["checks"] = [
        {"embedding-similarity": {"model": "bert", "reference": "a b c"}},
        {"retrieval": {"model": "bert", "folder": "docs", "relevant": "b.md", "k": 1}},
    ]
    box.data["samples"] = [{"id": "one", "input": "b b b"}, {"id": "two", "input": "c c c"}]
    box.save()
    generate(box.settings())
    provider = LlamaProvider()
    check(box.settings(provider, threads=1))
    outcomes = {one["sample"]: one["outcomes"] for one in box.records(CHECKS) if one["record"] == "check"}
    generated = {one["sample"]: one["output"] for one in box.records("generations.jsonl") if one["record"] != "run"}

    model = open_model("bert", search=box.settings().search, suite_folder=tmp_path)
    with provider.open_embedder(model, EngineSettings(64, 1)) as embedder:
        for name, output in generated.items():
            found, wanted = (embedder.embed([text])[0].vector for text in (output.strip(), "a b c"))
            assert outcomes[name][0]["score"] == pytest.approx(max(0.0, float(found @ wanted)), abs=1e-4)
    # The question that is a file's own text finds it.
    assert outcomes["one"][1]["figures"]["hit@1"] == 1.0
    assert outcomes["two"][1]["figures"] | {"mrr": 0.0} == {"hit@1": 0.0, "mrr": 0.0, "ndcg@1": 0.0, "recall@1": 0.0}
