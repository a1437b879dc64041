"""What a change costs a push: the layer that changed, and no other; and a token that shows nowhere on the way."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess  # noqa: TID251 - a program that is watched while it runs
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gpurig.common.process import run
from gpurig.images.build import ensure_image
from gpurig.images.job_image import MODELS_FOLDER
from gpurig.images.plan import ImagePlan
from standins.images import image_bytes_with, with_change
from standins.registry import USER, Registry, registry

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker

GPURIG = [sys.executable, "-m", "gpurig.runner", "images"]


@pytest.fixture(scope="module")
def own_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def _push(tag: str, where: Registry, folder: Path) -> dict[str, Any]:
    token = folder / "token"
    token.write_text(where.password + "\n")
    words = [tag, "--to", f"{where.host}/team/app", "--username", USER, "--token-file", str(token), "--json"]
    done = run([*GPURIG, "push", *words], timeout_s=600)
    assert done.code == 0, done.stderr
    (document,) = json.loads(done.stdout)["images"]
    assert isinstance(document, dict)
    return document


@pytest.fixture(
    params=[
        (f"{MODELS_FOLDER}/another.gguf", "GGUF-planted-{}"),
        ("evaljobs/gpurig/evaljobs/__init__.py", "\n# planted-{}\n"),
    ],
    ids=["models", "code"],
)
def changed(request: pytest.FixtureRequest, job_plan: ImagePlan) -> ImagePlan:
    """The job image after a change of the models, or of the code."""
    path, text = request.param
    return with_change(job_plan, path, text.format(time.time_ns()).encode(), "gpurig-test-changed:1")


def test_a_change_sends_its_own_layer_and_no_other(engine, job_image, changed, own_registry, tmp_path):
    _push(job_image, own_registry, tmp_path)
    try:
        ensure_image(engine, changed)
        pushed = _push(changed.tag, own_registry, tmp_path)
        # image.json and the SBOM, which name models and packages, are a layer of some kilobytes.
        assert pushed["layers_sent"] in {1, 2}, pushed
        assert pushed["sent_bytes"] < 20_000_000
        assert pushed["layers"] > 6
        before, after = (_layers(engine, tag) for tag in (job_image, changed.tag))
        assert len(set(after) - set(before)) == pushed["layers_sent"]
    finally:
        engine.images.remove(changed.tag, force=True)


def _layers(engine: docker.DockerClient, tag: str) -> list[str]:
    layers = engine.images.get(tag).attrs["RootFS"]["Layers"]
    return [str(layer) for layer in layers]


def test_the_token_is_in_no_output_no_process_list_no_file_and_no_image(
    engine, job_image, own_registry, tmp_path, monkeypatch
):
    home = tmp_path / "home"
    home.mkdir()
    job = {
        "HOME": str(home),
        "CI_REGISTRY": own_registry.host,
        "CI_REGISTRY_IMAGE": f"{own_registry.host}/team/job",
        "CI_REGISTRY_USER": USER,
        "CI_REGISTRY_PASSWORD": own_registry.password,
    }
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_CONFIG")} | job
    seen: set[bytes] = set()
    with (
        (tmp_path / "said").open("w") as said,
        subprocess.Popen([*GPURIG, "push", job_image], env=environment, stdout=said, stderr=said) as process,
    ):
        while process.poll() is None:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(path.read_bytes())
    text = (tmp_path / "said").read_text()
    assert process.returncode == 0, text
    assert f"pushed {own_registry.host}/team/job/{job_image}" in text
    assert "there already" in text or "sent" in text
    secret = own_registry.password.encode()
    assert any(job_image.encode() in words for words in seen)
    assert not any(secret in words for words in seen)
    assert own_registry.password not in text
    assert list(home.rglob("*")) == []
    assert not image_bytes_with(engine, job_image, [secret])


def test_a_refused_login_ends_with_5_and_one_line(job_image, own_registry, tmp_path):
    (tmp_path / "token").write_text("planted-wrong-token")
    done = run(
        [*GPURIG, "push", job_image, "--to", f"{own_registry.host}/x", "--token-file", str(tmp_path / "token")],
        timeout_s=120,
    )
    assert (done.code, done.stdout) == (5, "")
    message, hint = done.stderr.strip().splitlines()
    assert message.endswith(f"{own_registry.host} does not accept the login")
    assert hint.startswith("  hint: ")
    assert "planted-wrong-token" not in done.stderr
