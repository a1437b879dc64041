"""A pipeline as .gitlab-ci.yml: the one right answer, in one order of keys and one style of quotes."""

from __future__ import annotations

from collections.abc import Iterator

from demo_models.pipelines import Job, Pipeline

_RULES = {
    "merge-request": '$CI_PIPELINE_SOURCE == "merge_request_event"',
    "tag": "$CI_COMMIT_TAG",
}


def render(pipeline: Pipeline) -> str:
    """The file, without a newline at its end."""
    return "\n\n".join(render_job(job) for job in pipeline.jobs)


def rule_of(job: Job) -> str:
    """The expression under `if:`; empty without a rule."""
    return f'$CI_COMMIT_BRANCH == "{job.branch}"' if job.rule == "branch" else _RULES.get(job.rule, "")


def script_of(job: Job) -> tuple[str, ...]:
    """The commands, as GitLab runs them."""
    axis = job.matrix.name.upper() if job.matrix else ""
    return tuple(line.replace("{axis}", f"${axis}") for line in job.script)


def matrix_of(job: Job) -> str:
    """The axis and its values, as YAML's flow style has them; empty without a matrix."""
    if not job.matrix:
        return ""
    values = ", ".join(f'"{value}"' for value in job.matrix.values)
    return f"{job.matrix.name.upper()}: [{values}]"


def render_job(job: Job) -> str:
    """One job."""
    lines = [f"{job.name}:", *_environment(job), *_order(job)]
    lines += ["  script:", *(f"    - {line}" for line in script_of(job))]
    return "\n".join([*lines, *_outcome(job)])


def _environment(job: Job) -> Iterator[str]:
    if job.stage:
        yield f"  stage: {job.stage}"
    yield f"  image: {job.image}"
    if job.tag:
        yield from ("  tags:", f"    - {job.tag}")
    if job.services:
        yield from ("  services:", *(f"    - {service}" for service in job.services))
    if job.variables:
        yield from ("  variables:", *(f"    {name}: {value}" for name, value in job.variables))


def _order(job: Job) -> Iterator[str]:
    if job.cache:
        yield from ("  cache:", f"    key: {job.cache.key}", "    paths:", f"      - {job.cache.path}")
    if job.needs:
        yield from ("  needs:", *(f"    - {name}" for name in job.needs))
    if job.matrix:
        yield from ("  parallel:", "    matrix:", f"      - {matrix_of(job)}")


def _outcome(job: Job) -> Iterator[str]:
    if job.artifacts:
        yield from ("  artifacts:", "    paths:", *(f"      - {path}" for path in job.artifacts))
    if job.rule:
        yield from ("  rules:", f"    - if: {rule_of(job)}")
    if job.timeout:
        yield f"  timeout: {job.timeout} minutes"
    if job.allow_failure:
        yield "  allow_failure: true"
