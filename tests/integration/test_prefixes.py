"""States of prompts' beginnings between runs: fewer tokens are computed, and answers do not depend on the folder."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.models.resolving import Search
from gpurig.evaljobs.adapters import open_adapter, with_adapters
from gpurig.evaljobs.engine import EngineSettings, PrefixSettings, Request
from gpurig.evaljobs.inference.context import Context
from gpurig.evaljobs.inference.engine import InferenceEngine
from gpurig.evaljobs.inference.works import Load, Step
from gpurig.evaljobs.models import ModelFile, open_model
from gpurig.evaljobs.records import Sampling
from standins.tiny_gguf import write_tiny_gguf
from standins.tiny_lora import write_lora
from standins.tiny_shapes import tiny_shapes, write_random

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

CHOICES = (" yes", " no", "a longer one of several tokens")
SYSTEM = "".join(random.Random(1).choice("qvwzkh") for _ in range(170))
EXAMPLES = SYSTEM + "".join(random.Random(2).choice("qvwzkh") for _ in range(150))


class Bench:
    """Runs requests with a folder for states, and counts what is computed."""

    def __init__(self, model: ModelFile, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model, self.folder, self.said, self.tokens, self.restored = model, folder, [], 0, 0
        compute, restore = Context.compute, Context.restore

        def counted(context: Context, step: Step) -> Any:
            self.tokens += sum(len(row.tokens) for row in step.rows)
            return compute(context, step)

        def noted(context: Context, *given: Any) -> bool:
            done = restore(context, *given)
            self.restored += done
            return done

        monkeypatch.setattr(Context, "compute", counted)
        monkeypatch.setattr(Context, "restore", noted)

    def run(self, asked: list[Request], **changes: Any) -> dict[str, tuple[str, dict[str, float]]]:
        self.said, self.tokens, self.restored = [], 0, 0
        kept = PrefixSettings(self.folder, 10**9, self.said.append)
        settings = EngineSettings(**{"context": 512, "threads": 1, "parallel": 4, "prefixes": kept, **changes})
        engine = InferenceEngine(self.model, settings)
        try:
            return {done.id: (done.text, dict(done.choices)) for done in engine.run(asked)}
        finally:
            engine.close()

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())


def requests(count: int = 9, *, seed: int = 3) -> list[Request]:
    """Greedy, on two levels of what is shared, some with choices."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        text = (EXAMPLES if number % 3 else SYSTEM) + f"{draw.choice('bcdxyz')}{number} "
        text += "".join(draw.choice("abcdef \n") for _ in range(draw.randint(3, 20)))
        choices = CHOICES if number % 4 == 0 else ()
        made.append(Request(f"r{number}", text, Sampling(max_tokens=draw.randint(2, 8)), choices=choices))
    return made


def model_of(path: Path) -> ModelFile:
    return open_model(str(path), search=Search.of_folders(), suite_folder=Path())


@pytest.fixture(scope="module", params=["llama", *tiny_shapes()])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "model.gguf"
    if request.param == "llama":
        return write_tiny_gguf(place, sharpness=12.0)
    return write_random(place, tiny_shapes()[request.param])


@pytest.fixture
def bench(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(model_of(path), tmp_path / "prefixes", monkeypatch)


@pytest.fixture
def llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(model_of(write_tiny_gguf(tmp_path / "model.gguf", sharpness=12.0)), tmp_path / "prefixes", monkeypatch)


def test_the_next_run_computes_exactly_the_beginnings_less_and_answers_the_same_bytes(bench: Bench) -> None:
    asked = requests()
    plain = bench.run(asked, prefixes=None)
    first = bench.run(asked)
    cold, told = bench.tokens, bench.said
    before = {path: path.read_bytes() for path in bench.files()}
    assert len(before) == 2
    second = bench.run(asked)
    assert first == second
    computed = int(told[0].split()[-2])
    assert cold - bench.tokens == computed > 450
    assert bench.said[0].endswith(" tokens loaded, 0 computed")
    assert {path: path.read_bytes() for path in bench.files()} == before
    # Rounding differs from a run that keeps nothing.
    assert sum(first[name][0] != plain[name][0] for name in plain) <= 1
    for name, (_, choices) in plain.items():
        assert first[name][1] == pytest.approx(choices, rel=1e-4, abs=5e-3)


def test_a_state_that_is_loaded_is_the_one_that_was_computed_to_the_byte(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpurig.evaljobs.inference.prefixes import Prefixes

    states: dict[tuple[int, tuple[int, ...]], list[bytes]] = {}
    fill = Prefixes.fill

    def noted(prefixes: Prefixes, load: Load) -> None:
        fill(prefixes, load)
        # The sequence's own number is in its state.
        states.setdefault((load.target, load.prefix.tokens), []).append(prefixes._context.state(load.target))

    monkeypatch.setattr(Prefixes, "fill", noted)
    for _ in range(2):
        bench.run(requests())
    assert len({tokens for _, tokens in states}) == 2
    assert all(len(found) >= 2 and len(set(found)) == 1 for found in states.values())


def test_a_run_with_other_questions_and_one_question_alone_are_served_too(bench: Bench) -> None:
    bench.run(requests())
    bench.run(requests(seed=4))
    assert bench.restored
    assert bench.said[0].endswith(" 0 computed")
    alone = dataclasses.replace(requests(seed=8)[2], id="alone")
    bench.run([alone])
    # A state of several caches is read by a context with as many sequences only.
    assert bench.restored == (bench.model.gguf.architecture not in {"gemma2", "granitehybrid"})


def test_another_number_of_sequences_reads_the_same_states(llama: Bench) -> None:
    first = llama.run(requests())
    for parallel in (1, 2, 7):
        found = llama.run(requests(), parallel=parallel)
        assert llama.said[0].endswith(" 0 computed")
        assert sum(found[name][0] != first[name][0] for name in first) <= 1
    assert len(llama.files()) == 2


def test_damaged_and_foreign_files_are_told_once_and_computed_anew(llama: Bench, tmp_path: Path) -> None:
    expected = llama.run(requests())
    good = {path: path.read_bytes() for path in llama.files()}
    one, other = good
    damages = [
        lambda: one.write_bytes(good[one][:-40] + b"x" + good[one][-39:]),
        lambda: one.write_bytes(good[one][:1000]),
        lambda: one.write_bytes(b""),
        lambda: one.write_bytes(good[other]),
        lambda: one.write_bytes(random.Random(1).randbytes(5000)),
    ]
    for damage in damages:
        damage()
        assert llama.run(requests()) == expected
        (complaint, line) = llama.said
        assert complaint.startswith(f"prefix cache {llama.folder}: {one.name} is not used: ")
        assert not line.endswith(" 0 computed")
        assert {path: path.read_bytes() for path in llama.files()} == good
    one.unlink()
    assert llama.run(requests()) == expected
    assert len(llama.said) == 1
    assert {path: path.read_bytes() for path in llama.files()} == good


def test_a_state_that_llama_cpp_refuses_is_computed_anew(llama: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpurig.evaljobs.inference.prefix_store import PrefixStore

    expected = llama.run(requests())
    read = PrefixStore.read

    def worse(store: PrefixStore, prefix: Any) -> Any:
        state = read(store, prefix)
        return None if state is None else bytes(state[:-100])

    monkeypatch.setattr(PrefixStore, "read", worse)
    assert llama.run(requests()) == expected
    assert llama.restored == 0 or not llama.said[-1].endswith(" 0 computed")


def test_nothing_is_kept_or_read_where_it_is_exact(llama: Bench) -> None:
    exact = llama.run(requests(), exact=True)
    assert not llama.folder.exists()
    llama.run(requests())
    assert llama.run(requests(), exact=True) == exact
    assert llama.restored == 0


def test_another_model_and_other_adapters_have_states_of_their_own(llama: Bench, tmp_path: Path) -> None:
    llama.run(requests())
    assert len(llama.files()) == 2
    base = llama.model
    lora = write_lora(tmp_path / "lora.gguf", base.path)
    adapter = open_adapter(str(lora), 1.0, search=Search.of_folders(), suite_folder=Path())
    llama.model = with_adapters(base, [adapter])
    asked = [dataclasses.replace(one, adapters=(adapter.ref,)) for one in requests()]
    adapted = llama.run(asked)
    assert " 0 tokens loaded" in llama.said[0]
    assert len(llama.files()) == 4
    assert llama.run(asked) == adapted
    assert llama.said[0].endswith(" 0 computed")
    llama.model = model_of(write_tiny_gguf(tmp_path / "other.gguf", seed=5))
    llama.run(requests())
    assert " 0 tokens loaded" in llama.said[0]
    assert len(llama.files()) == 6


def cells_in(path: Path) -> bytes:
    """Keys and values of a state in a file: behind its head, llama.cpp's, and each cell's position and sequence."""
    data = path.read_bytes()
    place = 12 + int.from_bytes(data[8:12], "little") + 12
    count = int.from_bytes(data[place : place + 4], "little")
    assert 1000 < count < 1300
    return data[place + 4 + 12 * count : -32]


def test_a_beginning_that_grows_out_of_another_is_the_one_that_is_computed_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(write_tiny_gguf(tmp_path / "long.gguf", context=2048, sharpness=12.0))
    draw = random.Random(3)
    short, rest = ("".join(draw.choice("qvwzkh") for _ in range(count)) for count in (700, 500))
    asked = [
        Request(f"r{number}", text, Sampling(max_tokens=4))
        for number, text in enumerate([short + "ab", short + "cd", short + rest + "xe", short + rest + "yf"])
    ]
    grown = Bench(model, tmp_path / "grown", monkeypatch)
    first = grown.run(asked, context=2048)
    # Of the longer one only what is behind the shorter one's last whole piece of 512 is computed.
    assert grown.tokens == 702 + (1202 - 512) + 4 * 2 + 4 * 3
    assert grown.run(asked, context=2048) == first
    alone = Bench(model, tmp_path / "alone", monkeypatch)
    alone.run(asked[2:], context=2048)
    (state,) = alone.files()
    assert cells_in(state) == cells_in(grown.folder / state.name)
    assert len(grown.files()) == 2


def test_a_server_learns_from_prompts_that_come_one_by_one(llama: Bench) -> None:
    said: list[str] = []
    settings = EngineSettings(512, 1, parallel=4, prefixes=PrefixSettings(llama.folder, 10**9, said.append))

    def serve(asked: list[Request]) -> list[str]:
        engine = InferenceEngine(llama.model, settings)
        with engine.session(4, 512) as session:
            texts = []
            for one in asked:
                session.add(engine.answer(one))
                while len(session):
                    texts += [ended.result.text for ended in session.step()]
        engine.close()
        return texts

    asked = requests()
    serve(asked[:1])
    assert llama.files() == []
    serve(asked)
    assert len(llama.files()) == 2
    said.clear()
    llama.tokens = 0
    serve(asked[:1])
    assert said == ["prompts' beginnings: 172 tokens loaded, 0 computed"]
    assert llama.tokens < 60
