"""A pipeline as a small GitHub Actions workflow: what is to be translated."""

from __future__ import annotations

from collections.abc import Iterator

from demo_models.pipelines import Job, Pipeline

_CONDITIONS = {
    "merge-request": "github.event_name == 'pull_request'",
    "tag": "github.ref_type == 'tag'",
}


def render(pipeline: Pipeline) -> str:
    """The workflow, without a newline at its end."""
    return "\n".join(["on: [push, pull_request]", "jobs:", *(_job(job) for job in pipeline.jobs)])


def _job(job: Job) -> str:
    lines = [
        f"  {job.name}:",
        f"    runs-on: {f'[self-hosted, {job.tag}]' if job.tag else 'ubuntu-latest'}",
        f"    container: {job.image}",
        *_conditions(job),
        *_environment(job),
        "    steps:",
        "      - uses: actions/checkout@v4",
        *_steps(job),
    ]
    return "\n".join(lines)


def _conditions(job: Job) -> Iterator[str]:
    if job.needs:
        yield f"    needs: [{', '.join(job.needs)}]"
    if job.rule:
        condition = f"github.ref_name == '{job.branch}'" if job.rule == "branch" else _CONDITIONS[job.rule]
        yield f"    if: {condition}"
    if job.timeout:
        yield f"    timeout-minutes: {job.timeout}"
    if job.allow_failure:
        yield "    continue-on-error: true"


def _environment(job: Job) -> Iterator[str]:
    if job.services:
        yield "    services:"
        for service in job.services:
            yield f"      {service.partition(':')[0].rpartition('/')[2]}:"
            yield f"        image: {service}"
    if job.variables:
        yield from ("    env:", *(f"      {name}: {value}" for name, value in job.variables))
    if job.matrix:
        values = ", ".join(f"'{value}'" for value in job.matrix.values)
        yield from ("    strategy:", "      matrix:", f"        {job.matrix.name}: [{values}]")


def _steps(job: Job) -> Iterator[str]:
    if job.cache:
        yield "      - uses: actions/cache@v4"
        yield from ("        with:", f"          key: {job.cache.key}", f"          path: {job.cache.path}")
    axis = f"${{{{ matrix.{job.matrix.name} }}}}" if job.matrix else ""
    yield from (f"      - run: {line.replace('{axis}', axis)}" for line in job.script)
    if job.artifacts:
        yield from ("      - uses: actions/upload-artifact@v4", "        with:")
        if len(job.artifacts) == 1:
            yield f"          path: {job.artifacts[0]}"
        else:
            yield from ("          path: |", *(f"            {path}" for path in job.artifacts))
