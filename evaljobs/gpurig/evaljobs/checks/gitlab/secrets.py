"""Secrets that stand in a text: tokens by their issuers' forms, private keys, passwords written out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gpurig.evaljobs.checks.subject import shown

# The forms are those that the issuers publish for secret scanners: a fixed beginning and a length.
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("a GitLab token", r"\bgl(?:pat|dt|rt|ptt|cbt|oas|soat|ft|imt|agent|ffct)-[0-9A-Za-z_\-.]{20,}"),
        ("a GitHub token", r"\b(?:gh[pousr]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{22,})"),
        ("an AWS access key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b"),
        ("a Google API key", r"\bAIza[0-9A-Za-z_-]{35}"),
        ("a Slack token", r"\bxox[abeprs]-[0-9A-Za-z-]{10,}"),
        ("an OpenAI key", r"\bsk-(?:proj-|svcacct-)?[0-9A-Za-z_-]{32,}"),
        ("an Anthropic key", r"\bsk-ant-[0-9A-Za-z_-]{20,}"),
        ("a Hugging Face token", r"\bhf_[0-9A-Za-z]{30,}"),
        ("an npm token", r"\bnpm_[0-9A-Za-z]{36}"),
        ("a PyPI token", r"\bpypi-AgE[0-9A-Za-z_-]{50,}"),
        ("a Docker Hub token", r"\bdckr_pat_[0-9A-Za-z_-]{20,}"),
        ("a Stripe key", r"\b[rs]k_live_[0-9A-Za-z]{20,}"),
        ("a private key", r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----"),
        ("a JSON web token", r"\beyJ[0-9A-Za-z_-]{10,2000}\.eyJ[0-9A-Za-z_-]{10,4000}\.[0-9A-Za-z_-]{10,}"),
        ("a password in an address", r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@$]{1,100}:[^\s/@$]{3,200}@"),
        ("a token in a header", r"(?i)\b(?:PRIVATE-TOKEN|JOB-TOKEN|X-API-KEY)\s*:\s*[0-9A-Za-z_.-]{12,}"),
        ("a bearer token", r"(?i)\bBearer\s+[0-9A-Za-z_.~+/-]{20,}"),
    )
)
_SECRET_NAME = re.compile(
    r"(?i)(?:^|_)(?:PASSWORD|PASSWD|PASS|PWD|SECRET|TOKEN|API_?KEY|ACCESS_KEY|PRIVATE_KEY)(?:$|_)"
)
# A variable that tells where a secret is, or whether there is one.
_NO_SECRET_NAME = re.compile(r"(?i)(?:_FILE|_PATH|_URL|_NAME|_ID|_HOST|_TTL|_EXPIRY|_POLICY|_AUTH_METHOD|_LENGTH)$")
# What everybody gives to the database of a test.
_DUMMIES = frozenset(
    (
        "",
        "admin",
        "changeme",
        "ci",
        "dummy",
        "example",
        "fake",
        "false",
        "guest",
        "minioadmin",
        "mysql",
        "none",
        "null",
        "password",
        "placeholder",
        "postgres",
        "root",
        "runner",
        "secret",
        "test",
        "testing",
        "true",
        "user",
        "xxx",
        "yes",
        "no",
    )
)


def secrets_in_text(text: str) -> Iterator[str]:
    """What looks like a secret, in words that do not repeat it; each form once."""
    for name, pattern in _FORMS:
        if found := pattern.search(text):
            yield f"{name} ({found[0][:8]}…)"


def secrets_in_variables(variables: Mapping[Any, Any]) -> Iterator[str]:
    """Variables that are named like a secret and hold a literal value that no test database has."""
    for name, held in variables.items():
        value = held.get("value") if isinstance(held, dict) else held
        literal = isinstance(value, str | int) and "$" not in str(value)
        if literal and is_secret_name(str(name)) and str(value).strip().casefold() not in _DUMMIES:
            yield f"the variable {shown(str(name), 60)} holds a literal value"


def is_secret_name(name: str) -> bool:
    """Whether a variable of that name holds a secret, as its name says."""
    return bool(_SECRET_NAME.search(name)) and not _NO_SECRET_NAME.search(name)
