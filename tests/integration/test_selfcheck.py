"""selfcheck over the real llama.cpp and the bundled models."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.common.process import run
from gpurig.evaljobs import selfcheck
from standins.missing import missing

JOB = str(Path(sys.executable).with_name("gpurig-job"))


@pytest.fixture(autouse=True)
def _llama():
    if importlib.util.find_spec("llama_cpp") is None:
        missing("llama-cpp-python is not installed (the eval extra)", "GPURIG_REQUIRE_LLAMA")


@pytest.mark.models
def test_the_cpu_is_found_and_a_bundled_model_generates():
    found = selfcheck.run_selfcheck("cpu")
    assert [device.kind for device in found.devices] == ["cpu"]
    assert found.generated is not None
    assert found.generated.tokens == 8
    assert found.memory_bytes > 2**28
    assert found.cpus >= 1


def test_without_a_bundled_model_it_says_that_nothing_was_generated(monkeypatch):
    monkeypatch.setattr(selfcheck, "_bundled_model", lambda: None)
    assert json.loads(selfcheck.run_selfcheck("cpu").to_json())["generated"] is None


@pytest.mark.models
@pytest.mark.parametrize("keep", [0, 3, 24, 5000])
def test_a_truncated_model_is_said_in_one_line(tmp_path, monkeypatch, keep):
    whole = selfcheck._bundled_model()
    assert whole is not None
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(whole.read_bytes()[:keep])
    monkeypatch.setattr(selfcheck, "_bundled_model", lambda: broken)
    with pytest.raises(PrerequisiteError, match=r"cannot run the bundled model broken\.gguf"):
        selfcheck.run_selfcheck("cpu")


def test_the_command_prints_json_for_machines_and_80_columns_for_people():
    done = run([JOB, "selfcheck", "--json"], timeout_s=120)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == "gpurig.selfcheck/1"
    done = run([JOB, "selfcheck"], timeout_s=120)
    assert done.code == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "CPU" in done.stdout


@pytest.mark.parametrize("backend", ["cuda", "rocm"])
def test_the_command_ends_with_4_where_the_gpu_is_missing(backend):
    done = run([JOB, "selfcheck", "--backend", backend], timeout_s=120)
    assert (done.code, done.stdout) == (4, "")
    assert done.stderr.startswith(f"gpurig-job: no {backend} device")
    assert "Traceback" not in done.stderr
