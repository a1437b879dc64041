"""What lies in a folder of models is told without loading or hashing it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import llama_cpp
import pytest
from gpurig.common.command import run_command
from gpurig.common.gguf import read_gguf
from gpurig.common.gguf_file_types import FILE_TYPES, quantization, trained_context
from gpurig.common.models.catalogue import OWN, load_catalogue
from gpurig.common.models.installed import installed_models
from gpurig.common.models.origin import Origin, PinnedFile, write_origin
from gpurig.common.models.resolving import Place
from gpurig.provisioning.facts import Gpu, HostFacts
from gpurig.provisioning.vram import GIB
from gpurig.runner.__main__ import cli
from gpurig.runner.models_here import look, memory_of, offer_fit
from standins.pulling import digest
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
    (tmp_path / "c-00001-of-00002.gguf").write_bytes(whole.read_bytes())
    (tmp_path / ".d.gguf.partial").write_bytes(b"half")
    (tmp_path / "README").write_text("no model")
    damaged, sound, halved = installed_models(tmp_path)
    assert (damaged.name, damaged.size_bytes) == ("a", 5000)
    assert "damaged" in damaged.problem
    assert (sound.name, sound.context, sound.problem) == ("b", 512, "")
    assert (halved.name, halved.problem) == ("c", "a part of it is missing")


def test_a_folder_that_is_not_there_has_no_models(tmp_path: Path) -> None:
    assert installed_models(tmp_path / "none") == ()


def pinned(folder: Path, name: str, *, license_: str = "MIT") -> Path:
    file = write_tiny_gguf(folder / f"{name}.gguf")
    data = file.read_bytes()
    files = (PinnedFile(file.name, digest(data), len(data)),)
    write_origin(folder, name, Origin("hf:team/x/m.gguf", "c" * 40, license_, "2026-11-25T00:00:00Z", files))
    return file


def test_a_file_that_is_no_longer_the_pulled_one_is_told(tmp_path: Path) -> None:
    file = pinned(tmp_path, "m")
    (model,) = installed_models(tmp_path)
    assert (model.license, model.sha256, model.problem) == ("MIT", digest(file.read_bytes()), "")
    # The same size and other bytes show only to who reads the file.
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert installed_models(tmp_path)[0].problem == ""
    assert "another sha256" in installed_models(tmp_path, verify=True)[0].problem
    write_tiny_gguf(file, chat_template="x" * 100)
    assert "another size" in installed_models(tmp_path)[0].problem


RTX_3060 = Gpu("cuda", "GPU-1", "NVIDIA GeForce RTX 3060", "0000:01:00.0", 12288 * 2**20)
CPU = HostFacts(system_memory_bytes=16 * GIB)


def places(folder: Path) -> tuple[Place, ...]:
    return (Place("given", folder),)


def test_what_is_here_is_forecast_and_what_is_offered_goes_by_its_class(tmp_path: Path) -> None:
    pinned(tmp_path, "m")
    catalogue = load_catalogue()
    seen = look(places(tmp_path), catalogue, HostFacts(gpus=(RTX_3060,)))
    assert (seen.memory.class_gb, seen.memory.label) == (12, "NVIDIA GeForce RTX 3060")
    assert (seen.here[0].fit.fits, seen.here[0].fit.how) == (True, "forecast")
    fitting = {offer.entry.name: offer.fit.fits for offer in seen.offers}
    assert fitting == {entry.name: entry.vram_gb <= 12 for entry in catalogue.entries.values()}
    assert len(set(fitting.values())) == 2


def test_the_largest_card_counts_and_a_card_of_unknown_memory_is_not_guessed() -> None:
    large = dataclasses.replace(RTX_3060, uuid="GPU-2", memory_bytes=24564 * 2**20)
    assert memory_of(HostFacts(gpus=(RTX_3060, large))).class_gb == 24
    unknown = memory_of(HostFacts(gpus=(dataclasses.replace(RTX_3060, memory_bytes=None),)))
    assert (unknown.usable_bytes, unknown.class_gb) == (None, None)
    entry = load_catalogue().entries["qwen3-8b-q4_k_m"]
    assert offer_fit(entry, unknown).fits is None


def test_without_a_card_the_machines_memory_counts(tmp_path: Path) -> None:
    catalogue = load_catalogue()
    memory = memory_of(CPU)
    assert offer_fit(catalogue.entries["qwen3-8b-q4_k_m"], memory).fits is True
    assert offer_fit(catalogue.entries["qwen3-coder-30b-a3b-q4_k_m"], memory).fits is False
    assert offer_fit(catalogue.entries["selene-1-mini-8b-q4_k_m"], memory).fits is None
    pinned(tmp_path, "m")
    assert look(places(tmp_path), catalogue, CPU).here[0].fit.fits is True


def run_list(*words: str) -> int:
    return run_command(cli, program="gpurig", arguments=["models", "list", *words])


def test_the_list_is_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pinned(tmp_path / "var/lib/gpurig/models", "tiny")
    assert run_list("--json", "--root", str(tmp_path)) == 0
    document = json.loads(capsys.readouterr().out)
    found = {model["name"]: model for model in document["installed"]}
    assert (found["tiny"]["context"], found["tiny"]["place"], found["tiny"]["source"]) == (
        512,
        "box",
        "hf:team/x/m.gguf",
    )
    assert {"demo-generator", "demo-grader"} <= set(found)
    offered = {model["name"]: model for model in document["catalogue"]}
    assert offered["demo-grader"]["installed"]
    assert offered["qwen3-8b-q4_k_m"]["license"] == "Apache-2.0"


def test_the_list_fits_80_columns_and_cuts_no_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pinned(tmp_path, "m", license_="a-license-with-an-endless-name\x1b[31m")
    (tmp_path / "bad.gguf").write_bytes(b"junk" * 100)
    assert run_list("--dir", str(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    lines = [line for line in shown.splitlines() if str(tmp_path) not in line]
    assert max(len(line) for line in lines) <= 80
    names = {line.split()[0] for line in lines if line}
    assert set(load_catalogue().entries) <= names
    assert "  m: from hf:team/x/m.gguf" in lines


def test_a_sites_own_models_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "etc/gpurig/models.toml"
    own.parent.mkdir(parents=True)
    entry = OWN.read_text(encoding="utf-8").partition('[models."qwen3-8b-q4_k_m"]')[2].partition("\n\n")[0]
    own.write_text(f"version = 1\n[models.our-own]{entry}\n")
    assert run_list("--root", str(tmp_path), "--dir", str(tmp_path)) == 0
    assert "our-own" in capsys.readouterr().out
    own.write_text("version = 1\n[models.our-own]\nlicense = 3\n")
    assert run_list("--root", str(tmp_path), "--dir", str(tmp_path)) == 2
    assert "our-own: source: is missing" in capsys.readouterr().err
