"""The check gitlab-ci-lint, against a GitLab that answers over HTTP."""

from __future__ import annotations

import pytest
from gpurig.common.errors import RemoteError
from gpurig.evaljobs.checks import Answer, parse_check, run_check
from gpurig.evaljobs.checks.resources import Resources
from gpurig.evaljobs.ci_lint import ProjectLint, project_lint
from gpurig.evaljobs.records import CheckOutcome
from standins.gitlab import GitLab

JOB = "job:\n  script: [make]\n"


@pytest.fixture
def environ(gitlab: GitLab) -> dict[str, str]:
    project = gitlab.add_project("team/app")
    user = gitlab.add_user("bot")
    gitlab.add_member(project, user)
    token = gitlab.add_token("api", user=user)
    return {"CI_SERVER_URL": gitlab.url, "CI_PROJECT_ID": str(project.id), "GPURIG_LINT_TOKEN": token}


def outcome(linter: ProjectLint | None, output: str, check: object = "gitlab-ci-lint") -> CheckOutcome:
    return run_check(parse_check(check), Answer(output, resources=Resources(linter=linter)))


def test_gitlab_s_own_errors_are_the_message(environ: dict[str, str]) -> None:
    linter = project_lint(environ)
    assert outcome(linter, JOB).message == ""
    assert outcome(linter, f"```yaml\n{JOB}```").message == ""
    assert outcome(linter, "job:\n  script: 3\n").message.startswith("GitLab: ")
    assert outcome(linter, " ").message == "the answer is empty"
    assert "more than 262144" in outcome(linter, JOB * 100_000).message


def test_without_a_token_the_suite_says_whether_it_fails_or_is_skipped() -> None:
    assert project_lint({"CI_SERVER_URL": "https://gitlab.example.com", "CI_PROJECT_ID": "1"}) is None
    failed = outcome(None, JOB)
    assert (failed.passed, failed.skipped) == (False, False)
    skipped = outcome(None, JOB, {"gitlab-ci-lint": {"unasked": "skip"}})
    assert (skipped.passed, skipped.skipped) == (True, True)
    assert "GPURIG_LINT_TOKEN" in failed.message
    assert skipped.message == failed.message


def test_a_wrong_token_ends_the_run_and_is_not_repeated(environ: dict[str, str]) -> None:
    environ["GPURIG_LINT_TOKEN"] = "glpat-wrong-and-secret"
    with pytest.raises(RemoteError) as caught:
        outcome(project_lint(environ), JOB)
    assert "answered 401" in str(caught.value)
    assert "secret" not in f"{caught.value} {caught.value.hint}"
    assert "GPURIG_LINT_TOKEN" in caught.value.hint
