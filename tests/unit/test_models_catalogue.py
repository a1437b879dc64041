"""The catalogue holds what it promises, and a wrong one says where it is wrong."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from gpurig.common.errors import InputError
from gpurig.common.files import sha256_file
from gpurig.common.gguf import read_gguf
from gpurig.common.gguf_file_types import trained_context
from gpurig.common.models.catalogue import OWN, Entry, load_catalogue, read_catalogue
from gpurig.common.models.licenses import LICENSES, check_license, find_license
from gpurig.common.models.reference import BundledReference, HubReference
from gpurig.common.models.sources import bundled_folder
from gpurig.provisioning.vram import GIB, vram_class_gb
from hypothesis import given
from hypothesis import strategies as st

CATALOGUE = load_catalogue()
DOCS = Path(__file__).parents[2] / "docs"
GOOD = """
version = 1
[models.mine]
source = "hf"
repository = "team/mine-GGUF"
file = "mine.gguf"
revision = "0123456789012345678901234567890123456789"
sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
size_bytes = 1_000
license = "MIT"
context = 4096
chat_template = "chatml"
roles = ["generator"]
vram_gb = 8
"""


@pytest.mark.parametrize("entry", CATALOGUE.entries.values(), ids=lambda entry: entry.name)
def test_an_entry_holds_together(entry: Entry) -> None:
    assert find_license(entry.license).name == entry.license
    assert entry.about
    if isinstance(entry.source, BundledReference):
        file = bundled_folder() / entry.source.file
        assert (sha256_file(file), file.stat().st_size) == (entry.files[0].sha256, entry.size_bytes)
        assert trained_context(read_gguf(file)) == entry.context
        return
    assert isinstance(entry.source, HubReference)
    # A card of the smallest class that is named holds the file, the KV cache of 4096 tokens and llama.cpp's own.
    if entry.size_bytes:
        assert entry.size_bytes + 0.8 * GIB < 0.96 * entry.vram_gb * GIB
    assert vram_class_gb(entry.vram_gb * GIB) == entry.vram_gb
    quantization = re.search(r"(q\d_k_m|q8_0|mxfp4)$", entry.name)
    assert quantization
    assert quantization[1] in entry.source.file.lower()


def test_every_role_has_a_model_under_a_permissive_license_that_a_small_card_holds() -> None:
    for role in ("generator", "grader", "embedding"):
        fitting = [entry for entry in CATALOGUE.entries.values() if role in entry.roles and 0 < entry.vram_gb <= 8]
        assert any(find_license(entry.license).permissive and not entry.unknown for entry in fitting)


def test_no_hash_stands_twice() -> None:
    hashes = [file.sha256 for entry in CATALOGUE.entries.values() for file in entry.files if file.sha256]
    assert len(hashes) == len(set(hashes))


def test_the_docs_name_every_license_and_where_its_rules_were_read() -> None:
    text = (DOCS / "models.md").read_text(encoding="utf-8")
    for entry in LICENSES:
        assert entry.name in text
        assert entry.permissive or entry.source in text


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('repository = "team/mine-GGUF"', 'repository = "mine"', 'mine: source: repository "mine" is not valid'),
        ('repository = "team/mine-GGUF"', "", "mine: repository: is missing"),
        ('file = "mine.gguf"', 'file = "../mine.gguf"', "mine: source: file"),
        ('file = "mine.gguf"', 'file = "mine-00004-of-00003.gguf"', "mine: file:"),
        ("0123456789012345678901234567890123456789", "main", "mine: revision: must be a commit's 40"),
        ('sha256 = "aaaa', 'sha256 = "zzzz', "mine: sha256: must be 64 hexadecimal digits"),
        ('sha256 = "aaaa', 'sha256 = "AAAA', "mine: sha256: must be 64 hexadecimal digits"),
        ("size_bytes = 1_000", "size_bytes = 0", "mine: size_bytes: must be a whole number"),
        ("size_bytes = 1_000", "", "mine: unknown: must name what is absent: size_bytes"),
        (
            "size_bytes = 1_000",
            'size_bytes = 1\nunknown = ["revision"]',
            "mine: unknown: must name what is absent: not",
        ),
        ("size_bytes = 1_000", "size_bytes = [1, 2]", "mine: size_bytes: must have 1 values"),
        ('license = "MIT"', 'license = "Best-Ever"', "mine: license: 'Best-Ever' is not known"),
        ("context = 4096", "context = 0", "mine: context: must be a whole number from 1"),
        ("context = 4096", "context = true", "mine: context: must be a whole number from 1"),
        ('"chatml"', '"mine"', "mine: chat_template: must be a known template"),
        ('["generator"]', '["judge"]', "mine: roles: 'judge' is none of generator, grader, embedding"),
        ('["generator"]', "[]", "mine: roles: must not be empty"),
        ("vram_gb = 8", "vram_gb = 8\nvram = 8", "mine: vram: is no field of an entry"),
        ("version = 1", "version = 2", "version: must be 1"),
        ("version = 1", "version = 1\nmodel = 3", "model: is no part of a catalogue"),
        ("[models.mine]", '[models."../x"]', '../x: name: "../x" is no name for a model'),
        ('source = "hf"', 'source = "ftp"', "mine: source: must be one of hf, gitlab, path, bundled"),
    ],
)
def test_a_mistake_is_named_with_its_entry_and_field(before: str, after: str, says: str) -> None:
    assert before in GOOD
    with pytest.raises(InputError) as caught:
        read_catalogue(GOOD.replace(before, after), place="my.toml")
    said = [caught.value.message, *caught.value.details]
    assert any(says in line for line in said), said
    assert "my.toml" in caught.value.message


def test_what_is_no_toml_says_the_line() -> None:
    with pytest.raises(InputError, match="line 2"):
        read_catalogue('version = 1\nmodels = ["\n', place="my.toml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(sorted(tomllib.loads(GOOD)["models"]["mine"])),
)
def test_no_value_of_a_field_is_a_bug(value: object, field: str) -> None:
    from gpurig.common.models import catalogue

    table = tomllib.loads(GOOD)["models"]["mine"] | {field: value}
    problems: list[str] = []
    catalogue._entry("mine", table, "my.toml", problems)
    assert all(problem.startswith("mine: ") for problem in problems)


def test_a_later_catalogue_adds_and_replaces(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(GOOD + GOOD.replace("version = 1", "").replace("models.mine", "models.demo-grader"))
    both = load_catalogue((mine,))
    assert set(both.entries) == {*CATALOGUE.entries, "mine"}
    assert both.entries["demo-grader"].source == HubReference("team/mine-GGUF", "mine.gguf", "0123456789" * 4)
    assert both.entries["demo-generator"].place == str(OWN)


def test_entries_of_other_sources_are_read() -> None:
    text = GOOD.replace(
        'source = "hf"\nrepository = "team/mine-GGUF"',
        'source = "gitlab"\nproject = "a/b"\npackage = "m"\nversion = "1"',
    ).replace('revision = "0123456789012345678901234567890123456789"\n', "")
    (entry,) = read_catalogue(text, place="x")
    assert str(entry.source) == "gitlab:a/b/m/1/mine.gguf"
    split = GOOD.replace('"mine.gguf"', '"m-00001-of-00002.gguf"').replace(
        'sha256 = "', 'sha256 = ["' + "b" * 64 + '", "'
    )
    split = split.replace('aaa"\n', 'aaa"]\n').replace("1_000", "[1, 2]")
    (entry,) = read_catalogue(split, place="x")
    assert [(file.file, file.size_bytes) for file in entry.files] == [
        ("m-00001-of-00002.gguf", 1),
        ("m-00002-of-00002.gguf", 2),
    ]


@pytest.mark.parametrize("name", ["apache-2.0", "MIT", "cc0-1.0"])
def test_a_permissive_license_needs_no_word(name: str) -> None:
    assert check_license(name, model="m") == ()
    assert check_license(name, model="m", purpose="finetune") == ()


@pytest.mark.parametrize("entry", [entry for entry in LICENSES if not entry.permissive], ids=lambda entry: entry.name)
def test_a_license_with_conditions_is_refused_with_its_name_until_it_is_accepted(entry) -> None:
    with pytest.raises(InputError, match=re.escape(entry.name)) as caught:
        check_license(entry.name, model="m")
    assert caught.value.exit_code == 2
    assert f"--allow-license {entry.name} " in caught.value.hint
    assert entry.conditions in check_license(entry.name.upper(), model="m", allowed=[entry.name])[0]


def test_a_license_that_forbids_training_stops_a_fine_tune_and_not_an_eval() -> None:
    assert check_license("llama3", model="m", allowed=["llama3"])
    with pytest.raises(InputError, match="forbids training on what it writes"):
        check_license("llama3", model="m", purpose="finetune", allowed=["llama3"])
    assert check_license("llama3", model="m", purpose="finetune", allowed=["llama3:training"])


def test_a_condition_on_training_is_named_for_a_fine_tune() -> None:
    notes = check_license("llama3.1", model="m", purpose="finetune", allowed=["Llama-3.1"])
    assert any("Built with Llama" in note for note in notes)
    (_, unread) = check_license("mnpl", model="m", purpose="finetune", allowed=["mnpl"])
    assert "was not looked up" in unread


def test_accepting_one_license_accepts_no_other() -> None:
    with pytest.raises(InputError):
        check_license("gemma", model="m", allowed=["llama3.1", "unknown"])
    with pytest.raises(InputError, match="not known"):
        check_license("", model="m", allowed=["gemma"])
