"""A suite's models come from a download where no folder has them, and the records say which file ran."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.process import Finished, run
from standins.eval_box import EvalBox
from standins.gitlab import GitLab
from standins.gitlab.packages_api import add_package_file
from standins.hub import Hub
from standins.pulling import digest

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

REPO = "team/models-GGUF"
ENTRY = """
[models.{name}]
source = "hf"
repository = "team/models-GGUF"
file = "{name}.gguf"
revision = "{commit}"
sha256 = "{sha256}"
size_bytes = {size}
license = "{license}"
context = 512
chat_template = "none"
roles = ["generator"]
vram_gb = 0
"""


class Site:
    """A suite whose models are in no folder, and a hub and a catalogue that have them."""

    def __init__(self, root: Path, hub: Hub) -> None:
        self.box = EvalBox(root)
        self.hub = hub
        self.data = {path.name: path.read_bytes() for path in self.box.models.iterdir()}
        for path in self.box.models.iterdir():
            path.unlink()
        self.commit = hub.commit(REPO, self.data)
        self.catalogue = root / "models.toml"
        self.write()

    def write(self, license_: str = "MIT") -> None:
        entries = [
            ENTRY.format(
                name=file.removesuffix(".gguf"),
                commit=self.commit,
                sha256=digest(data),
                size=len(data),
                license=license_,
            )
            for file, data in self.data.items()
        ]
        self.catalogue.write_text("version = 1\n" + "".join(entries))

    @property
    def cache(self) -> Path:
        return self.box.root / "cache"

    def job(self, stage: str, *words: str, **environ: str) -> Finished:
        options = ["--out", str(self.box.out), *words]
        if stage != "check":
            options += ["--models-cache", str(self.cache), "--catalogue", str(self.catalogue)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "CI_", "GPURIG_"))}
        return run(
            [sys.executable, "-m", "gpurig.evaljobs", stage, str(self.box.root), *options],
            timeout_s=120,
            env={**clean, "HF_ENDPOINT": self.hub.url, **environ},
        )

    def models(self, file: str) -> list[dict[str, Any]]:
        return [record["model"] for record in self.box.records(file) if "model" in record]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Hub() as hub:
        yield Site(tmp_path, hub)


def test_what_no_folder_has_is_downloaded_told_and_recorded(site: Site) -> None:
    done = site.job("eval", "--note", "never")
    assert done.code == 0, done.stderr
    assert f"this machine has no writer: downloading it (hf:{REPO}/writer.gguf@{site.commit}" in done.stderr
    assert "pull: " in done.stderr
    for name, file in (("writer", "generations.jsonl"), ("judge", "grades.jsonl")):
        (model,) = {json.dumps(model, sort_keys=True) for model in site.models(file)}
        found = json.loads(model)
        # The grader is fetched before an hour of generating, and is in the cache when it is needed.
        assert found["place"] == ("download" if name == "writer" else "cache")
        assert found["sha256"] == digest(site.data[f"{name}.gguf"])
        assert found["source"] == f"hf:{REPO}/{name}.gguf@{site.commit}"
    results = json.loads((site.box.out / "results.json").read_text())
    assert results["generator"]["source"].endswith(site.commit)
    assert f"from hf:{REPO}/writer.gguf@{site.commit}" in (site.box.out / "report.html").read_text()


def test_the_next_job_finds_the_cache_and_asks_nobody(site: Site) -> None:
    assert site.job("generate").code == 0
    asked = len(site.hub.requests)
    assert site.job("generate", "--out", str(site.box.root / "again"), "--offline").code == 0
    assert len(site.hub.requests) == asked


@pytest.mark.parametrize(
    ("words", "environ"), [(("--no-download",), {}), (("--offline",), {}), ((), {"GPURIG_NO_DOWNLOAD": "1"})]
)
def test_a_job_that_must_not_download_says_so(site: Site, words: tuple[str, ...], environ: dict[str, str]) -> None:
    done = site.job("generate", *words, **environ)
    assert done.code == 4
    assert 'no model "writer"' in done.stderr
    assert "--no-download forbids" in done.stderr
    assert site.hub.requests == []
    assert not site.box.out.joinpath("generations.jsonl").exists()


def test_the_hubs_own_offline_switch_is_honoured(site: Site) -> None:
    done = site.job("generate", HF_HUB_OFFLINE="1")
    assert done.code == 4
    assert "HF_HUB_OFFLINE" in done.stderr
    assert site.hub.requests == []


def test_a_license_with_conditions_is_asked_for_and_may_be_accepted_by_a_variable(site: Site) -> None:
    site.write("gemma")
    refused = site.job("generate")
    assert refused.code == 2
    assert "--allow-license gemma" in refused.stderr
    assert site.hub.requests == []
    assert site.job("generate", GPURIG_ALLOW_LICENSE="gemma").code == 0


def test_a_grader_that_cannot_be_fetched_is_told_before_anything_is_generated(site: Site) -> None:
    site.hub.repositories[REPO].commits[site.commit].pop("judge.gguf")
    done = site.job("eval", "--note", "never")
    assert done.code == 5
    assert "no such file" in done.stderr
    assert not site.box.out.joinpath("generations.jsonl").exists()


def test_a_job_fetches_from_its_own_gitlab_with_its_own_token(site: Site, gitlab: GitLab) -> None:
    project = gitlab.add_project("team/app")
    for file, data in site.data.items():
        add_package_file(gitlab.state, project, "models", "1", file, content=data)
    text = site.catalogue.read_text().replace(
        f'source = "hf"\nrepository = "{REPO}"',
        'source = "gitlab"\nproject = "team/app"\npackage = "models"\nversion = "1"',
    )
    site.catalogue.write_text(text.replace(f'revision = "{site.commit}"\n', ""))
    from standins.calls import HandRunner

    runner = HandRunner.make(gitlab, project.id, "cpu")
    gitlab.create_pipeline(project, "make: {tags: [cpu], script: [echo]}")
    token = runner.take()["token"]
    done = site.job("generate", CI_SERVER_URL=gitlab.url, CI_JOB_TOKEN=token)
    assert done.code == 0, done.stderr
    assert token not in done.stderr
    assert {model["source"] for model in site.models("generations.jsonl")} == {"gitlab:team/app/models/1/writer.gguf"}
