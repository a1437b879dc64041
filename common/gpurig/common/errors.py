"""The one error tree: what happened, what to do, and the exit code that says whose turn it is.

Exit codes: 0 fine; 1 a bug; 2 usage or bad input; 3 the gate failed; 4 a prerequisite is missing;
5 GitLab or the network failed; 130 interrupted. "The job failed" (3) and "the runner failed" (4, 5) never
share a code, so that a pipeline can retry the one and not the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_GATE = 3
EXIT_PREREQUISITE = 4
EXIT_REMOTE = 5
EXIT_INTERRUPTED = 130


class ApplianceError(Exception):
    """An error a user can meet: one line that says what, a hint that says what to do.

    Attributes:
        message: what happened, one line, no trailing full stop.
        hint: what to do about it; may be empty only where nothing can be done.
        details: further lines where one call found several problems, one line each.
        exit_code: the process's exit code when nobody handles the error.
    """

    exit_code: ClassVar[int] = EXIT_BUG

    def __init__(self, message: str, *, hint: str = "", details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.message = " ".join(message.split())
        self.hint = " ".join(hint.split())
        self.details = tuple(" ".join(line.split()) for line in details)


class InputError(ApplianceError):
    """Usage or bad input: an option, a file's content, a value's type."""

    exit_code = EXIT_USAGE


class GateFailedError(ApplianceError):
    """The evaluation ran and its result is below what the suite demands."""

    exit_code = EXIT_GATE


class PrerequisiteError(ApplianceError):
    """Something this machine must have is missing: a GPU, an engine, a permission, disk space."""

    exit_code = EXIT_PREREQUISITE


class RemoteError(ApplianceError):
    """GitLab or the network failed."""

    exit_code = EXIT_REMOTE


class TransientError(RemoteError):
    """The other side failed in a way that may pass: too many requests, its own fault, a broken connection.

    Attributes:
        retry_after_s: seconds that the other side asked us to wait; None where it did not.
    """

    def __init__(
        self, message: str, *, hint: str = "", details: Iterable[str] = (), retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.retry_after_s = retry_after_s
