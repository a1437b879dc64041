"""The check gitlab-ci-lint."""

from __future__ import annotations

from typing import Literal

from gpurig.evaljobs.checks.documents import MAX_CHARACTERS
from gpurig.evaljobs.checks.structure import Document
from gpurig.evaljobs.checks.subject import Answer, Finding, extract, shown

_SHOWN = 3
_LACKS = "no GitLab to ask: CI_SERVER_URL, CI_PROJECT_ID and GPURIG_LINT_TOKEN name none"


class Lint(Document):
    """Parameters of `gitlab-ci-lint`.

    Attributes:
        unasked: what becomes of the check where there is no GitLab to ask.
    """

    unasked: Literal["fail", "skip"] = "fail"


def is_linted(answer: Answer, parameters: Lint) -> Finding:
    """Fails where the project's GitLab finds a fault in the configuration; its errors are the message.

    Raises:
        RemoteError: GitLab refused or did not answer.
    """
    linter = answer.resources.linter
    if linter is None:
        return Finding(_LACKS, skipped=parameters.unasked == "skip")
    content = extract(answer.output, parameters.extract)
    if not content.strip():
        return Finding("the answer is empty")
    if len(content) > MAX_CHARACTERS:
        return Finding(f"the document has {len(content)} characters, more than {MAX_CHARACTERS}")
    result = linter.lint(content.encode("utf-8", "replace").decode())
    if result.valid:
        return Finding()
    more = f"; and {len(result.errors) - _SHOWN} more" if len(result.errors) > _SHOWN else ""
    said = "; ".join(shown(error, 160)[1:-1] for error in result.errors[:_SHOWN]) or "it is not valid"
    return Finding(f"GitLab: {said}{more}")
