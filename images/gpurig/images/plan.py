"""What an image is made of, decided before anything is built."""

from __future__ import annotations

import hashlib
import json
import netrc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import SplitResult, unquote, urlsplit

from gpurig.common.errors import InputError
from gpurig.common.files import read_bytes, read_text
from gpurig.common.version import __version__
from gpurig.images.context import ContextFile, pack

LABEL_HASH = "io.gpurig.content-hash"
LABEL_BACKEND = "io.gpurig.backend"
LABEL_LLAMA = "io.gpurig.llama-cpp-python"
LABEL_VERSION = "io.gpurig.version"

# The arguments of Dockerfiles that name images to begin with.
BASE_ARGS = ("BASE_IMAGE", "TOOLKIT_IMAGE")
CA_BUNDLE_PATH = "ca-bundle.pem"
# A Dockerfile reads it at /run/secrets/netrc.
SECRET_NETRC = "netrc"  # noqa: S105 - a name, no secret


@dataclass(frozen=True)
class Transport:
    """How a build reaches the package indexes; it decides where bytes come from, never which.

    Lock files pin every package by hash, so none of this is part of an image's content hash.

    Attributes:
        pip_index_url: replaces pip's default index; "" keeps what the base image has. A user and password in it become
            a secret of the build.
        http_proxy, https_proxy, no_proxy: as in the environment variables of that name.
        ca_bundle: PEM file of the certificate authorities to trust while building; None keeps the base image's.
        netrc: file with users and passwords of hosts, as pip reads it; None for none.
    """

    pip_index_url: str = field(default="", repr=False)
    http_proxy: str = field(default="", repr=False)
    https_proxy: str = field(default="", repr=False)
    no_proxy: str = ""
    ca_bundle: Path | None = None
    netrc: Path | None = None

    def build_args(self) -> dict[str, str]:
        """The build arguments that anybody may read; only those that are set.

        Raises:
            InputError: a URL is none.
        """
        return {name: value for name, (value, secret) in self._named().items() if value and not secret}

    def private_args(self) -> dict[str, str]:
        """Build arguments with a password: proxies, which Docker keeps out of an image and its history.

        Raises:
            InputError: a URL is none.
        """
        return {name: value for name, (value, secret) in self._named().items() if value and secret}

    def _named(self) -> dict[str, tuple[str, bool]]:
        proxies = {
            name: (value, _parts(value, name).password is not None)
            for name, value in (("HTTP_PROXY", self.http_proxy), ("HTTPS_PROXY", self.https_proxy))
        }
        proxies["NO_PROXY"] = (self.no_proxy, False)
        # apt reads the lower-case names alone. Docker knows both spellings and keeps them out of an image's history.
        return {
            "PIP_INDEX_URL": (_without_user(self.pip_index_url), False),
            **proxies,
            **{name.lower(): value for name, value in proxies.items()},
        }

    def secrets(self) -> dict[str, str]:
        """What must not be readable afterwards, by the name under which a Dockerfile asks for it.

        Raises:
            InputError: the index URL's user or password cannot be written as netrc, or the netrc file is none.
            PrerequisiteError: the netrc file cannot be read.
        """
        entries = [_checked_netrc(self.netrc)] if self.netrc else []
        parts = _parts(self.pip_index_url, "pip index")
        if parts.username or parts.password:
            entries.append(_netrc_entry(parts))
        return {SECRET_NETRC: "\n".join(entries)} if entries else {}

    def context_files(self) -> tuple[ContextFile, ...]:
        """The CA bundle, where there is one.

        Raises:
            InputError, PrerequisiteError: it cannot be read, or it is not PEM.
        """
        if self.ca_bundle is None:
            return ()
        data = read_bytes(self.ca_bundle)
        if b"-----BEGIN CERTIFICATE-----" not in data or b"PRIVATE KEY-----" in data:
            raise InputError(
                f"{self.ca_bundle} is no bundle of PEM certificates",
                hint="pass the certificates alone, in PEM format, without a private key",
            )
        return (ContextFile(path=CA_BUNDLE_PATH, data=data),)


@dataclass(frozen=True)
class ImagePlan:
    """An image that could be built.

    Attributes:
        tag: "name:hash"; the hash covers every input, so an image with this tag is this image.
        dockerfile: path of the Dockerfile inside the context.
        context: the build context, a tar.
        build_args: build arguments, transport included; anybody may read them.
        labels: what the built image says of itself.
        secrets: texts that the build may read at /run/secrets/NAME and that no layer keeps, by name.
        private_args: build arguments with a password, which the classic builder alone keeps nowhere.
        target: the stage of the Dockerfile that is the image; "" for the last one.
    """

    tag: str
    dockerfile: str
    context: bytes = field(repr=False)
    build_args: Mapping[str, str]
    labels: Mapping[str, str]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    private_args: Mapping[str, str] = field(default_factory=dict, repr=False)
    target: str = ""


def plan_image(
    name: str,
    *,
    title: str,
    dockerfile: str,
    target: str = "",
    files: tuple[ContextFile, ...],
    folders: tuple[str, ...] = (),
    build_args: Mapping[str, str],
    labels: Mapping[str, str],
    transport: Transport,
) -> ImagePlan:
    """Put an image's inputs together and name it by their hash.

    Args:
        name: the repository part of the tag. It has no slash: Docker would look for a missing "someone/name" at a
            public registry, where anybody could own that name.
        title: for the label `org.opencontainers.image.title`.
        dockerfile: its path among `files`.
        target: the stage of it that is the image; "" for the last one.
        files: the context, without the transport's.
        folders: folders the context needs even when empty.
        build_args: arguments that decide the content, BASE_IMAGE among them.
        labels: further labels.
        transport: how the build reaches the package indexes.

    Raises:
        InputError, PrerequisiteError: the transport cannot be used.
    """
    own = {
        "org.opencontainers.image.title": title,
        "org.opencontainers.image.version": __version__,
        "org.opencontainers.image.licenses": "Apache-2.0",
        **_base_labels(build_args.get("BASE_IMAGE", "")),
        LABEL_VERSION: __version__,
        **labels,
    }
    digest = hashlib.sha256()
    digest.update(json.dumps([name, dockerfile, target, dict(build_args), own], sort_keys=True).encode())
    digest.update(pack(files, folders=folders))
    content_hash = digest.hexdigest()
    return ImagePlan(
        tag=f"{name}:{content_hash[:16]}",
        dockerfile=dockerfile,
        context=pack((*files, *transport.context_files()), folders=folders),
        build_args=MappingProxyType({**build_args, **transport.build_args()}),
        labels=MappingProxyType({**own, LABEL_HASH: content_hash}),
        secrets=MappingProxyType(transport.secrets()),
        private_args=MappingProxyType(transport.private_args()),
        target=target,
    )


def _base_labels(base_image: str) -> dict[str, str]:
    """What the OCI image specification's annotations say of the base: its name, and its digest where it is pinned."""
    name, _, digest = base_image.partition("@")
    labels = {"org.opencontainers.image.base.name": name, "org.opencontainers.image.base.digest": digest}
    return {label: value for label, value in labels.items() if value}


def _parts(url: str, what: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        # Properties that parse when they are read.
        _ = parts.username, parts.password, parts.port
    except ValueError as error:
        # Its own words can quote a password.
        raise InputError(f"the {what} URL is no URL", hint="write it like https://host:port/path") from error
    return parts


def _without_user(url: str) -> str:
    parts = _parts(url, "pip index")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if url else ""


def _netrc_entry(parts: SplitResult) -> str:
    """One line of a netrc file, whose words end at white space and know quotes and backslashes (Python's netrc)."""
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not user or not password:
        raise InputError(
            "the pip index URL has a user without a password, or a password without a user",
            hint="write both: https://user:password@host/simple; or pass a netrc file",
        )
    if not all(word.isprintable() and not set(word) & set(" \"'\\") for word in (user, password)):
        raise InputError(
            "the pip index URL's user or password has a space, quote or backslash, which pip's netrc cannot hold",
            hint="make a token without them for the index",
        )
    return f"machine {parts.hostname} login {user} password {password}\n"


def _checked_netrc(path: Path) -> str:
    text = read_text(path)
    try:
        netrc.netrc(str(path))
    except (netrc.NetrcParseError, OSError) as error:
        # Its own words quote the file.
        raise InputError(
            f"{path} is no netrc file", hint="lines like: machine HOST login USER password PASSWORD"
        ) from error
    return text
