"""llama.cpp itself, on models with random weights."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpurig.common.errors import InputError
from gpurig.common.models.resolving import Search
from gpurig.evaljobs.engine import Engine, EngineSettings, Request
from gpurig.evaljobs.grading.verdicts import grading_request, judge
from gpurig.evaljobs.llama import LlamaProvider
from gpurig.evaljobs.models import open_model
from gpurig.evaljobs.records import Sampling
from standins.tiny_gguf import BYTE, CONTROL, UNKNOWN, write_tiny_gguf

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

GREEDY = Sampling(max_tokens=16)


def load(path: Path, context: int = 256, threads: int = 1, *, exact: bool = False):
    return LlamaProvider().open(
        open_model(str(path), search=Search.of_folders(), suite_folder=Path()),
        EngineSettings(context, threads, exact=exact),
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="module", params=[False, True], ids=["together", "exact"])
def model(tiny: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    with load(tiny, exact=request.param) as engine:
        yield engine


def answers(engine: Engine, *requests: Request):
    return {answer.id: answer for answer in engine.run(requests)}


def words(count: int) -> str:
    return " ".join(["stage", "script", "test", "build"][number % 4] for number in range(count))


SAMPLERS = [
    GREEDY,
    Sampling(max_tokens=16, temperature=1.5, seed=7),
    Sampling(max_tokens=16, temperature=0.8, top_k=5, top_p=0.9, min_p=0.1, repeat_penalty=1.3, seed=3),
]


@pytest.mark.parametrize("sampling", SAMPLERS)
def test_an_answer_depends_on_its_request_alone(model: Engine, tiny: Path, sampling: Sampling) -> None:
    requests = [Request(f"{number}", words(number * 7 + 1), sampling) for number in range(6)]
    together = answers(model, *requests)
    backwards = answers(model, *reversed(requests))
    for request in requests:
        with load(tiny) as fresh:
            alone = answers(fresh, request)[request.id]
        assert together[request.id].text == backwards[request.id].text == alone.text
        assert together[request.id].completion_tokens == alone.completion_tokens


def test_the_number_of_threads_does_not_change_an_answer(tiny: Path) -> None:
    request = grading_request("a", words(90), {"good": 1.0, "bad": 0.0})
    found = []
    for threads in (1, 2, 3):
        with load(tiny, threads=threads) as engine:
            found.append(dict(answers(engine, request)["a"].choices))
    assert found[0] == found[1] == found[2]


def test_the_seed_matters_when_sampling_and_not_when_greedy(model: Engine) -> None:
    def texts(temperature: float) -> set[str]:
        sampled = [Sampling(max_tokens=16, temperature=temperature, seed=seed) for seed in range(4)]
        return {answers(model, Request("a", "job", one))["a"].text for one in sampled}

    assert len(texts(2.0)) > 1
    assert len(texts(0.0)) == 1


def test_a_stop_text_ends_an_answer_and_is_not_part_of_it(model: Engine) -> None:
    whole = answers(model, Request("a", "job test", Sampling(max_tokens=30)))["a"].text
    stop = next(whole[at : at + 2] for at in range(5, len(whole)) if whole[at : at + 2].isascii())
    cut = answers(model, Request("a", "job test", Sampling(max_tokens=30), stop=("never", stop)))["a"]
    assert cut.text == whole[: whole.index(stop)]
    assert cut.finish == "stop"


def test_an_answer_ends_where_the_context_is_full(tiny: Path) -> None:
    with load(tiny, context=64) as engine:
        answer = answers(engine, Request("a", words(40), Sampling(max_tokens=500, temperature=1, seed=1)))["a"]
    assert answer.finish == "length"
    assert answer.prompt_tokens + answer.completion_tokens == 64


@pytest.mark.parametrize(
    ("prompt", "says"), [("", "the prompt is empty"), (words(400), "tokens, and the context of 256")]
)
def test_a_prompt_that_cannot_be_answered_is_an_error_and_the_others_go_on(
    model: Engine, prompt: str, says: str
) -> None:
    found = answers(model, Request("bad", prompt, GREEDY), Request("good", "job", GREEDY))
    assert found["bad"].finish == "error"
    assert says in found["bad"].error
    assert found["good"].finish != "error"


def test_a_long_prompt_is_decoded_in_several_batches(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "long.gguf", context=4096)
    with load(path, context=2048) as engine:
        answer = answers(engine, Request("a", words(1500), GREEDY))["a"]
    assert answer.prompt_tokens > 1024
    assert answer.finish != "error"


@pytest.mark.parametrize("text", ["\udc80\udcff", "\x00\x01", "🦊" * 20, "\u202e", "</s></s><s>"])
def test_any_text_can_be_a_prompt(model: Engine, text: str) -> None:
    assert answers(model, Request("a", text, GREEDY))["a"].error == ""


def test_a_prompt_begins_with_bos_once_whether_it_is_written_out_or_not(model: Engine) -> None:
    bare, written = answers(model, Request("a", "job", GREEDY), Request("b", "<s>job", GREEDY)).values()
    assert bare.prompt_tokens == written.prompt_tokens
    assert bare.text == written.text


def test_a_grammar_is_obeyed(model: Engine) -> None:
    grammar = 'root ::= ("job" | "stage") [0-9] [0-9]? "\\n"'
    for prompt in ("test", words(20), "x"):
        text = answers(model, Request("a", prompt, GREEDY, grammar=grammar))["a"].text
        assert text.rstrip("\n").rstrip("0123456789") in {"job", "stage"}
        assert text.endswith("\n")


def test_a_grammar_that_is_none_is_an_error_of_its_request(model: Engine) -> None:
    found = answers(model, Request("a", "x", GREEDY, grammar="root ::= ("), Request("b", "x", GREEDY))
    assert "no valid GBNF" in found["a"].error
    assert not found["b"].error


def test_a_vocabulary_that_cannot_spell_the_verdicts_is_an_error_and_no_crash(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    # Bytes are needed to tokenize; the letters of "good" are not among what can be written.
    pieces += [(f"<0x{byte:02X}>", 0.0, BYTE if byte < 97 else CONTROL) for byte in range(256)]
    path = write_tiny_gguf(tmp_path / "mute.gguf", vocabulary_=pieces)
    with load(path) as engine:
        answer = answers(engine, grading_request("a", "A", {"good": 1.0, "bad": 0.0}))["a"]
    verdict = judge(answer, {"good": 1.0, "bad": 0.0})
    assert verdict.error
    assert verdict.verdict == ""


def test_choices_have_the_probability_of_their_whole_text(model: Engine) -> None:
    """Against the chain rule, token by token, each step asked for by itself."""
    vocabulary = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    first = answers(model, Request("a", "job:", GREEDY, choices=("x", "xy", "xyz")))["a"].choices
    second = answers(model, Request("a", "job:x", GREEDY, choices=("y",)))["a"].choices
    third = answers(model, Request("a", "job:xy", GREEDY, choices=("z",)))["a"].choices
    assert first["xy"] == pytest.approx(first["x"] + second["y"], abs=1e-4)
    assert first["xyz"] == pytest.approx(first["xy"] + third["z"], abs=1e-4)
    letters = answers(model, Request("a", "job:", GREEDY, choices=tuple(vocabulary)))["a"].choices
    assert 0 < sum(math.exp(value) for value in letters.values()) < 1


def test_asking_for_choices_does_not_change_the_answer(model: Engine) -> None:
    plain = answers(model, Request("a", words(10), GREEDY))["a"]
    asked = answers(model, Request("a", words(10), GREEDY, choices=("good", "bad")))["a"]
    assert asked.text == plain.text
    assert set(asked.choices) == {"good", "bad"}


def test_the_verdict_under_the_grammar_is_the_most_probable_where_verdicts_are_single_tokens(model: Engine) -> None:
    # The vocabulary spells digits in one way only: letters are bytes too.
    verdicts = {"1": 1.0, "2": 0.5, "3": 0.0}
    agreed = 0
    for number in range(12):
        answer = answers(model, grading_request("a", f"{words(number + 1)}:", verdicts))["a"]
        verdict = judge(answer, verdicts)
        assert verdict.error == ""
        if answer.text in verdicts:
            best = max(verdicts, key=lambda word: answer.choices[word])
            assert answer.text == best
            agreed += 1
    assert agreed


def test_a_models_memory_is_freed_when_it_is_closed(tmp_path: Path) -> None:
    big = [*((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256))]
    pieces = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), *big]
    path = write_tiny_gguf(tmp_path / "m.gguf", vocabulary_=pieces, context=100_000)

    def resident() -> int:
        fields = Path("/proc/self/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    before = 0
    for number in range(6):
        # The cache alone takes 16 MiB.
        with load(path, context=65_536) as engine:
            answers(engine, Request("a", "x", GREEDY))
        if number == 0:
            before = resident()
    assert resident() - before < 16 * 1024 * 1024


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def half_a_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 400)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><title>404</title>" * 10)


def future(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4] + (99).to_bytes(4, "little") + data[8:])


def other_architecture(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"llama", b"lhama"))


def wrong_shape(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_op.weight"))


def a_token_twice(path: Path) -> None:
    """llama.cpp ends the process by an assertion on this one."""
    path.write_bytes(path.read_bytes().replace(b"<0x0A>", b"<0x0B>"))


@pytest.mark.parametrize(
    "damage",
    [truncated, half_a_header, garbage, empty, html, future, other_architecture, wrong_shape, a_token_twice],
)
def test_a_damaged_model_is_one_line_and_no_crash(
    tmp_path: Path, tiny: Path, damage, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(tiny.read_bytes())
    damage(path)
    with pytest.raises(InputError, match=r"damaged\.gguf") as caught, load(path):
        pass
    assert caught.value.exit_code == 2
    assert caught.value.hint
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_llama_cpp_says_nothing_on_the_terminal(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with load(tiny) as engine:
        answers(engine, Request("a", "job", GREEDY), grading_request("b", "x", {"good": 1.0, "bad": 0.0}))
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")
