"""`gpurig models quantize` in a container of a real engine; what the job's program does is test_quantize.py's."""

from __future__ import annotations

import json
import os
import signal
import subprocess  # noqa: TID251 - a program that is interrupted
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gpurig.common.models.quantize_options import QuantizeOptions
from gpurig.common.waiting import wait_for
from gpurig.provisioning.docker_engine import DockerEngine
from gpurig.provisioning.wiring import Wiring
from gpurig.runner.quantizing_container import container_spec, run_there
from standins.images import image_of

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker

# Says what it was given and what it may do, where its results go, and ends as if the gate had failed.
_JOB = """#!/usr/bin/env python3
import json, os, pathlib, sys, time
source, out = sys.argv[2], pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
def writable(path):
    try:
        open(path, "ab").close()
    except OSError:
        return False
    return True
seen = {
    "words": sys.argv[1:], "uid": os.getuid(), "content": open(source).read(), "source": writable(source),
    "etc": writable("/etc/hosts.new"), "interfaces": sorted(os.listdir("/sys/class/net")),
}
(out / "report.json").write_text(json.dumps(seen))
print("a table", flush=True)
print("progress", file=sys.stderr, flush=True)
if "--pure" in sys.argv:
    time.sleep(600)
sys.exit(3)
"""


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, base_image: str) -> str:
    dockerfile = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY gpurig-job /usr/local/bin/\nRUN chmod 755 /usr/local/bin/*\n"
    files = {"Dockerfile": dockerfile.encode(), "gpurig-job": _JOB.encode()}
    return image_of(engine, "gpurig-standin-quantize", base_image, files)


def folders(tmp_path: Path) -> tuple[Path, Path]:
    source, out = tmp_path / "disk" / "m-f16.gguf", tmp_path / "models"
    source.parent.mkdir()
    source.write_text("weights")
    out.mkdir()
    return source, out


def test_results_are_the_users_and_the_model_is_only_read(
    engine: docker.DockerClient, image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = folders(tmp_path)
    options = QuantizeOptions(to="Q8_0", max_kld=0.1)
    spec = container_spec(source, out, options, instance="gpurig-test", image=image, wiring=Wiring())
    assert run_there(DockerEngine(engine, ""), spec) == 3
    seen: dict[str, Any] = json.loads((out / "report.json").read_text())
    assert seen["words"][:4] == ["quantize", str(source), "--to", "Q8_0"]
    assert (seen["content"], seen["source"], seen["interfaces"]) == ("weights", False, ["lo"])
    assert (seen["uid"], (out / "report.json").stat().st_uid) == (os.getuid(), os.getuid())
    said = capsys.readouterr()
    assert (said.out, said.err) == ("a table\n", "progress\n")
    assert engine.containers.list(all=True, filters={"name": spec.name}) == []


def test_an_interruption_ends_the_container(engine: docker.DockerClient, image: str, tmp_path: Path) -> None:
    source, out = folders(tmp_path)
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from gpurig.common.models.quantize_options import QuantizeOptions
        from gpurig.provisioning.docker_engine import DockerEngine
        from gpurig.provisioning.wiring import Wiring
        from gpurig.runner.quantizing_container import container_spec, run_there
        options = QuantizeOptions(to="Q8_0", pure=True)
        spec = container_spec(
            Path({str(source)!r}), Path({str(out)!r}), options, instance="gpurig-test", image={image!r}, wiring=Wiring()
        )
        print(spec.name, flush=True)
        run_there(DockerEngine.connect(), spec)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            name = process.stdout.readline().strip()
            assert wait_for((out / "report.json").exists, timeout_s=120)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) != 0
        finally:
            process.kill()
    assert engine.containers.list(all=True, filters={"name": name}) == []
