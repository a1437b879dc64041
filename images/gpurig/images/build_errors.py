"""Why a build failed: the words of both builders, of the engine and of what ran inside, as one line and a hint."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gpurig.common.errors import PrerequisiteError

_SHOWN_CHARACTERS = 300
# What the classic builder and BuildKit say where a command of the Dockerfile failed.
_COMMAND = re.compile(
    r"The command '.*' returned a non-zero code: (\d+)|did not complete successfully: exit code: (\d+)", re.DOTALL
)
_TELLING = re.compile(r"\berror\b|\bE:|fatal|not found|No space", re.IGNORECASE)
_KILLED = 137
_REGISTRY = (
    r"dial tcp|no such host|i/o timeout|TLS handshake|x509|Client\.Timeout|server misbehaving|connection refused"
)

_FULL = "free some disk space (docker system df shows who uses it)"
# What to do where a command's last words say so.
_COMMAND_CAUSES = (
    (r"no space left", _FULL),
    (
        r"\b40[13] (Client )?Error|\b(error|status)\b.*\b40[13]\b",
        "the package index wants a user and password: --netrc FILE",
    ),
    # pip tells no more than this of an index that refuses it and that it may not ask the user about.
    (
        r"No matching distribution found",
        "the package index lacks it, or wants a user and a password (--netrc FILE)",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|self-signed certificate",
        "name the certificate authorities to trust: --build-ca-bundle FILE",
    ),
    (
        r"Temporary failure (in name resolution|resolving)|Could not resolve|Name or service not known",
        "the build reaches no such host: name a proxy or a mirror (--https-proxy, --pip-index-url)",
    ),
)

# What is told instead of the engine's own words, which differ from builder to builder; "" keeps those.
_CAUSES = (
    (r"no space left", "the disk is full", _FULL),
    (
        r"pull access denied|manifest unknown|does not exist|manifest for .* not found|insufficient_scope|: not found$",
        "there is no image {base} to build on",
        "check that image's name, and that the engine is logged in to its registry",
    ),
    (
        _REGISTRY,
        "the engine does not have the image {base} to build on and cannot reach its registry",
        "name an image that it has (--base-image, --toolkit-image), or set its proxy or mirror",
    ),
    (r"\bcancell?ed\b", "the build was cancelled", "run it again"),
    (
        r"EOF|Connection (broken|aborted|refused)|daemon running",
        "the engine went away",
        "check that it runs: docker version",
    ),
)


def build_problem(tag: str, error: str, said: Iterable[str], *, base: str, log: str) -> PrerequisiteError:
    """The error of a build that failed.

    Args:
        tag: what should have been built.
        error: the builder's last word.
        said: the last lines that steps printed.
        base: the image that it begins with; of several, the one that may be missing.
        log: where the whole output is.
    """
    what, hint = explain(error, list(said), base=base)
    return PrerequisiteError(f"building {tag} failed: {what}", hint=f"{hint}; the whole log: {log}".removeprefix("; "))


def explain(error: str, said: list[str], *, base: str) -> tuple[str, str]:
    """What happened, and what to do about it ("" where that is not known)."""
    command = _COMMAND.search(error)
    if command:
        code = int(command[1] or command[2])
        chosen = " | ".join(
            line[-_SHOWN_CHARACTERS:] for line in ([one for one in said if _TELLING.search(one)] or said)[-2:]
        )
        hint = next(
            (hint for pattern, hint in _COMMAND_CAUSES if re.search(pattern, "\n".join(said), re.IGNORECASE)), ""
        )
        if code == _KILLED:
            hint = "it was killed, most likely for want of memory: close other programs, or add swap"
        return f"a command ended with exit code {code}" + (f": {chosen}" if chosen else ""), hint
    for pattern, what, hint in _CAUSES:
        if re.search(pattern, error, re.IGNORECASE):
            return what.format(base=base or "it names"), hint
    return error[-_SHOWN_CHARACTERS:], ""
