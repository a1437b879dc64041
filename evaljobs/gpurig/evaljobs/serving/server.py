"""A server in threads of this process: one computes, one speaks HTTP."""

from __future__ import annotations

import errno
import hashlib
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.common.files import read_text
from gpurig.common.waiting import wait_for
from gpurig.evaljobs.engine import EngineSettings, context_size, thread_count
from gpurig.evaljobs.llama import LlamaProvider
from gpurig.evaljobs.models import ModelFile
from gpurig.evaljobs.options import ModelOptions
from gpurig.evaljobs.records import AdapterRef
from gpurig.evaljobs.serving.access import Access, is_loopback
from gpurig.evaljobs.serving.asking import Limits
from gpurig.evaljobs.serving.naming import ModelNames
from gpurig.evaljobs.suites.template import TemplateFault, check_syntax

if TYPE_CHECKING:
    import uvicorn

    from gpurig.evaljobs.serving.embedding import EmbeddingWorker
    from gpurig.evaljobs.serving.worker import Worker

_STARTED_S = 30.0


@dataclass(frozen=True)
class ServeOptions:
    """What a server is told.

    Attributes:
        host, port: where it listens; port 0 is any free one.
        names: by which clients may ask for the model, with and without adapters.
        keys: any of them opens; none is needed where there are none.
        context: tokens of prompt and answer together; None: what the model was trained for, at most 4096.
        template: a chat template's file, instead of the model's own.
        body_bytes, waiting, prompt_tokens, answer_tokens: limits; None: what the context holds.
        embeddings: it embeds texts instead of writing them.
        grace_s: seconds that running answers have to finish in when the server is stopped.
    """

    names: ModelNames
    host: str = "127.0.0.1"
    port: int = 0
    keys: tuple[str, ...] = ()
    context: int | None = None
    template: Path | None = None
    body_bytes: int = 4 * 1024 * 1024
    waiting: int = 256
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    embeddings: bool = False
    grace_s: int = 30


class Server:
    """Serves one model from `with` on; leaving stops it.

    Attributes:
        url: what clients take as base, once it runs.
        context: tokens of prompt and answer together.
        parallel: requests that are answered at the same time, once it runs.
    """

    def __init__(self, model: ModelFile, models: ModelOptions, options: ServeOptions) -> None:
        """Prepare; nothing is loaded and nobody listens yet.

        Raises:
            InputError: the chat template's file is missing or wrong.
        """
        from gpurig.evaljobs.serving.chat import ChatTemplate  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.serving.embedding import EmbeddingWorker  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.serving.worker import Worker  # noqa: PLC0415 - heavy

        self._model, self._options = model, options
        self.context = context_size(model, options.context)
        self._template = ChatTemplate(model.gguf, _template(options.template) if options.template else "")
        settings = EngineSettings(
            self.context,
            thread_count(model, models.threads),
            parallel=models.parallel,
            exact=models.exact,
            prefixes=models.prefixes(),
        )
        self._worker: Worker | EmbeddingWorker
        if options.embeddings:
            self._worker = EmbeddingWorker(model, settings, waiting=options.waiting, on_failure=self._end)
        else:
            self._worker = Worker(model, settings, prompt_tokens=options.prompt_tokens, on_failure=self._end)
        self._http: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.url, self.parallel = "", 0

    @property
    def failure(self) -> ApplianceError | None:
        """Why it cannot answer any more; None while it can."""
        return self._worker.failure

    @property
    def runs(self) -> bool:
        """Whether it speaks HTTP."""
        return self._thread is not None and self._thread.is_alive()

    def __enter__(self) -> Self:
        """Load the model, then listen: an address that answers is ready.

        Raises:
            PrerequisiteError: the address is taken, no memory, or a GPU build without a GPU.
            InputError: llama.cpp refuses the file.
        """
        # First, so that a taken address is told before minutes of loading; nobody can connect before it listens.
        listener = _bound(self._options.host, self._options.port)
        try:
            self.parallel = self._worker.start()
            self._http = self._made(listener)
            self._thread = threading.Thread(target=self._http.run, args=([listener],), name="http", daemon=True)
            self._thread.start()
            self._await_started()
        except BaseException:
            listener.close()
            self._end()
            if self.parallel:
                self._worker.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if self._thread is not None:
            self._thread.join()
        self._worker.stop()

    def _await_started(self) -> None:
        http = self._http
        wait_for(lambda: (http and http.started) or not self.runs, timeout_s=_STARTED_S, interval_s=0.01)
        if not (http and http.started):
            raise PrerequisiteError("the server did not start", hint="is this machine overloaded?")

    def _end(self) -> None:
        """No new connections; what runs may finish."""
        if self._http is not None:
            self._http.should_exit = True

    def _made(self, listener: socket.socket) -> uvicorn.Server:
        import uvicorn  # noqa: PLC0415 - heavy

        from gpurig.evaljobs.serving.application import Served, application  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.serving.embedding import EmbeddingWorker  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.serving.service import Service  # noqa: PLC0415 - heavy
        from gpurig.evaljobs.serving.stopping import Stoppable  # noqa: PLC0415 - heavy

        options, gguf = self._options, self._model.gguf
        host, port = listener.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
        served = Served(
            names=options.names,
            fingerprint=_fingerprint(self._model, options.names.adapters),
            since=int(time.time()),
            template=self._template,
            access=Access(options.keys, loopback=is_loopback(host)),
        )
        limits = Limits(
            context=self.context,
            vocabulary=len(gguf.metadata.get("tokenizer.ggml.tokens", ())),
            body_bytes=options.body_bytes,
            waiting=options.waiting,
            answer_tokens=options.answer_tokens,
        )
        worker = self._worker
        source = worker if isinstance(worker, EmbeddingWorker) else Service(worker, limits)
        config = uvicorn.Config(
            Stoppable(application(source, served, limits)),
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            # What a job's log holds of it is warnings and errors; requests are the clients' to log.
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=self._options.grace_s,
        )
        return uvicorn.Server(config)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol's own number: asyncio sets TCP_NODELAY where it sees that, and without it an answer waits 40 ms
    # for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        hint = "--host with an address or a name of this machine's"
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            hint = "--port 0 takes any free port"
        raise PrerequisiteError(f"cannot listen on {host}, port {port}: {error.strerror}", hint=hint) from error
    return listener


def _template(path: Path) -> str:
    text = read_text(path)
    try:
        check_syntax(text)
    except TemplateFault as fault:
        raise InputError(f"{path}: {fault}", hint="correct the template") from None
    return text


def _fingerprint(model: ModelFile, adapters: Mapping[str, AdapterRef]) -> str:
    parts: list[object] = [model.ref.sha256, sorted(LlamaProvider().packages.items())]
    parts += sorted((name, one.sha256, one.scale) for name, one in adapters.items())
    return "fp_" + hashlib.sha256(" ".join(str(part) for part in parts).encode()).hexdigest()[:10]
