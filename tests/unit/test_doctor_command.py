"""`gpurig doctor` as its user sees it: 80 columns, marks without colour, copyable commands, a documented object."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from gpurig.provisioning.detect import detect as look
from gpurig.provisioning.distribution import Command, Distribution
from gpurig.provisioning.doctor import CHECKS, Examination, Finding, examine
from gpurig.provisioning.doctor.engine import EngineSeen
from gpurig.provisioning.doctor.toolkit import ToolkitSeen
from gpurig.provisioning.doctor.view import SCHEMA, as_document, as_text
from hypothesis import given
from hypothesis import strategies as st
from standins import machines
from standins.doctor_box import ENGINE, URL, VERSION, WANTED, FixedBox

DOCUMENT = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
WHERE = Distribution("Debian GNU/Linux 12 (bookworm)", "debian")
SICK = FixedBox(
    engine_seen=EngineSeen(replace(ENGINE, cdi_devices=())),
    toolkit_seen=ToolkitSeen(installed=False),
    specs=(),
    free_bytes=10**9,
    taken="port 9476 is in use: the metrics exporter cannot listen on 127.0.0.1:9476",
    registry_problem="looking for it in its registry: no such host",
    version=replace(VERSION, skew_s=4000.0),
)


def findings(box: FixedBox) -> tuple[Finding, ...]:
    return examine(Examination(box, WANTED))


@pytest.mark.parametrize("box", [FixedBox(), SICK, FixedBox(failures={"engine": OSError(5, "Input/output error")})])
def test_every_line_fits_in_80_columns_and_every_check_has_one(box: FixedBox) -> None:
    found = findings(box)
    lines = as_text(found, WHERE, root=False).splitlines()
    assert [line for line in lines if len(line) > 80] == []
    heads = [line for line in lines if re.match(r"(ok|warn|FAIL|skip) ", line)]
    assert [line[6:20].strip() for line in heads] == [one.name for one in found]


@pytest.mark.parametrize("name", machines.names())
def test_every_recorded_machine_is_examined_in_80_columns(name: str, tmp_path: Path) -> None:
    machine = machines.load(name)
    host = look(root=machine.build(tmp_path), nvml=machine.source())
    found = findings(FixedBox(host_facts=host, specs=()))
    assert max(map(len, as_text(found, WHERE, root=False).splitlines())) <= 80
    states = {one.name: one.status for one in found}
    broken = any(one.status == "failed" for one in found if one.name == "gpu")
    assert broken == any(problem.unusable for problem in host.problems)
    assert (states["driver"] == "skipped") == (not any(gpu.backend == "cuda" for gpu in host.gpus))
    assert (states["amd devices"] == "skipped") == (not any(gpu.backend == "rocm" for gpu in host.gpus))


def test_a_failure_is_followed_by_what_to_run_with_sudo_for_who_is_not_root() -> None:
    text = as_text(findings(SICK), WHERE, root=False)
    assert "FAIL  toolkit" in text
    assert "      run: sudo apt-get install -y nvidia-container-toolkit" in text
    assert "      by hand: docker pull" in text
    assert "gpurig up --install-missing" in text
    assert "sudo" not in as_text(findings(SICK), WHERE, root=True)


def test_a_command_longer_than_a_line_can_be_copied() -> None:
    argv = (
        "nvidia-ctk",
        "cdi",
        "generate",
        *(f"--library-search-path=/usr/lib/x86_64-linux-gnu/{n}" for n in range(4)),
    )
    finding = Finding("cdi spec", "failed", "stale", commands=(Command(argv),))
    text = as_text([finding], WHERE, root=True)
    assert max(map(len, text.splitlines())) <= 80
    shown = re.search(r"run: (.*?)\n\n", text, re.DOTALL)
    assert shown is not None
    assert shlex.split(shown[1].replace("\\\n", " ")) == list(argv)


def test_the_summary_counts_every_check_once() -> None:
    found = findings(SICK)
    counted = [
        int(number)
        for number in re.findall(r"(\d+) (?:fine|to look at|failed|skipped)", as_text(found, WHERE, root=True))
    ]
    assert sum(counted) == len(found)
    assert as_text(findings(FixedBox()), WHERE, root=True).splitlines()[-1].startswith(f"{len(CHECKS) + 2} fine")


def test_the_object_is_the_documented_one() -> None:
    document = json.loads(json.dumps(as_document(findings(SICK), WHERE)))
    assert document["schema"] == SCHEMA
    assert document["exit_code"] == 4
    assert sum(document["summary"].values()) == len(document["checks"])
    for key in document:
        assert f"\n| {key} |" in DOCUMENT
    for key in document["checks"][0]:
        assert f"checks[].{key}" in DOCUMENT
    for check in document["checks"]:
        assert re.search(rf"^\| [^|]*\b{check['name']}\b", DOCUMENT, re.MULTILINE), check["name"]


def test_what_a_server_says_is_harmless_on_a_terminal() -> None:
    hostile = FixedBox(version=replace(VERSION, status=200, document={"version": "19.4\x1b[2J\u202e"}))
    assert "\x1b" not in as_text(findings(hostile), WHERE, root=True)
    assert URL in as_text(findings(hostile), WHERE, root=True)


@given(st.text(min_size=1).filter(str.strip), st.text(), st.text(), st.text())
def test_any_finding_fits(message: str, found: str, needed: str, hint: str) -> None:
    for status in ("ok", "warning", "failed", "skipped"):
        finding = Finding("gpu", status, message, found, needed, hint=hint)  # type: ignore[arg-type]  # from a literal tuple
        assert max(map(len, as_text([finding], WHERE, root=True).splitlines())) <= 80
