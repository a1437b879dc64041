"""Names in a container registry, who logs in to it, and its errors in our words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError, RemoteError

# The parts of an image's name: distribution/reference, "reference.go".
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_SHOWN_CHARACTERS = 200
# GitLab reads a token alone; the name beside it may be anything.
_ANY_USER = "oauth2"
_JOB_USER = "gitlab-ci-token"


@dataclass(frozen=True)
class Login:
    """A user and a password, or token, for one registry."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Place:
    """Where images go: a registry, and the part of a path that their names follow.

    Attributes:
        host: "registry.gitlab.com", with a port where it has one.
        path: "group/project".
    """

    host: str
    path: str

    def name(self, repository: str) -> str:
        """The full name, without a tag, of an image that is called `repository` on the engine."""
        return f"{self.host}/{self.path}/{repository}" if self.path else f"{self.host}/{repository}"


def parse_place(text: str) -> Place:
    """A registry and path as people write them.

    Raises:
        InputError: it is none.
    """
    host, _, path = text.removesuffix("/").partition("/")
    # What has neither a dot nor a port would be an owner's name at Docker Hub.
    if not re.fullmatch(_HOST, host) or not ("." in host or ":" in host or host == "localhost"):
        raise InputError(
            f"{text!r} names no registry", hint="write it like registry.example.com/group/project, without https://"
        )
    if path and not re.fullmatch(rf"{_COMPONENT}(?:/{_COMPONENT})*", path):
        raise InputError(
            f"{path!r} is no path in a registry",
            hint="lower-case letters, digits, and . _ - between them; GitLab's paths are written in lower case here",
        )
    return Place(host, path)


def find_place(given: str, environment: Mapping[str, str]) -> Place:
    """Where to push: what was given, else the registry of the project whose CI job this is.

    Raises:
        InputError: neither is there, or it is no registry.
    """
    where = given or environment.get("CI_REGISTRY_IMAGE", "")
    if not where:
        raise InputError(
            "where shall the image be pushed?",
            hint="--to registry.example.com/group/project; in a CI job CI_REGISTRY_IMAGE says it, where the project's "
            "container registry is on",
        )
    return parse_place(where)


def find_login(host: str, *, username: str, token: str | None, environment: Mapping[str, str]) -> Login | None:
    """Who logs in: a token that was given, else the CI job; None leaves it to what Docker's configuration knows.

    Args:
        host: the registry's. A job's password goes to the job's own registry alone.
        username: "" for one that GitLab accepts beside any access token.
        token: the content of a token file; None where there is none.
        environment: of the process.

    Raises:
        InputError: the token is empty or no token.
    """
    if token is not None:
        cleaned = token.strip()
        if not cleaned or not cleaned.isascii() or not cleaned.isprintable() or " " in cleaned:
            raise InputError(
                "the token file holds no token", hint="it holds the token or password of the registry and nothing else"
            )
        user = username or (_JOB_USER if cleaned.startswith("glcbt-") else _ANY_USER)
        return Login(user, cleaned)
    if username:
        raise InputError("--username needs a password", hint="--token-file FILE, or - for standard input")
    if host and host == environment.get("CI_REGISTRY"):
        password = environment.get("CI_REGISTRY_PASSWORD") or environment.get("CI_JOB_TOKEN", "")
        if password:
            return Login(environment.get("CI_REGISTRY_USER") or _JOB_USER, password)
    return None


_LOGIN_HINT = "give a token that may write to the registry: --token-file FILE (GitLab: scope write_registry)"
# What the engine says, from the special to the general; the words are the registry client's and Go's.
_CAUSES: tuple[tuple[str, type[ApplianceError], str, str], ...] = (
    (
        r"gave HTTP response to HTTPS client|first record does not look like a TLS handshake",
        PrerequisiteError,
        "{host} speaks HTTP, and the engine wants HTTPS",
        "put TLS in front of it, or name it under insecure-registries in the engine's daemon.json",
    ),
    (
        r"x509|certificate signed by unknown|tls: failed to verify",
        PrerequisiteError,
        "the engine does not trust the certificate of {host}",
        "put the authority's certificate into /etc/docker/certs.d/{host}/ca.crt",
    ),
    (r"connection refused", RemoteError, "{host} refuses connections", "check the host, the port, and that it runs"),
    (
        r"no such host|server misbehaving",
        RemoteError,
        "there is no host {host}",
        "check the name and the engine's DNS or proxy",
    ),
    (
        r"i/o timeout|Client\.Timeout|deadline exceeded|TLS handshake timeout|no route to host",
        RemoteError,
        "{host} does not answer",
        "check the network and the engine's proxy",
    ),
    (
        r"no basic auth credentials|unauthorized|authentication required|HTTP Basic: Access denied|\b401\b",
        RemoteError,
        "{host} does not accept the login",
        _LOGIN_HINT,
    ),
    (
        r"\b413\b|Request Entity Too Large",
        RemoteError,
        "{host} refuses a layer of that size",
        "raise the limit of the proxy before it (nginx: client_max_body_size 0)",
    ),
    (
        r"denied|forbidden|\b403\b",
        RemoteError,
        "{host} does not let this login write to {path}",
        "check the project's path, that its container registry is on, and the token's scope (write_registry) and role",
    ),
    (
        r"\b404\b|name unknown|NAME_UNKNOWN|Not Found|page not found",
        RemoteError,
        "{host} has no registry for {path}",
        "check the project's path, and that its container registry is on (Settings, General, Visibility)",
    ),
    (r"toomanyrequests|\b429\b", RemoteError, "{host} limits the rate", "wait a minute and push again"),
    (r"\b5\d\d\b|EOF|connection reset|broken pipe", RemoteError, "{host} failed", "push again; what is there stays"),
)


def push_problem(name: str, place: Place, said: str) -> ApplianceError:
    """The error of a push that failed.

    Args:
        name: the image.
        place: where it went.
        said: the engine's own words.
    """
    for pattern, kind, what, hint in _CAUSES:
        if re.search(pattern, said, re.IGNORECASE):
            words = {"host": place.host, "path": place.path or "that path"}
            return kind(f"pushing {name}: {what.format(**words)}", hint=hint.format(**words))
    reason = said if len(said) <= _SHOWN_CHARACTERS else said[:_SHOWN_CHARACTERS] + "…"
    return RemoteError(f"pushing {name}: {reason}", hint="the registry's own log says more")
