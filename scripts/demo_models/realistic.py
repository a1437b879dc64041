"""Pipelines as people write them. Training never sees these names; the suite and half of the calibration set do."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from demo_models.pipelines import DEFAULT_STAGES, Cache, Job, Kind, Matrix, Pipeline


@dataclass(frozen=True)
class Ecosystem:
    """What is usual around one language or tool. Every tuple is what one job picks from."""

    images: tuple[str, ...]
    build: tuple[tuple[str, tuple[str, ...]], ...]
    test: tuple[tuple[str, tuple[str, ...]], ...]
    deploy: tuple[tuple[str, tuple[str, ...]], ...]
    cache: tuple[Cache, ...]
    artifacts: tuple[str, ...]
    matrix: Matrix
    services: tuple[str, ...]


_ECOSYSTEMS = (
    Ecosystem(
        images=("python:3.12-slim", "python:3.11", "python:3.13-bookworm"),
        build=(("wheel", ("pip install build", "python -m build")), ("build-sdist", ("python -m build --sdist",))),
        test=(
            ("unit-tests", ("pip install -e .[dev]", "pytest tests/unit")),
            ("lint-python", ("ruff check src", "mypy src")),
            ("coverage", ("pip install coverage", "coverage run -m pytest", "coverage xml")),
        ),
        deploy=(("upload-pypi", ("pip install twine", "twine upload --skip-existing dist")),),
        cache=(Cache("pip", ".cache/pip/"), Cache("poetry", ".venv/")),
        artifacts=("dist/", "coverage.xml", "report.xml"),
        matrix=Matrix("python", ("3.11", "3.12", "3.13")),
        services=("postgres:16", "redis:7"),
    ),
    Ecosystem(
        images=("node:22", "node:20-alpine", "node:22-bookworm"),
        build=(("build-frontend", ("npm ci", "npm run build")), ("bundle-assets", ("npm ci", "npx vite build"))),
        test=(
            ("jest", ("npm ci", "npx jest --ci")),
            ("eslint", ("npm run lint",)),
            ("e2e-chrome", ("npm ci", "npx playwright test --project chromium")),
        ),
        deploy=(("deploy-preview", ("npm ci", "npx wrangler deploy --env preview")),),
        cache=(Cache("npm", ".npm/"), Cache("modules", "node_modules/")),
        artifacts=("public/", "playwright-report/", "junit.xml"),
        matrix=Matrix("node", ("20", "22", "24")),
        services=("mongo:7", "mysql:8.4"),
    ),
    Ecosystem(
        images=("golang:1.23", "golang:1.24-alpine"),
        build=(("compile", ("go vet ./...", "go build -o bin/server ./cmd/server")),),
        test=(
            ("go-test", ("go test -race ./...",)),
            ("golangci", ("golangci-lint run --timeout 5m",)),
            ("benchmarks", ("go test -bench . ./internal/parser",)),
        ),
        deploy=(("goreleaser", ("goreleaser release --clean",)),),
        cache=(Cache("gomod", ".go/pkg/mod/"),),
        artifacts=("bin/server", "bench.txt"),
        matrix=Matrix("go", ("1.22", "1.23", "1.24")),
        services=("redis:7-alpine", "postgres:17"),
    ),
    Ecosystem(
        images=("rust:1.84", "rust:1.83-slim"),
        build=(("cargo-build", ("cargo build --release --locked",)),),
        test=(
            ("clippy", ("rustup component add clippy", "cargo clippy --all-targets")),
            ("cargo-test", ("cargo test --workspace",)),
            ("miri", ("cargo miri test",)),
        ),
        deploy=(("crates-io", ("cargo publish --dry-run", "cargo publish")),),
        cache=(Cache("cargo", "target/"),),
        artifacts=("target/release/", "lcov.info"),
        matrix=Matrix("arch", ("amd64", "arm64")),
        services=("postgres:16-alpine",),
    ),
    Ecosystem(
        images=("ubuntu:24.04", "debian:bookworm", "registry.example.com/hpc/cmake-cuda:12.4"),
        build=(
            ("configure", ("cmake -S . -B build", "cmake --build build -j8")),
            ("llama-server", ("make -j16 server",)),
        ),
        test=(
            ("ctest", ("ctest --test-dir build --output-on-failure",)),
            ("gpu-smoke", ("nvidia-smi", "./build/bin/smoke --device 0")),
        ),
        deploy=(("package-deb", ("cpack -G DEB", "dpkg -c gpurig.deb")),),
        cache=(Cache("ccache", ".ccache/"),),
        artifacts=("build/bin/", "gpurig.deb", "ctest.log"),
        matrix=Matrix("backend", ("cpu", "cuda", "rocm")),
        services=("minio/minio:latest",),
    ),
    Ecosystem(
        images=("hashicorp/terraform:1.10", "alpine/helm:3.16", "alpine:3.21"),
        build=(("render-charts", ("helm template charts/web",)),),
        test=(
            ("tf-validate", ("terraform init -backend=false", "terraform validate")),
            ("shellcheck", ("apk add shellcheck", "shellcheck scripts/install.sh")),
        ),
        deploy=(
            ("rollout", ("helm upgrade --install web charts/web",)),
            ("terraform-apply", ("terraform init", "terraform apply -auto-approve")),
        ),
        cache=(Cache("terraform", ".terraform/"),),
        artifacts=("plan.json", "rendered/"),
        matrix=Matrix("arch", ("amd64", "arm64", "riscv64")),
        services=("docker:27-dind",),
    ),
)
_TAGS = ("gpu", "docker", "linux", "vram-8gb", "highmem")
_VARIABLES = (
    ("LOG_LEVEL", "debug"), ("GIT_DEPTH", "1"), ("CARGO_TERM_COLOR", "always"), ("NODE_ENV", "production"),
    ("PIP_NO_CACHE_DIR", "1"), ("CUDA_VISIBLE_DEVICES", "0"), ("DATABASE_NAME", "shop"), ("RETRIES", "3"),
)  # fmt: skip
_FEATURES = ("tag", "services", "variables", "cache", "matrix", "artifacts", "rule", "rule", "timeout", "allow_failure")


def realistic_pipeline(rng: random.Random, kind: Kind, jobs: int, features: int) -> Pipeline:
    """A pipeline of one ecosystem.

    Args:
        rng: decides everything.
        kind: of the task.
        jobs: how many, 1 to 3; they are in the order of their stages.
        features: how many a job uses beside stage, image and script.
    """
    ecosystem = rng.choice(_ECOSYSTEMS)
    image = rng.choice(ecosystem.images)
    stages = sorted(rng.sample(range(3), jobs))
    made: list[Job] = []
    for index in stages:
        stage = DEFAULT_STAGES[index]
        name, script = rng.choice(getattr(ecosystem, stage))
        job = _with_features(Job(name, image, script), ecosystem, set(rng.sample(_FEATURES, features)), rng)
        if kind == "write":
            job = replace(job, stage=stage)
        if made and not made[-1].rule:
            job = replace(job, needs=(made[-1].name,))
        made.append(job)
    return Pipeline(kind, tuple(made))


def _with_features(job: Job, ecosystem: Ecosystem, features: set[str], rng: random.Random) -> Job:
    if "tag" in features:
        job = replace(job, tag=rng.choice(_TAGS))
    if "services" in features:
        job = replace(job, services=(rng.choice(ecosystem.services),))
    if "variables" in features:
        job = replace(job, variables=tuple(rng.sample(_VARIABLES, rng.choice((1, 2)))))
    if "cache" in features:
        job = replace(job, cache=rng.choice(ecosystem.cache))
    if "matrix" in features:
        job = replace(job, matrix=ecosystem.matrix)
    if "artifacts" in features:
        job = replace(job, artifacts=tuple(rng.sample(ecosystem.artifacts, rng.choice((1, 1, 2)))))
    if "rule" in features:
        branch = rng.choice(("main", "develop", "release", "staging"))
        job = rng.choice(
            (replace(job, rule="branch", branch=branch), replace(job, rule="merge-request"), replace(job, rule="tag"))
        )
    if "timeout" in features:
        job = replace(job, timeout=rng.choice((10, 15, 20, 45, 90)))
    return replace(job, allow_failure="allow_failure" in features)
