"""What an image is made of, decided before anything is built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from gpurig.common.errors import InputError
from gpurig.common.files import read_bytes
from gpurig.common.version import __version__
from gpurig.images.context import ContextFile, pack

LABEL_HASH = "io.gpurig.content-hash"
LABEL_BACKEND = "io.gpurig.backend"
LABEL_LLAMA = "io.gpurig.llama-cpp-python"
LABEL_VERSION = "io.gpurig.version"

CA_BUNDLE_PATH = "ca-bundle.pem"


@dataclass(frozen=True)
class Transport:
    """How a build reaches the package indexes; it decides where bytes come from, never which.

    Lock files pin every package by hash, so none of this is part of an image's content hash.

    Attributes:
        pip_index_url: replaces pip's default index; "" keeps what the base image has.
        http_proxy, https_proxy, no_proxy: as in the environment variables of that name.
        ca_bundle: PEM file of the certificate authorities to trust while building; None keeps the base image's.
    """

    pip_index_url: str = ""
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    ca_bundle: Path | None = None

    def build_args(self) -> dict[str, str]:
        """The build arguments; only those that are set.

        Raises:
            InputError: the index URL carries a password: a build argument is readable in `docker history`.
        """
        try:
            parts = urlsplit(self.pip_index_url)
            secret = bool(parts.username or parts.password)
        except ValueError as error:
            raise InputError(
                f"the pip index URL is no URL: {error}", hint="write it like https://host/simple"
            ) from error
        if secret:
            raise InputError(
                "the pip index URL carries a user name or password, which every reader of the image could see",
                hint="use an index that needs none, or allow this machine's address there",
            )
        proxies = {"HTTP_PROXY": self.http_proxy, "HTTPS_PROXY": self.https_proxy, "NO_PROXY": self.no_proxy}
        # apt reads the lower-case names alone. Docker knows both spellings and keeps them out of an image's history.
        named = {
            "PIP_INDEX_URL": self.pip_index_url,
            **proxies,
            **{key.lower(): value for key, value in proxies.items()},
        }
        return {name: value for name, value in named.items() if value}

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
        build_args: build arguments, transport included.
        labels: what the built image says of itself.
    """

    tag: str
    dockerfile: str
    context: bytes = field(repr=False)
    build_args: Mapping[str, str]
    labels: Mapping[str, str]


def plan_image(
    name: str,
    *,
    title: str,
    dockerfile: str,
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
        "org.opencontainers.image.base.name": build_args.get("BASE_IMAGE", ""),
        LABEL_VERSION: __version__,
        **labels,
    }
    digest = hashlib.sha256()
    digest.update(json.dumps([name, dockerfile, dict(build_args), own], sort_keys=True).encode())
    digest.update(pack(files, folders=folders))
    content_hash = digest.hexdigest()
    return ImagePlan(
        tag=f"{name}:{content_hash[:16]}",
        dockerfile=dockerfile,
        context=pack((*files, *transport.context_files()), folders=folders),
        build_args=MappingProxyType({**build_args, **transport.build_args()}),
        labels=MappingProxyType({**own, LABEL_HASH: content_hash}),
    )
