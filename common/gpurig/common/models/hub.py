"""Files of the hub, through huggingface_hub: addresses, metadata, tokens, and its errors as ours.

HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN, proxies and certificates are read by huggingface_hub and its HTTP client; here is
no second way. Its own repetitions are off, because `retrying` is the one place that tries again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpurig.common.errors import InputError, PrerequisiteError, RemoteError, TransientError
from gpurig.common.models.reference import COMMIT, HubReference
from gpurig.common.models.remote import Body, RemoteFacts, answered_span, range_header, refuse_page
from gpurig.common.retrying import retry_after_s

if TYPE_CHECKING:
    import httpx2

_SHA256_DIGITS = 64
_PASSING = frozenset({408, 429, 500, 502, 503, 504, *range(520, 531)})


@dataclass(frozen=True)
class HubAccess:
    """How to reach the hub.

    Attributes:
        endpoint: its address; huggingface_hub's own (HF_ENDPOINT) where None.
        connect_s: seconds that a connection may take.
        read_s: seconds that it may be silent.
    """

    endpoint: str | None = None
    connect_s: float = 10.0
    read_s: float = 30.0


@dataclass(frozen=True)
class HubFile:
    """One file of a repository as the source of a transfer."""

    reference: HubReference
    access: HubAccess

    @property
    def label(self) -> str:
        """As the user writes it."""
        return str(self.reference)

    def look(self) -> RemoteFacts:
        """Its size, the commit that its revision is, and its hash where the hub stores it as a large file."""
        hub = _library()

        with _translated(self.label):
            found = hub.get_hf_file_metadata(
                self._url(self.reference.revision),
                timeout=self.access.read_s,
                endpoint=self.access.endpoint,
                library_name="gpurig",
            )
        if found.commit_hash is None or not COMMIT.fullmatch(found.commit_hash):
            raise RemoteError(
                f"{self._host()} does not answer as the hub does (no commit)",
                hint="check HF_ENDPOINT, and that no proxy or login page answers in its place",
            )
        etag = found.etag or ""
        return RemoteFacts(
            size_bytes=found.size,
            # A file in Git itself has a SHA-1 there; one in the large file storage its SHA-256.
            sha256=etag if len(etag) == _SHA256_DIGITS else None,
            revision=found.commit_hash,
            etag=etag,
        )

    @contextlib.contextmanager
    def open(self, start: int, facts: RemoteFacts, *, stop: int | None = None) -> Iterator[Body]:
        """Its bytes from `start` on, of the commit that `facts` names: a branch may move meanwhile.

        The address in the storage is signed for a short time, so it is asked for each time.
        """
        utils = _library().utils

        url = self._url(facts.revision or self.reference.revision)
        headers: dict[str, str] = utils.build_hf_headers(library_name="gpurig")
        headers["Accept-Encoding"] = "identity"
        headers |= range_header(start, stop)
        with (
            _translated(self.label),
            # The HTTP client drops the token where a redirection leads to another host.
            utils.get_session().stream(
                "GET", url, headers=headers, timeout=self._timeout(), follow_redirects=True
            ) as answer,
        ):
            if answer.status_code != 416:
                utils.hf_raise_for_status(answer)
            refuse_page(self.label, answer.headers)
            begins, total = answered_span(answer.status_code, answer.headers, start)
            # As they arrive: chunks of a given size would be gathered, and lost where the connection breaks.
            chunks = iter(()) if answer.status_code == 416 else answer.iter_bytes()
            yield Body(begins, chunks, total)

    def license(self) -> str:
        """The license that the repository's card names; "" where it names none."""
        hub = _library()

        with _translated(self.label):
            try:
                info = hub.HfApi(endpoint=self.access.endpoint, library_name="gpurig").model_info(
                    self.reference.repository, revision=self.reference.revision, timeout=self.access.read_s
                )
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                # What the library raises for an answer that is no JSON, or JSON of another shape.
                raise RemoteError(
                    f"{self._host()} does not answer as the hub does ({type(error).__name__})",
                    hint="check HF_ENDPOINT, and that no proxy or login page answers in its place",
                ) from error
        card = info.card_data
        named = [card.get("license"), card.get("license_name")] if card is not None else []
        words = [word for word in named if isinstance(word, str) and word]
        # "other" is what the hub demands where a card has a license_name.
        return next((word for word in words if word.lower() != "other"), words[0] if words else "")

    def _url(self, revision: str | None) -> str:
        hub = _library()

        where = self.reference
        url: str = hub.hf_hub_url(where.repository, where.file, revision=revision, endpoint=self.access.endpoint)
        return url

    def _host(self) -> str:
        from huggingface_hub import constants  # noqa: PLC0415 - heavy

        return self.access.endpoint or str(constants.ENDPOINT)

    def _timeout(self) -> httpx2.Timeout:
        import httpx2  # noqa: PLC0415 - the client that huggingface_hub hands out

        return httpx2.Timeout(self.access.read_s, connect=self.access.connect_s)


def _library() -> Any:
    """huggingface_hub, without its telemetry: before the first request it would fetch a list to describe the caller by.

    It reads HF_HUB_DISABLE_TELEMETRY when it is imported, and has no other switch than this constant.
    """
    import huggingface_hub  # noqa: PLC0415 - heavy
    from huggingface_hub import constants  # noqa: PLC0415

    constants.HF_HUB_DISABLE_TELEMETRY = True
    return huggingface_hub


@contextlib.contextmanager
def _translated(label: str) -> Iterator[None]:
    """Turn what huggingface_hub and its HTTP client raise into our errors; no header of a request is in a message."""
    import httpx2  # noqa: PLC0415
    from huggingface_hub import errors  # noqa: PLC0415

    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise PrerequisiteError(
            f"{label} is not here, and HF_HUB_OFFLINE forbids asking the hub",
            hint="unset HF_HUB_OFFLINE, or copy the file here and pull it from its path",
        ) from error
    except errors.HfHubHTTPError as error:
        raise _from_status(label, error) from error
    except errors.HFValidationError as error:
        raise InputError(f"{label} is no valid name", hint="write it like hf:OWNER/NAME/FILE.gguf@REV") from error
    except httpx2.TimeoutException as error:
        raise TransientError(f"{label}: no answer in time", hint="check the network and the proxy settings") from error
    except httpx2.ProxyError as error:
        raise TransientError(f"{label}: the proxy refuses", hint="check HTTPS_PROXY and NO_PROXY") from error
    except (httpx2.ConnectError, httpx2.UnsupportedProtocol) as error:
        raise TransientError(
            f"{label}: cannot reach the hub",
            hint="check the network, HF_ENDPOINT, the proxy settings and the certificates (SSL_CERT_FILE)",
        ) from error
    except httpx2.TransportError as error:
        raise TransientError(f"{label}: the connection broke off", hint="check the network") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise RemoteError(
            f"{label}: the answer is not HTTP as expected ({type(error).__name__})",
            hint="check HF_ENDPOINT, and that no proxy or login page answers in its place",
        ) from error


def _from_status(label: str, error: Exception) -> RemoteError:
    """Ours for an answer of the hub that is no success."""
    from huggingface_hub import errors  # noqa: PLC0415

    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    if isinstance(error, errors.GatedRepoError):
        return RemoteError(
            f"{label} is gated: its owner lets only those in who accept the terms",
            hint="accept them on the repository's page, then set HF_TOKEN to a token of that account",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return RemoteError(f"{label}: there is no such revision", hint="check what stands behind the @")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return RemoteError(f"{label}: there is no such file in that revision", hint="check the file's name")
    if isinstance(error, errors.RepositoryNotFoundError) or status in {401, 403, 404}:
        return RemoteError(
            f"{label}: the hub answered {status}: it is not there, or not for you",
            hint="check the repository's name; for a private or gated one set HF_TOKEN",
        )
    if status in _PASSING:
        headers = getattr(response, "headers", {})
        # The hub says when a limit ends in a header of its own, RateLimit (utils/_http.py).
        limit = _library().utils.parse_ratelimit_headers(headers)
        asked = retry_after_s(headers.get("Retry-After"))
        if asked is None and limit is not None and limit.remaining == 0:
            asked = float(limit.reset_in_seconds)
        hint = "the hub limits requests: wait some minutes; with HF_TOKEN set it allows more"
        return TransientError(
            f"{label}: the hub answered {status}",
            hint=hint if status == 429 else "the hub itself failed: try again later",
            retry_after_s=asked,
        )
    return RemoteError(f"{label}: the hub answered {status}", hint="check HF_ENDPOINT and the name")
