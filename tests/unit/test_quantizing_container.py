from __future__ import annotations

import os
from pathlib import Path

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.models.quantize_options import QuantizeOptions
from gpurig.provisioning.container_spec import ContainerSpec, Mount
from gpurig.provisioning.containers import RunResult
from gpurig.provisioning.wiring import Wiring
from gpurig.runner.quantizing_container import container_spec, run_there
from standins.memory_box import MemoryBox

WIRING = Wiring(devices=("/dev/kfd",), group_add=("44",))
MODELS = Path("/box/models")


def spec(options: QuantizeOptions, source: Path = MODELS / "m-f16.gguf", out: Path = MODELS) -> ContainerSpec:
    return container_spec(source, out, options, instance="gpurig", image="job:1", wiring=WIRING)


def test_the_container_reads_what_was_given_writes_the_results_and_nothing_else() -> None:
    options = QuantizeOptions(to="Q8_0", text=Path("/texts/a.txt"), calibration="/texts/b.txt")
    made = spec(options, source=Path("/disk/m-f16.gguf"))
    assert made.mounts == (
        Mount("/box/models", "/box/models"),
        Mount("/disk/m-f16.gguf", "/disk/m-f16.gguf", read_only=True),
        Mount("/texts/a.txt", "/texts/a.txt", read_only=True),
        Mount("/texts/b.txt", "/texts/b.txt", read_only=True),
    )
    assert (made.network, made.user) == ("none", f"{os.getuid()}:{os.getgid()}")
    assert made.sdk_arguments("id")["user"] == made.user


def test_a_model_in_the_folder_of_the_results_is_there_once() -> None:
    assert spec(QuantizeOptions(to="Q8_0", calibration="builtin")).mounts == (Mount("/box/models", "/box/models"),)


def test_it_is_wired_and_confined_as_a_job() -> None:
    made = spec(QuantizeOptions(to="Q8_0"))
    assert made.wiring == WIRING
    assert "NET_RAW" in made.cap_drop
    assert made.security_opt == ("no-new-privileges:true",)


def test_relative_paths_mean_the_same_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = spec(QuantizeOptions(to="Q8_0", text=Path("a.txt"), calibration="b.txt"))
    assert {str(tmp_path / "a.txt"), str(tmp_path / "b.txt")} <= set(made.command)


@pytest.mark.parametrize("out", ["/", "/usr/share/models", "/opt/gpurig/models", "/etc"])
def test_folders_where_the_image_has_its_own_files_are_refused(out: str) -> None:
    with pytest.raises(InputError, match="cannot be handed to a container"):
        spec(QuantizeOptions(to="Q8_0"), out=Path(out))


def test_its_exit_code_and_its_output_are_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    engine = MemoryBox().engine
    engine.images["job:1"] = "sha256:1"
    engine.run_result = RunResult(3, "a table\n")
    assert run_there(engine, spec(QuantizeOptions(to="Q8_0"))) == 3
    assert capsys.readouterr().out == "a table\n"


def test_an_image_that_is_not_built_is_told() -> None:
    with pytest.raises(PrerequisiteError, match="no image job:1") as caught:
        run_there(MemoryBox().engine, spec(QuantizeOptions(to="Q8_0")))
    assert "gpurig images build" in caught.value.hint
