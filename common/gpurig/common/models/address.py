"""A file at an address: http or https, without anything that only a hub has."""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass

from gpurig.common.errors import InputError, PrerequisiteError, RemoteError, TransientError
from gpurig.common.models.remote import CHUNK, Body, RemoteFacts, answered_span, range_header, refuse_page
from gpurig.common.retrying import retry_after_s

_PASSING = frozenset({408, 429, *range(500, 600)})
_HINT = "check the address, the network and the proxy settings"


def is_address(text: str) -> bool:
    """Whether `text` is meant as an address."""
    return text.lower().startswith(("http://", "https://"))


@dataclass(frozen=True)
class AddressFile:
    """A file at an address as the source of a transfer.

    Attributes:
        url: http or https.
        connect_s: seconds that a connection may take.
        read_s: seconds that it may be silent.
    """

    url: str
    connect_s: float = 10.0
    read_s: float = 30.0

    @property
    def label(self) -> str:
        """The address without user, password and query, which may be secret."""
        parts = urllib.parse.urlsplit(self.url)
        return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @property
    def file(self) -> str:
        """The file's name.

        Raises:
            InputError: the address names no file.
        """
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.url).path).rpartition("/")[2]
        if not name:
            raise InputError(f"{self.label} names no file", hint="give the address of a .gguf file")
        return name

    def sibling(self, file: str) -> AddressFile:
        """The file called `file` beside this one."""
        parts = urllib.parse.urlsplit(self.url)
        path = parts.path.rpartition("/")[0] + "/" + urllib.parse.quote(file)
        return AddressFile(urllib.parse.urlunsplit(parts._replace(path=path)), self.connect_s, self.read_s)

    def look(self) -> RemoteFacts:
        """Nothing: the length comes with the first bytes."""
        return RemoteFacts()

    @contextlib.contextmanager
    def open(
        self,
        start: int,
        facts: RemoteFacts,  # noqa: ARG002 - an address tells none beforehand
        *,
        stop: int | None = None,
    ) -> Iterator[Body]:
        """Its bytes from `start` on. The client drops what is in the address where a redirection leads elsewhere.

        Raises:
            TransientError: what may pass. RemoteError: there is no such file. InputError: it is no address.
        """
        import httpx2  # noqa: PLC0415 - the client that huggingface_hub brings

        headers = {"Accept-Encoding": "identity", "User-Agent": "gpurig", **range_header(start, stop)}
        timeout = httpx2.Timeout(self.read_s, connect=self.connect_s)
        with (
            self._translated(),
            httpx2.Client(follow_redirects=True, timeout=timeout, max_redirects=5) as client,
            client.stream("GET", self.url, headers=headers) as answer,
        ):
            if answer.status_code >= 400 and answer.status_code != 416:
                raise self._refused(answer.status_code, answer.headers.get("Retry-After"))
            refuse_page(self.label, answer.headers)
            begins, total = answered_span(answer.status_code, answer.headers, start)
            chunks = iter(()) if answer.status_code == 416 else answer.iter_bytes(CHUNK)
            yield Body(begins, chunks, total)

    def _refused(self, status: int, retry_after: str | None) -> RemoteError:
        message = f"{self.label}: the server answered {status}"
        if status in _PASSING:
            return TransientError(message, hint="try again later", retry_after_s=retry_after_s(retry_after))
        return RemoteError(message, hint="check the address; a file that asks for a login cannot be read this way")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        import httpx2  # noqa: PLC0415

        try:
            yield
        except httpx2.TimeoutException as error:
            raise TransientError(f"{self.label}: no answer in time", hint=_HINT) from error
        except httpx2.TooManyRedirects as error:
            raise RemoteError(f"{self.label} is redirected without end", hint="check the address") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise InputError(f"{self.label} is no address of a file", hint="it begins with https://") from error
        except httpx2.ConnectError as error:
            raise TransientError(f"{self.label}: cannot reach the server", hint=_HINT) from error
        except httpx2.HTTPError as error:
            raise TransientError(f"{self.label}: the connection broke off", hint=_HINT) from error
        except ImportError as error:
            # A proxy of a kind (socks) that needs another package.
            raise PrerequisiteError(f"{self.label}: {error}", hint="set another proxy") from error
