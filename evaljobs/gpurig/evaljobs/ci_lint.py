"""GitLab's own word on a configuration: the lint API of the job's project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gpurig.common.gitlab_api import connect, translated
from gpurig.evaljobs.checks.resources import LintResult

TOKEN_VARIABLE = "GPURIG_LINT_TOKEN"  # noqa: S105 - a variable's name
_DOING = "asking GitLab to lint a configuration"
_HINT = f"{TOKEN_VARIABLE} must be a valid token of this project (role Developer or above) with the scope api"
# GitLab limits how often a token may ask; python-gitlab waits as long as it says.
_RETRIES = 5


class ProjectLint:
    """Lints in the context of one project; the same text is asked once."""

    def __init__(self, url: str, project: str, token: str, ca_file: Path | None = None) -> None:
        """Nothing is sent yet.

        Raises:
            InputError: not a URL, no such CA file, or no token.
        """
        self._url = url
        self._project = connect(url, private_token=token, ca_file=ca_file).projects.get(project, lazy=True)
        self._known: dict[str, LintResult] = {}

    def lint(self, content: str) -> LintResult:
        """What GitLab says of a configuration.

        Raises:
            RemoteError: GitLab refused or did not answer.
        """
        if content not in self._known:
            with translated(_DOING, self._url, hints=dict.fromkeys((401, 403, 404), _HINT)):
                told = self._project.ci_lint.create({"content": content}, max_retries=_RETRIES)
            errors = told.attributes.get("errors")
            self._known[content] = LintResult(
                valid=told.attributes.get("valid") is True,
                errors=tuple(str(one) for one in errors) if isinstance(errors, list) else (),
            )
        return self._known[content]


def project_lint(environ: Mapping[str, str]) -> ProjectLint | None:
    """The lint of this job's project; None outside of a job, or without a token.

    Raises:
        InputError: the variables make no sense.
    """
    url, project, token = (environ.get(name, "") for name in ("CI_SERVER_URL", "CI_PROJECT_ID", TOKEN_VARIABLE))
    if not (url and project and token.strip()):
        return None
    ca_file = environ.get("CI_SERVER_TLS_CA_FILE", "")
    return ProjectLint(url, project, token.strip(), Path(ca_file) if ca_file else None)
