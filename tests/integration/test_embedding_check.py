"""Embedding checks with llama.cpp: the vectors are the model's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpurig.evaljobs.engine import Completion, EngineSettings, Request
from gpurig.evaljobs.models import open_model
from gpurig.evaljobs.stages import check, generate
from gpurig.evaljobs.store import CHECKS
from standins.eval_box import EvalBox
from standins.minilm import write_minilm
from standins.scripted_engine import ScriptedProvider
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


def test_a_real_model_finds_what_means_the_same(tmp_path: Path) -> None:
    from gpurig.evaljobs.llama import LlamaProvider

    box = EvalBox(tmp_path)
    write_minilm(box.models / "minilm.gguf")
    (tmp_path / "docs").mkdir()
    for name, text in {
        "cache": "Dependencies are kept between pipelines in a cache, by a key.",
        "artifacts": "Files that a job made are uploaded and handed to later stages as artifacts.",
        "bread": "Bread needs flour, water, salt and an oven.",
    }.items():
        (tmp_path / "docs" / f"{name}.md").write_text(text)
    similarity = {"model": "minilm", "threshold": 0.5}
    box.data["checks"] = [{"retrieval": {"model": "minilm", "folder": "docs", "k": 1, "threshold": 1.0}}]
    box.data["samples"] = [
        {
            "id": "same",
            "input": "How do I keep downloaded packages from one run to the next?",
            "vars": {"relevant": "cache.md"},
            "checks": [{"embedding-similarity": {**similarity, "reference": "A CI job that runs the shell's echo."}}],
        },
        {
            "id": "other",
            "input": "How do I bake a loaf?",
            "vars": {"relevant": "bread.md"},
            "checks": [{"embedding-similarity": {**similarity, "reference": "The cat sleeps on the sofa."}}],
        },
    ]
    box.save()
    generate(box.settings(ScriptedProvider(answer=_echoes)))
    check(box.settings(LlamaProvider(), threads=1))
    found = {one["sample"]: one["outcomes"] for one in box.records(CHECKS) if one["record"] == "check"}
    assert all(outcomes[0]["passed"] for outcomes in found.values())
    assert found["same"][1]["passed"]
    assert found["same"][1]["score"] > 0.5
    assert found["other"][1]["score"] < 0.3


def _echoes(request: Request) -> Completion:
    return Completion(request.id, "This is a CI job which calls echo in a shell.", "stop")
