"""`gpurig detect` as its user sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from gpurig.provisioning.detect import detect as look
from gpurig.provisioning.facts import Gpu, HostFacts, Problem
from gpurig.runner.__main__ import cli
from gpurig.runner.commands.detect import SCHEMA, as_document, as_text
from standins import machines

DOCUMENT = Path(__file__).parents[2] / "docs" / "detection.md"


def facts_of(name: str, root: Path) -> HostFacts:
    machine = machines.load(name)
    return look(root=machine.build(root), nvml=machine.source())


@pytest.mark.parametrize("name", machines.names())
def test_every_machine_fits_in_80_columns(name: str, tmp_path: Path) -> None:
    assert [line for line in as_text(facts_of(name, tmp_path)).splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("name", machines.names())
def test_the_table_names_every_gpu_of_a_machine(name: str, tmp_path: Path) -> None:
    facts = facts_of(name, tmp_path)
    shown = as_text(facts)
    assert all(gpu.pci_address in shown and gpu.arch in shown for gpu in facts.gpus)
    assert all(re.sub(r"\s+", " ", problem.message) in re.sub(r"\s+", " ", shown) for problem in facts.problems)


def test_a_machine_without_a_gpu_is_fine_and_says_its_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The loader finds no real NVML below an empty directory; a machine with an NVIDIA card would tell of it.
    monkeypatch.setattr("gpurig.provisioning.detect.PynvmlSource", lambda: machines.load("rx580").source())
    result = CliRunner().invoke(cli, ["detect", "--host-root", str(tmp_path)], standalone_mode=False)
    assert result.return_value == 0
    assert result.output.startswith("backend cpu\n")
    assert "tags: gpurig cpu" in result.output


def test_a_card_that_cannot_be_used_ends_with_4_and_is_still_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = machines.load("rx6900xt")
    monkeypatch.setattr("gpurig.provisioning.detect.PynvmlSource", machine.source)
    result = CliRunner().invoke(cli, ["detect", "--host-root", str(machine.build(tmp_path))], standalone_mode=False)
    assert result.return_value == 4
    assert "0000:0c:00.0" in result.output
    assert "hint: " in result.output


def test_a_root_that_does_not_exist_is_bad_usage() -> None:
    result = CliRunner().invoke(cli, ["detect", "--host-root", "/does/not/exist"])
    assert result.exit_code == click.UsageError.exit_code
    assert "/does/not/exist" in result.output


def test_what_a_driver_says_is_harmless_to_a_terminal() -> None:
    hostile = "RTX \x1b[2J\x07 \u202e4090\n" * 3
    gpu = Gpu("cuda", hostile, hostile, "0000:01:00.0", 2**34, driver=hostile, arch="sm-89")
    facts = HostFacts(gpus=(gpu,), problems=(Problem("nvml", hostile, hostile),), cuda_version=hostile)
    shown = as_text(facts)
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_the_json_holds_what_the_document_describes_and_nothing_else(tmp_path: Path) -> None:
    document = as_document(facts_of("rx9060xt-beside-raphael-igpu", tmp_path))
    described = set(re.findall(r"^\| `([a-z_]+)` \|", DOCUMENT.read_text(), re.MULTILINE))
    (gpu,) = document["gpus"]
    (ignored,) = document["ignored"]
    node_keys = {key for node in gpu["nodes"] for key in node}
    problem_keys = {"source", "message", "hint", "unusable"}
    assert described == set(document) | set(gpu) | set(ignored) | node_keys | problem_keys
    assert document["schema"] == SCHEMA


def test_the_json_is_json(tmp_path: Path) -> None:
    for name in ("h200-mig-r590", "mi300a-x4-spx", "gb10-r580"):
        document = as_document(facts_of(name, tmp_path / name))
        assert json.loads(json.dumps(document))["backend"] == document["backend"]


def test_gpus_that_differ_show_their_tags_one_by_one(tmp_path: Path) -> None:
    shown = as_text(facts_of("rtx-5080-and-4090-r580", tmp_path))
    assert "tags of #1: " in shown
    assert "tags of #2: " in shown


def test_parts_with_the_same_tags_show_them_once(tmp_path: Path) -> None:
    assert "tags of #3, #4: " in as_text(facts_of("h100-mig-r590", tmp_path))
