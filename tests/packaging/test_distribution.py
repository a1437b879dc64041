"""What is shipped: built as a packager would, installed as a user would."""

from __future__ import annotations

import os
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from gpurig.common.process import Finished, run
from gpurig.common.version import __version__

REPOSITORY = Path(__file__).resolve().parents[2]
PORTIONS = ("common", "provisioning", "images", "evaljobs", "runner")


def _ran(*argv: str, cwd: Path = REPOSITORY, env: dict[str, str] | None = None) -> Finished:
    done = run(argv, timeout_s=600, cwd=cwd, env=env)
    assert done.code == 0, f"{argv}: {done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it and from nothing else."""
    out = tmp_path_factory.mktemp("dist")
    _ran(sys.executable, "-m", "build", "--sdist", "--outdir", str(out), ".")
    [sdist] = out.glob("*.tar.gz")
    tree = out / "tree"
    with tarfile.open(sdist) as archive:
        archive.extractall(tree, filter="data")
    [unpacked] = tree.iterdir()
    _ran(sys.executable, "-m", "build", "--wheel", "--outdir", str(out), ".", cwd=unpacked)
    [wheel] = out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that holds the wheel and the box's locked packages; its bin folder."""
    home = tmp_path_factory.mktemp("venv") / "fresh"
    _ran(sys.executable, "-m", "venv", str(home))
    binaries = home / "bin"
    _ran(str(binaries / "pip"), "install", "--quiet", "--require-hashes", "-r", "requirements/box.lock")
    _ran(str(binaries / "pip"), "install", "--quiet", "--no-deps", str(distributions[1]))
    return binaries


def _shipped_sources() -> set[str]:
    """The files of the five portions, as the wheel must name them."""
    found = set()
    for portion in PORTIONS:
        folder = REPOSITORY / portion
        found |= {
            str(path.relative_to(folder))
            for path in (folder / "gpurig").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
    return found


def _forced_files() -> dict[str, str]:
    """Repository path -> path in the wheel, of the files that pyproject.toml puts beside the code."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    forced: dict[str, str] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    files = {}
    for source, target in forced.items():
        path = REPOSITORY / source
        for file in path.rglob("*") if path.is_dir() else (path,):
            if file.is_file():
                files[str(file.relative_to(REPOSITORY))] = str(Path(target) / file.relative_to(path))
    return files


def test_the_wheel_holds_exactly_the_packages_and_their_assets(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == _shipped_sources() | set(_forced_files().values())


def test_the_wheel_holds_every_dockerfile_and_no_test(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[1]) as wheel:
        names = wheel.namelist()
    dockerfiles = {path.name for path in REPOSITORY.glob("Dockerfile.*")}
    assert dockerfiles
    assert dockerfiles <= {Path(name).name for name in names}
    assert not [name for name in names if "test" in Path(name).parts[0] or "/tests/" in name]


def test_the_wheel_carries_the_license(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[1]) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]
        assert "Apache License" in wheel.read(name).decode()


def test_the_namespace_has_no_init_file_anywhere(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[1]) as wheel:
        assert "gpurig/__init__.py" not in wheel.namelist()
    assert not list(REPOSITORY.glob("*/gpurig/__init__.py"))


@pytest.mark.parametrize("script", ["gpurig", "gpurig-job"])
def test_an_installed_script_says_its_version_from_the_root_folder(installed: Path, script: str) -> None:
    clean = {"PATH": os.environ["PATH"], "HOME": str(installed)}
    said = _ran(str(installed / script), "--version", cwd=Path("/"), env=clean).stdout
    assert said == f"{script}, version {__version__}\n"


def test_every_command_shows_its_help_with_an_example_when_installed(installed: Path) -> None:
    from gpurig.runner.__main__ import COMMANDS

    for name in COMMANDS:
        said = _ran(str(installed / "gpurig"), name, "--help", cwd=Path("/")).stdout
        assert "Example" in said, f"gpurig {name} --help shows no example"


def test_the_installed_package_finds_its_assets(installed: Path) -> None:
    probe = (
        "from gpurig.common.assets import find_asset as f;"
        "print(f('gpurig.images', 'Dockerfile.cpu')); print(f('gpurig.images', 'requirements/job.lock'));"
        "print(f('gpurig.runner', 'examples/ci-jobs'))"
    )
    lines = _ran(str(installed / "python"), "-c", probe, cwd=Path("/")).stdout.split()
    assert len(lines) == 3
    assert all("site-packages" in line for line in lines)


def test_an_image_has_one_name_whether_it_is_planned_from_a_wheel_or_a_checkout(
    distributions: tuple[Path, Path], installed: Path
) -> None:
    probe = (
        "from gpurig.images.job_image import plan_job_image as job;"
        "from gpurig.images.job_spec import JobImageSpec as S;"
        "from gpurig.runner.exporter.image import plan_exporter_image as exporter;"
        "import gpurig.images.plan as plan; print(job(S('cpu')).tag, exporter().tag, plan.__file__)"
    )
    [checkout] = (distributions[0].parent / "tree").iterdir()
    paths = os.pathsep.join(str(checkout / portion) for portion in PORTIONS)
    python = str(installed / "python")
    job, exporter, place = _ran(python, "-c", probe, cwd=Path("/")).stdout.split()
    assert "site-packages" in place
    tags = _ran(python, "-c", probe, cwd=Path("/"), env={**os.environ, "PYTHONPATH": paths}).stdout.split()
    assert tags == [job, exporter, str(checkout / "images/gpurig/images/plan.py")]


def test_a_job_image_asks_for_nothing_that_the_eval_extra_does_not() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    known = set(project["dependencies"]) | set(project["optional-dependencies"]["eval"])
    lines = (REPOSITORY / "requirements/job.in").read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} <= known


def test_no_lock_file_names_a_registry() -> None:
    for lock in (REPOSITORY / "requirements").glob("*.lock"):
        assert "://" not in lock.read_text(), lock.name
    # npm keeps homepages of donors in it; where a package came from would be "resolved".
    assert '"resolved"' not in (REPOSITORY / "requirements/clients/package-lock.json").read_text()
