"""OpenAI's own client asks for vectors; llama-cpp-python's own are the reference."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from standins.serving import KEY, serving, write_served
from standins.tiny_bert import write_tiny_bert

llama_cpp = pytest.importorskip("llama_cpp", reason="the eval extra is not installed")
openai = pytest.importorskip("openai", reason="the dev extra is not installed")

TEXTS = ["a job", "a job in a stage", "zebra", *(f"text {letter}" for letter in "abcdefghijklmnopqrst")]


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("embedding") / "tiny.gguf"
    return write_tiny_bert(place) if request.param == "encoder" else write_served(place, context=64)


@pytest.fixture(scope="module")
def client(path: Path) -> Iterator[Any]:
    with (
        serving(path, embeddings=True) as server,
        openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0, timeout=60) as client,
    ):
        yield client


def vectors(client: Any, texts: list[str], **more: Any) -> list[list[float]]:
    done = client.embeddings.create(model="tiny", input=texts, **more)
    assert [one.index for one in done.data] == list(range(len(texts)))
    return [one.embedding for one in done.data]


def test_vectors_are_llama_cpps(client: Any, path: Path) -> None:
    mean = llama_cpp.LLAMA_POOLING_TYPE_MEAN
    reference = llama_cpp.Llama(str(path), embedding=True, pooling_type=mean, n_ctx=64, n_threads=1, verbose=False)
    try:
        for text, vector in zip(TEXTS, vectors(client, TEXTS), strict=True):
            # It computes without flash attention, whose keys and values are rounded to f16.
            assert vector == pytest.approx(reference.embed(text, normalize=True), abs=1e-3)
    finally:
        reference.close()


def test_a_vector_has_length_one_and_depends_on_its_text_alone(client: Any) -> None:
    together = vectors(client, TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        assert sum(one * one for one in vector) == pytest.approx(1.0, abs=1e-5)
        (alone,) = vectors(client, [text], encoding_format="float")
        assert alone == pytest.approx(vector, abs=1e-5)
    assert together[0] != pytest.approx(together[2], abs=0.01)


def test_many_clients_get_each_their_own(client: Any) -> None:
    alone = [vectors(client, [text]) for text in TEXTS]
    with ThreadPoolExecutor(12) as pool:
        for got, expected in zip(pool.map(lambda text: vectors(client, [text]), TEXTS), alone, strict=True):
            assert got[0] == pytest.approx(expected[0], abs=1e-5)


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"input": "word " * 100}, "context_length_exceeded"),
        ({"input": ["x", ""]}, "a text is empty"),
        ({"input": []}, "1 to 2048"),
        ({"input": [1, 2]}, "numbers of tokens"),
        ({"input": "x", "dimensions": 3}, "cannot be shortened"),
    ],
)
def test_what_has_no_vector_is_refused(client: Any, asked: dict[str, Any], match: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(**{"model": "tiny", **asked})
    assert match in f"{refused.value.code} {refused.value}"


def test_such_a_server_does_not_write(client: Any) -> None:
    with pytest.raises(openai.InternalServerError, match="does not write"):
        client.completions.create(model="tiny", prompt="x")


def test_a_text_beyond_the_models_positions_is_refused_whatever_the_context(path: Path) -> None:
    with serving(path, embeddings=True, context=256) as server:
        client = openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0, timeout=60)
        with client:
            with pytest.raises(openai.BadRequestError, match="at most 64"):
                client.embeddings.create(model="tiny", input="a " * 100)
            assert vectors(client, TEXTS)
