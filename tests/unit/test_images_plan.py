"""An image's tag is its content: any input changes it, the way to the package index does not."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.images.context import ContextFile
from gpurig.images.job_image import (
    DEFAULT_BASE_IMAGE,
    MODELS_FOLDER,
    ROCM_IMAGES,
    checked_base,
    locked_version,
    plan_job_image,
    toolkit_in_words,
)
from gpurig.images.job_spec import PACKAGED_CUDA, JobImageSpec, Wish, choose_job_image
from gpurig.images.plan import LABEL_HASH, ImagePlan, Transport, plan_image
from gpurig.runner.exporter.image import plan_exporter_image

CPU = JobImageSpec("cpu")
CUDA = JobImageSpec("cuda", cuda_major=13, archs=(75, 89), driver=580)
CUDA_12 = JobImageSpec("cuda", cuda_major=12, archs=(61,), driver=525)
ROCM = choose_job_image("rocm", [], Wish(archs=("gfx1030", "gfx1100")))
TOLD = choose_job_image("rocm", [], Wish(archs=("gfx1032",)))
REPOSITORY = Path(__file__).resolve().parents[2]
BASE = {
    "name": "gpurig-thing",
    "title": "a thing",
    "dockerfile": "Dockerfile",
    "files": (ContextFile("Dockerfile", b"FROM scratch\n"), ContextFile("a.py", b"1")),
    "build_args": {"BASE_IMAGE": "python:3.12"},
    "labels": {"backend": "cpu"},
    "transport": Transport(),
}


def _plan(**changes) -> ImagePlan:
    return plan_image(**{**BASE, **changes})


def test_equal_inputs_give_an_equal_plan():
    assert _plan() == _plan()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "gpurig-other"},
        {"title": "another thing"},
        {"files": (ContextFile("Dockerfile", b"FROM scratch\n"), ContextFile("a.py", b"2"))},
        {"files": (ContextFile("Dockerfile", b"FROM scratch \n"), ContextFile("a.py", b"1"))},
        {"files": (ContextFile("Dockerfile", b"FROM scratch\n"), ContextFile("b.py", b"1"))},
        {"build_args": {"BASE_IMAGE": "python:3.13"}},
        {"build_args": {"BASE_IMAGE": "python:3.12", "CPU_TARGET": "x86-64-v2"}},
        {"labels": {"backend": "cuda"}},
        {"folders": ("models",)},
    ],
    ids=str,
)
def test_every_input_changes_the_tag(change):
    assert _plan(**change).tag != _plan().tag


def test_the_way_to_the_index_changes_the_build_and_not_the_tag(tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\n", encoding="utf-8")
    behind_proxy = _plan(
        transport=Transport(
            pip_index_url="https://mirror.example/simple", http_proxy="http://proxy:3128", ca_bundle=bundle
        )
    )
    assert behind_proxy.tag == _plan().tag
    assert behind_proxy.build_args["PIP_INDEX_URL"] == "https://mirror.example/simple"
    # apt reads the one, requests the other.
    assert behind_proxy.build_args["HTTP_PROXY"] == behind_proxy.build_args["http_proxy"] == "http://proxy:3128"
    with tarfile.open(fileobj=io.BytesIO(behind_proxy.context)) as archive:
        assert "ca-bundle.pem" in archive.getnames()


def test_the_hash_label_begins_with_the_tags_hash():
    plan = _plan()
    assert plan.labels[LABEL_HASH].startswith(plan.tag.partition(":")[2])
    assert re.fullmatch(r"[0-9a-f]{64}", plan.labels[LABEL_HASH])


def test_a_plan_cannot_be_changed():
    plan = _plan()
    with pytest.raises(TypeError):
        plan.build_args["BASE_IMAGE"] = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.tag = "other"


@pytest.mark.parametrize(
    "content", [b"", b"not a certificate", b"-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n"]
)
def test_a_ca_bundle_that_is_none_or_holds_a_key_is_refused(tmp_path, content):
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(content)
    with pytest.raises(InputError, match="no bundle"):
        _plan(transport=Transport(ca_bundle=bundle))


def test_the_job_image_holds_the_job_programs_and_nothing_of_the_host():
    plan = plan_job_image(CPU)
    with tarfile.open(fileobj=io.BytesIO(plan.context)) as archive:
        names = set(archive.getnames())
    assert {"Dockerfile.cpu", "requirements/job.lock", "evaljobs/gpurig/evaljobs/selfcheck.py", MODELS_FOLDER} <= names
    assert not {
        name for name in names if name.startswith(("runner", "provisioning", "images/gpurig/images/j", "tests"))
    }
    assert {name for name in names if name.startswith("images/") and "." in name} == {
        f"images/gpurig/images/assets/steps/{name}"
        for name in (
            "about.py",
            "code.sh",
            "llama.sh",
            "packages.sh",
            "python.sh",
            "split-lock.sh",
            "tools.sh",
            "user.sh",
        )
    }


def test_every_path_that_a_dockerfile_copies_is_in_its_context():
    index = "https://torch.example/whl"
    specs = [dataclasses.replace(spec, target="finetune") for spec in (CPU, CUDA, CUDA_12, ROCM)]
    finetune = [plan_job_image(spec, torch_index_url=index) for spec in specs]
    for plan in (*finetune, plan_exporter_image()):
        with tarfile.open(fileobj=io.BytesIO(plan.context)) as archive:
            names = set(archive.getnames())
            dockerfile = archive.extractfile(plan.dockerfile).read().decode()
        copies = re.findall(r"^COPY (?!--from)(.*)$", dockerfile, flags=re.MULTILINE)
        assert copies
        for copy in copies:
            for source in copy.split()[:-1]:
                pattern = source.replace("${CUDA_MAJOR}", plan.build_args.get("CUDA_MAJOR", ""))
                assert fnmatch.filter(names, pattern) or source == "ca-bundle.pe[m]"


def test_the_exporter_image_holds_no_models_and_no_job_programs():
    plan = plan_exporter_image()
    with tarfile.open(fileobj=io.BytesIO(plan.context)) as archive:
        names = archive.getnames()
    assert "runner/gpurig/runner/exporter/serve.py" in names
    assert not [name for name in names if name.endswith(".gguf") or name.startswith(("evaljobs", "tests"))]


def test_a_tag_has_no_slash_so_that_no_stranger_can_own_its_name():
    assert "/" not in plan_job_image(CPU).tag + plan_exporter_image().tag


def test_the_cpu_target_is_an_input():
    assert plan_job_image(JobImageSpec("cpu", cpu_target="x86-64-v2")).tag != plan_job_image(CPU).tag


@pytest.mark.parametrize("name", ["Python:3", "python 3", "python:3\nRUN id", "-x", "a@sha256:12"])
def test_what_is_no_image_reference_is_bad_input(name):
    with pytest.raises(InputError, match="no image reference"):
        plan_job_image(CPU, base_image=name)


@pytest.mark.parametrize("name", ["debian", "my.registry:5000/team/python:3.12-slim", DEFAULT_BASE_IMAGE])
def test_an_image_reference_is_taken_as_it_is(name):
    assert checked_base(name) == name


@pytest.mark.parametrize(
    "dockerfile", ["Dockerfile.cpu", "Dockerfile.cuda", "runner/gpurig/runner/assets/Dockerfile.exporter"]
)
def test_a_dockerfile_built_by_hand_has_the_same_default_base(dockerfile):
    text = (REPOSITORY / dockerfile).read_text(encoding="utf-8")
    assert re.search(r"^ARG BASE_IMAGE=(.*)$", text, flags=re.MULTILINE)[1] == DEFAULT_BASE_IMAGE
    assert re.fullmatch(r".+@sha256:[0-9a-f]{64}", DEFAULT_BASE_IMAGE)


def test_a_lock_file_names_the_version():
    lock = ContextFile("x.lock", b"foo==1.2 ; python_version < '3' \\\n    --hash=sha256:00\nfoo-bar==9\n")
    assert locked_version(lock, "foo") == "1.2"
    with pytest.raises(PrerequisiteError, match="does not pin bar"):
        locked_version(lock, "bar")


def test_a_job_images_labels_name_what_is_in_it():
    labels = plan_job_image(CUDA, base_image=f"python:3.12@sha256:{'ab' * 32}").labels
    assert labels["io.gpurig.backend"] == "cuda"
    assert labels["io.gpurig.archs"] == "sm-75 sm-89"
    assert labels["io.gpurig.cuda"] == "13"
    assert labels["io.gpurig.target"] == "eval"
    assert re.fullmatch(r"[0-9a-f]{40}", labels["io.gpurig.llama-cpp-commit"])
    assert labels["org.opencontainers.image.base.name"] == "python:3.12"
    assert labels["org.opencontainers.image.base.digest"] == "sha256:" + "ab" * 32
    models = json.loads(labels["io.gpurig.models"])
    folder = REPOSITORY / MODELS_FOLDER
    assert models == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.gguf")}
    assert models


def test_the_build_is_told_the_architectures_as_cmake_writes_them():
    arguments = plan_job_image(CUDA).build_args
    assert arguments["CUDA_ARCHS"] == "75-real;89-real"
    assert arguments["CUDA_DRIVER"] == "580"
    assert "TOOLKIT_IMAGE" not in arguments


def _files(plan: ImagePlan) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(plan.context)) as archive:
        return {member.name for member in archive.getmembers() if member.isfile()}


@pytest.mark.parametrize(
    ("spec", "locks"),
    [(CUDA, {"cuda13.lock"}), (CUDA_12, {"cuda12.lock", "cuda12-nvcc.lock"})],
    ids=["CUDA 13", "CUDA 12"],
)
def test_an_image_is_made_of_the_lock_files_of_its_cuda_alone(spec, locks):
    plan = plan_job_image(spec)
    assert {Path(name).name for name in _files(plan) if name.startswith("requirements/cuda")} == locks
    assert plan.build_args["CUDA_MAJOR"] == str(spec.cuda_major)
    # What a build by hand in a checkout takes is the same.
    dockerfile = (REPOSITORY / "Dockerfile.cuda").read_text(encoding="utf-8")
    pattern = re.search(r"^COPY requirements/(cuda\S+) /lock/$", dockerfile, re.MULTILINE)[1]
    taken = (REPOSITORY / "requirements").glob(pattern.replace("${CUDA_MAJOR}", str(spec.cuda_major)))
    assert {path.name for path in taken} == locks


def test_cuda_12_needs_no_other_image_but_for_cards_that_came_after_its_packages():
    assert "TOOLKIT_IMAGE" not in plan_job_image(CUDA_12).build_args
    blackwell = dataclasses.replace(CUDA_12, archs=(61, 120))
    assert plan_job_image(blackwell).build_args["TOOLKIT_IMAGE"].startswith("nvidia/cuda:12.")
    for spec in (CUDA, CUDA_12, blackwell):
        assert plan_job_image(spec, toolkit_image="mine:1").build_args["TOOLKIT_IMAGE"] == "mine:1"


@pytest.mark.parametrize(
    ("spec", "image", "words"),
    [
        (CPU, "", ""),
        (CUDA, "", "13.0: NVIDIA's Python packages"),
        (CUDA_12, "", "12.4: NVIDIA's Python packages and Debian's nvcc"),
        (CUDA_12, "mine:1", "the toolkit image's"),
        (
            dataclasses.replace(CUDA_12, archs=(90, 120)),
            "mine:1",
            "the toolkit image's: packages have CUDA 12.4, without sm-120",
        ),
    ],
)
def test_a_plan_tells_where_the_compiler_comes_from(spec, image, words):
    assert toolkit_in_words(spec, image) == words


@pytest.mark.parametrize(
    ("lock", "package", "major"),
    [
        ("cuda12.lock", "nvidia-cuda-nvcc-cu12", 12),
        ("cuda12-nvcc.lock", "nvidia-cuda-toolkit", 12),
        ("cuda13.lock", "nvidia-cuda-nvcc", 13),
    ],
)
def test_the_lock_files_have_the_cuda_that_the_architectures_are_of(lock, package, major):
    file = ContextFile(lock, (REPOSITORY / "requirements" / lock).read_bytes())
    assert locked_version(file, package).startswith(PACKAGED_CUDA[major] + ".")


def test_debians_nvcc_is_of_the_release_of_nvidias_packages():
    versions = {
        locked_version(ContextFile(lock, (REPOSITORY / "requirements" / lock).read_bytes()), package).partition("~")[0]
        for lock, package in (("cuda12.lock", "nvidia-cuda-nvcc-cu12"), ("cuda12-nvcc.lock", "nvidia-cuda-toolkit"))
    }
    assert len(versions) == 1


def test_another_backends_build_steps_do_not_change_an_images_name():
    with tarfile.open(fileobj=io.BytesIO(plan_job_image(CPU).context)) as archive:
        assert not [name for name in archive.getnames() if "cuda" in name or "nvcc" in name]


def test_the_target_is_an_input():
    assert _plan(target="finetune").tag != _plan(target="eval").tag
    assert _plan(target="finetune").target == "finetune"


def test_a_rocm_build_is_told_its_targets_and_which_images_have_the_compiler_and_fit_it():
    arguments = plan_job_image(ROCM).build_args
    assert (arguments["GFX_TARGETS"], arguments["RUNS_AS"]) == ("gfx1030;gfx1100", "itself")
    told = plan_job_image(TOLD).build_args
    assert (told["GFX_TARGETS"], told["RUNS_AS"]) == ("gfx1030", "gfx1030")
    assert "gfx1032" in told["GFX_CARDS"].split(";")
    # Debian's packages go into a Debian image, and come from one.
    assert told["TOOLKIT_IMAGE"] == told["BASE_IMAGE"]
    assert plan_job_image(TOLD).tag != plan_job_image(dataclasses.replace(TOLD, runs_as="")).tag


def test_the_rocm_dockerfile_built_by_hand_has_the_default_images_of_amds_rocm():
    text = (REPOSITORY / "Dockerfile.rocm").read_text(encoding="utf-8")
    arguments = plan_job_image(ROCM).build_args
    for name in ("TOOLKIT_IMAGE", "BASE_IMAGE"):
        assert re.search(rf"^ARG {name}=(.*)$", text, flags=re.MULTILINE)[1] == arguments[name]


@pytest.mark.parametrize("source", sorted(ROCM_IMAGES))
def test_the_default_images_of_a_rocm_are_pinned(source):
    assert all(re.fullmatch(r".+@sha256:[0-9a-f]{64}", image) for image in ROCM_IMAGES[source])


def test_default_images_come_from_the_mirror_and_named_ones_do_not():
    def mirror(image):
        return f"mirror.example/{image}"

    arguments = plan_job_image(ROCM, from_mirror=mirror).build_args
    assert arguments["BASE_IMAGE"].startswith("mirror.example/ubuntu:")
    assert arguments["TOOLKIT_IMAGE"].startswith("mirror.example/rocm/")
    named = plan_job_image(ROCM, base_image="a:1", toolkit_image="b:2", from_mirror=mirror).build_args
    assert (named["BASE_IMAGE"], named["TOOLKIT_IMAGE"]) == ("a:1", "b:2")


def test_a_rocm_images_labels_name_its_targets_and_whose_rocm_it_is():
    labels = plan_job_image(ROCM).labels
    assert (labels["io.gpurig.archs"], labels["io.gpurig.rocm"]) == ("gfx1030 gfx1100", "amd")
    assert "io.gpurig.runs-as" not in labels
    assert plan_job_image(TOLD).labels["io.gpurig.runs-as"] == "gfx1030"


@pytest.mark.parametrize("spec", [CPU, JobImageSpec("cuda", cuda_major=12, archs=(61,)), JobImageSpec("rocm")])
def test_fine_tuning_needs_to_know_where_pytorch_comes_from(spec):
    with pytest.raises(InputError, match="PyTorch for CUDA 13 alone"):
        plan_job_image(dataclasses.replace(spec, target="finetune"))


@pytest.mark.parametrize(("archs", "advice"), [((61,), "cu126"), ((61, 120), "no code for sm-120: install driver 580")])
def test_who_fine_tunes_with_cuda_12_is_told_which_of_pytorchs_builds_has_code_for_the_card(archs, advice):
    with pytest.raises(InputError) as caught:
        plan_job_image(dataclasses.replace(CUDA_12, archs=archs, target="finetune"))
    assert advice in caught.value.hint


def test_the_package_index_has_pytorch_for_cuda_13():
    plan = plan_job_image(dataclasses.replace(CUDA, target="finetune"))
    assert "TORCH_INDEX_URL" not in plan.build_args
    locked = (REPOSITORY / "requirements/finetune.lock").read_text(encoding="utf-8")
    assert re.search(r"^nvidia-cudnn-cu13==", locked, re.MULTILINE)


@pytest.mark.parametrize("url", ["https://user:hunter2@torch.example/whl", "nonsense", "http://[", "file:///etc"])
def test_an_index_for_pytorch_that_cannot_be_used_is_refused_without_showing_it(url):
    with pytest.raises(InputError) as caught:
        plan_job_image(dataclasses.replace(CPU, target="finetune"), torch_index_url=url)
    assert "hunter2" not in caught.value.message + caught.value.hint


def test_what_only_fine_tuning_needs_does_not_change_the_other_images_name():
    with tarfile.open(fileobj=io.BytesIO(plan_job_image(CPU).context)) as archive:
        assert not [name for name in archive.getnames() if "finetune" in name]


def test_both_targets_have_the_cublas_of_pytorch():
    versions = {
        re.search(r"^nvidia-cublas==(\S+)", (REPOSITORY / "requirements" / name).read_text(), re.MULTILINE)[1]
        for name in ("cuda13.lock", "finetune.lock")
    }
    assert len(versions) == 1
