"""The images on a real engine: what they hold, what they refuse, and what a change costs."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from gpurig.common.waiting import wait_for
from gpurig.images.build import ensure_image
from gpurig.images.plan import LABEL_HASH, LABEL_LLAMA
from gpurig.runner.exporter.image import plan_exporter_image
from standins.cyclonedx import schema_errors
from standins.images import with_change

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker


@pytest.fixture
def temporary_tags(engine: docker.DockerClient) -> Iterator[list[str]]:
    """Tags that the test makes, removed after it."""
    from docker.errors import ImageNotFound

    tags: list[str] = []
    yield tags
    for tag in tags:
        try:
            engine.images.remove(tag, force=True)
        except ImageNotFound:
            continue


def _run(engine: docker.DockerClient, image: str, *command: str, stdin: str = "", **settings) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a container."""
    container = engine.containers.create(image, list(command), stdin_open=bool(stdin), network_mode="none", **settings)
    try:
        if stdin:
            attached = container.attach_socket(params={"stdin": 1, "stream": 1})
            raw = attached._sock
            container.start()
            raw.sendall(stdin.encode())
            # docker-py leaves the connection below to the garbage collector.
            attached.close()
            raw.close()
        else:
            container.start()
        code = container.wait(timeout=120)["StatusCode"]
        return code, container.logs(stderr=False).decode(), container.logs(stdout=False).decode()
    finally:
        container.remove(force=True)


def test_a_second_build_finds_the_image(engine, job_image, job_plan):
    again = ensure_image(engine, job_plan, on_line=pytest.fail)
    assert (again.built, again.tag) == (False, job_image)


def test_the_selfcheck_runs_as_a_job_would(engine, job_image, job_plan):
    code, out, err = _run(
        engine, job_image, "gpurig-job", "selfcheck", "--json", cap_drop=["ALL"], security_opt=["no-new-privileges"]
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["backend"] == "cpu"
    assert found["cpu_target"] == "x86-64-v3"
    assert [device["kind"] for device in found["devices"]] == ["cpu"]
    assert found["versions"]["llama-cpp-python"] == job_plan.labels[LABEL_LLAMA]


@pytest.mark.parametrize("backend", ["cuda", "rocm"])
def test_a_gpu_backend_ends_with_4_in_this_image(engine, job_image, backend):
    code, out, err = _run(engine, job_image, "gpurig-job", "selfcheck", "--backend", backend)
    assert (code, out) == (4, "")
    assert f"no {backend} device" in err
    assert "an image for cpu" in err


def test_a_processor_below_the_level_ends_with_4_and_not_with_a_signal(engine, job_image):
    manifest = '{"backend": "cpu", "cpu_target": "x86-64-v4"}'
    # A manifest of a level that no machine has in full stands in for an old processor.
    script = f"""
import gpurig.evaljobs.selfcheck as s, sys
s.read_manifest = lambda _path: {manifest}
s._cpu_flags = lambda: frozenset({{"sse4_2"}})
from gpurig.evaljobs.__main__ import main
sys.argv = ["gpurig-job", "selfcheck"]
main()
"""
    code, _, err = _run(engine, job_image, "/opt/gpurig/bin/python", "-c", script)
    assert code == 4
    assert "avx2" in err


def test_a_job_script_runs_as_gitlab_runner_starts_it(engine, job_image):
    # The shell detection of gitlab-runner's Docker executor ends in the first shell there is, with the script as input.
    detect = "if [ -x /bin/bash ]; then exec /bin/bash; elif [ -x /bin/sh ]; then exec /bin/sh; else exit 1; fi"
    code, out, err = _run(
        engine, job_image, "sh", "-c", detect, stdin="set -eo pipefail\ngpurig-job --version\nexit 0\n"
    )
    assert code == 0, err
    assert out.startswith("gpurig-job, version")


def test_the_user_is_not_root_and_cannot_change_the_programs(engine, job_image):
    script = """
id -u
for d in /opt/gpurig /opt/gpurig/app /usr/local/bin /etc; do [ -w $d ] && echo writable $d; done
cd && touch x && echo home
"""
    code, out, _ = _run(engine, job_image, "sh", "-c", script)
    assert (code, out.split()) == (0, ["1000", "home"])


def test_a_checkouts_files_do_not_shadow_modules(engine, job_image):
    script = """
cd && for m in yaml click gpurig llama_cpp; do echo 'raise SystemExit("shadowed")' > $m.py; done
PYTHONPATH=. gpurig-job --version
"""
    code, out, err = _run(engine, job_image, "sh", "-c", script)
    assert code == 0, err
    assert out.startswith("gpurig-job, version")


def test_every_module_of_the_job_programs_imports_in_the_image(engine, job_image):
    script = """
import importlib, pkgutil, gpurig.common, gpurig.evaljobs
for package in (gpurig.common, gpurig.evaljobs):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
            print(module.name)
        except ModuleNotFoundError as error:
            print(module.name, "needs", error.name)
"""
    code, out, err = _run(engine, job_image, "/opt/gpurig/bin/python", "-I", "-c", script)
    assert code == 0, err
    assert "gpurig.evaljobs.selfcheck" in out
    # lm-evaluation-harness is as large as all the rest, and its users bring it (docs/lm-eval.md).
    assert [line for line in out.splitlines() if " needs " in line] == ["gpurig.evaljobs.harness.model needs lm_eval"]


def test_nothing_of_the_host_and_no_compiler_is_in_the_image(engine, job_image):
    script = """
for m in docker pynvml prometheus_client gpurig.runner gpurig.provisioning gpurig.images pip; do
    /opt/gpurig/bin/python -I -c "import $m" 2>/dev/null && echo module $m
done
for p in gcc g++ cc c++ cmake ninja; do command -v $p; done
ls /ca /lock /wheels /steps /about 2>/dev/null
true
"""
    code, out, _ = _run(engine, job_image, "sh", "-c", script)
    assert (code, out) == (0, "")


def test_the_labels_say_what_it_is(engine, job_image, job_plan):
    labels = engine.images.get(job_image).labels
    assert dict(job_plan.labels).items() <= labels.items()
    assert labels[LABEL_HASH].startswith(job_image.partition(":")[2])


def test_a_change_of_code_rebuilds_in_seconds(engine, job_image, job_plan, temporary_tags):
    mark = f"\nCHANGED = {time.time_ns()}\n".encode()
    changed = with_change(job_plan, "evaljobs/gpurig/evaljobs/__init__.py", mark, "gpurig-test:changed")
    temporary_tags.append(changed.tag)
    lines: list[str] = []
    start = time.monotonic()
    assert ensure_image(engine, changed, on_line=lines.append).built
    took = time.monotonic() - start
    assert took < 15, f"{took:.1f} s"
    assert not [line for line in lines if "Building wheel" in line or "Collecting" in line]
    code, out, _ = _run(
        engine, changed.tag, "/opt/gpurig/bin/python", "-I", "-c", "import gpurig.evaljobs as e; print(e.CHANGED)"
    )
    assert (code, out.strip().isdigit()) == (0, True)


def test_the_image_has_an_sbom_of_what_is_in_it(engine, job_image, job_plan):
    code, out, _ = _run(engine, job_image, "cat", "/opt/gpurig/sbom.cdx.json")
    assert code == 0
    sbom = json.loads(out)
    assert schema_errors(sbom) == []
    found = {one["name"]: one for one in sbom["components"]}
    assert found["llama.cpp"]["version"] == job_plan.labels["io.gpurig.llama-cpp-commit"]
    models = json.loads(job_plan.labels["io.gpurig.models"])
    assert models == {name: found[name]["hashes"][0]["content"] for name in models}
    code, out, _ = _run(engine, job_image, "dpkg-query", "-W", "-f", "${Package}=${Version}\n")
    assert code == 0
    debian = {f"{one['name']}={one['version']}" for one in found.values() if "pkg:deb" in one.get("purl", "")}
    assert set(out.split()) <= debian
    script = "from importlib.metadata import distributions as d; print(*{one.name for one in d()})"
    code, out, _ = _run(engine, job_image, "/opt/gpurig/bin/python", "-I", "-c", script)
    assert code == 0
    assert set(out.split()) <= found.keys()


def test_a_jobs_orphans_are_reaped(engine, job_image):
    # The inner shell ends at once, and its child belongs to process 1 from then on.
    script = "cat /proc/1/comm; sh -c 'sleep 0.2 &'; sleep 1; grep -l 'State:.Z' /proc/[0-9]*/status; true"
    code, out, _ = _run(engine, job_image, "sh", "-c", script)
    assert (code, out.split()) == (0, ["tini"])


@pytest.fixture(scope="module")
def exporter_image(engine: docker.DockerClient, base_image: str) -> str:
    return ensure_image(engine, plan_exporter_image(base_image=base_image), on_line=lambda _: None).tag


def test_the_exporter_serves_from_a_confined_container_and_stops_cleanly(engine, exporter_image):
    container = engine.containers.run(
        exporter_image,
        ["metrics", "serve", "--listen", "0.0.0.0:9476", "--backend", "demo", "--insecure"],
        detach=True,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        ports={"9476/tcp": ("127.0.0.1", None)},
    )
    try:

        def scraped() -> str:
            container.reload()
            bound = container.ports.get("9476/tcp")
            if not bound:
                return ""
            try:
                url = f"http://127.0.0.1:{bound[0]['HostPort']}/metrics"
                with urllib.request.urlopen(url, timeout=5) as answer:
                    return answer.read().decode()
            except OSError:
                return ""

        text = wait_for(scraped, timeout_s=30)
        assert text, container.logs().decode()
        assert "gpurig_gpu_power_watts{" in text
        assert container.exec_run(["id", "-u"]).output.strip() == b"60947"
        container.stop(timeout=10)
        assert container.wait()["StatusCode"] == 0
    finally:
        container.remove(force=True)


def test_the_exporters_image_has_no_models_and_no_llama(engine, exporter_image):
    code, out, _ = _run(
        engine,
        exporter_image,
        "-c",
        "find / -xdev -name '*.gguf' 2>/dev/null; /opt/gpurig/bin/python -I -c 'import llama_cpp' 2>&1 | tail -1",
        entrypoint="sh",
    )
    assert (code, out.strip()) == (0, "ModuleNotFoundError: No module named 'llama_cpp'")
