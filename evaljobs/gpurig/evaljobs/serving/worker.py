"""The one thread that owns the model: requests come in by a queue, what is written of them goes out to event loops."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from gpurig.common.errors import ApplianceError, PrerequisiteError
from gpurig.evaljobs.engine import Completion, EngineSettings, Request
from gpurig.evaljobs.inference.answers import Answer, failed
from gpurig.evaljobs.inference.engine import InferenceEngine
from gpurig.evaljobs.inference.session import Session
from gpurig.evaljobs.inference.written import Written
from gpurig.evaljobs.llama import LlamaProvider
from gpurig.evaljobs.llama_vocabulary import PromptTooLong, RequestFault
from gpurig.evaljobs.models import ModelFile

# Requests that are answered at the same time where the user does not say: as the engine itself has it.
_PARALLEL = 32


@dataclass(frozen=True)
class Progress:
    """What is known of a request's answer.

    Attributes:
        number: of the request in its call.
        output: all that is written so far; the whole answer where it is finished.
        log: its tokens, where the request wants them.
        done: the completion, once it is finished.
    """

    number: int
    output: bytes
    log: Sequence[Written] = ()
    done: Completion | None = None


@dataclass(frozen=True)
class Call:
    """Requests of one client, answered beside each other.

    Attributes:
        requests: their ids are unique in the server.
        stream: what is written is told as it is written, not only at the end.
        loop: on which `events` is read.
        events: gets a Progress whenever there is one; None: the engine failed, nothing comes any more.
    """

    requests: tuple[Request, ...]
    stream: bool
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[Progress | None]


@dataclass
class _Ticket:
    call: Call
    number: int
    answer: Answer
    told: int = 0


@dataclass
class _Box:
    """What is told to event loops after a step, one wake-up a loop."""

    mail: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Progress | None], Progress | None]]] = field(
        default_factory=dict
    )

    def put(self, call: Call, event: Progress | None) -> None:
        self.mail.setdefault(call.loop, []).append((call.events, event))

    def send(self) -> None:
        for loop, letters in self.mail.items():
            # A loop that is closed has nobody who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_deliver, letters)
        self.mail = {}


def _deliver(letters: Sequence[tuple[asyncio.Queue[Progress | None], Progress | None]]) -> None:
    for events, event in letters:
        events.put_nowait(event)


class Worker:
    """Loads a model and answers calls until it is stopped.

    Attributes:
        failure: why it cannot answer any more; None while it can.
    """

    def __init__(
        self,
        model: ModelFile,
        settings: EngineSettings,
        *,
        prompt_tokens: int | None = None,
        on_failure: Callable[[], None],
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            model: what answers.
            settings: how it is loaded.
            prompt_tokens: of a prompt, at most; None: what the context holds.
            on_failure: called in the worker's thread once it cannot answer any more.
        """
        self._model, self._settings, self._on_failure = model, settings, on_failure
        self._prompt_tokens = prompt_tokens
        self._inbox: queue.SimpleQueue[Call | tuple[str, ...] | None] = queue.SimpleQueue()
        self._ready: Future[int] = Future()
        self._tickets: dict[str, _Ticket] = {}
        self._box = _Box()
        self._lock = threading.Lock()
        self.failure: ApplianceError | None = None
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> int:
        """Load the model; how many requests are answered at the same time.

        Raises:
            InputError: llama.cpp refuses the file. PrerequisiteError: no memory, or a GPU build without a GPU.
        """
        self._thread.start()
        return self._ready.result()

    def submit(self, call: Call) -> None:
        """Let a call wait for its turn; from any thread."""
        with self._lock:
            if self.failure is None:
                self._inbox.put(call)
                return
        call.events.put_nowait(None)

    def cancel(self, requests: Sequence[str]) -> None:
        """Forget requests; nothing where they are answered already. From any thread."""
        self._inbox.put(tuple(requests))

    def stop(self) -> None:
        """Forget everything and free the model's memory."""
        self._inbox.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with (
                LlamaProvider().open(self._model, self._settings) as engine,
                engine.session(
                    self._settings.parallel or _PARALLEL, self._settings.context, exact=self._settings.exact
                ) as session,
            ):
                self._ready.set_result(session.sequences)
                self._serve(engine, session)
        except ApplianceError as error:
            self._fail(error)
        except BaseException as error:
            self._fail(PrerequisiteError(f"the engine died: {error!r}"))
            raise

    def _fail(self, error: ApplianceError) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
            return
        with self._lock:
            self.failure = error
        for ticket in self._tickets.values():
            self._box.put(ticket.call, None)
        with contextlib.suppress(queue.Empty):
            while True:
                if isinstance(call := self._inbox.get_nowait(), Call):
                    self._box.put(call, None)
        self._box.send()
        self._on_failure()

    def _serve(self, engine: InferenceEngine, session: Session[Completion]) -> None:
        while True:
            # Where nothing is to be computed there is time to wait.
            wait = not len(session)
            while wait or not self._inbox.empty():
                wait = False
                command = self._inbox.get()
                if command is None:
                    return
                if isinstance(command, Call):
                    self._add(engine, session, command)
                else:
                    for request in command:
                        session.cancel(request)
                        self._tickets.pop(request, None)
            for ended in session.step():
                ticket = self._tickets.pop(ended.result.id)
                self._tell(ticket, ended.result)
            for ticket in self._tickets.values():
                if ticket.call.stream and len(ticket.answer.output) > ticket.told:
                    self._tell(ticket, None)
            self._box.send()

    def _add(self, engine: InferenceEngine, session: Session[Completion], call: Call) -> None:
        for number, request in enumerate(call.requests):
            try:
                answer = engine.answer(request)
                self._demand_short(answer)
            except RequestFault as fault:
                self._box.put(call, Progress(number, b"", done=failed(request, fault)))
            else:
                session.add(answer)
                self._tickets[request.id] = _Ticket(call, number, answer)

    def _demand_short(self, answer: Answer) -> None:
        length = len(answer.work.prompt)
        if self._prompt_tokens is not None and length > self._prompt_tokens:
            raise PromptTooLong(f"the prompt has {length} tokens, and this server takes {self._prompt_tokens} at most")

    def _tell(self, ticket: _Ticket, done: Completion | None) -> None:
        answer = ticket.answer
        ticket.told = len(answer.output)
        self._box.put(ticket.call, Progress(ticket.number, answer.output, tuple(answer.log), done))
