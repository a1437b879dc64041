"""The inference engine: any number of requests through as many sequences as there is memory for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.evaljobs.engine import Completion, EngineSettings, Request
from gpurig.evaljobs.inference.adapters import Adapters
from gpurig.evaljobs.inference.answers import Answer, failed
from gpurig.evaljobs.inference.context import Context, NoRoomError
from gpurig.evaljobs.inference.likelihood import Scored, ScoreRequest, gathered, plan_scores
from gpurig.evaljobs.inference.prefix_store import PrefixStore
from gpurig.evaljobs.inference.prefixes import Prefixes
from gpurig.evaljobs.inference.room import gpu_names, sequences_for, worthwhile
from gpurig.evaljobs.inference.session import Session
from gpurig.evaljobs.inference.tasks import Task
from gpurig.evaljobs.llama_log import last_errors
from gpurig.evaljobs.llama_model import demand_device, load_model, release
from gpurig.evaljobs.llama_vocabulary import RequestFault, Vocabulary
from gpurig.evaljobs.models import ModelFile

# Prompts' tokens that are computed together: more gains nothing on a CPU, and costs memory.
_BATCH = 512
# Logits of one step, at most: with a vocabulary of 152,000 tokens those of 220 tokens, and never of fewer than these.
_MOST_LOGITS_BYTES, _LEAST_BATCH = 128 * 1024 * 1024, 64
# Cells beside what a work needs, so that rows can be padded.
_SPARE_CELLS = 16

T = TypeVar("T")


class InferenceEngine:
    """One model, many sequences; one alone where the answers have to be exact."""

    def __init__(self, model: ModelFile, settings: EngineSettings) -> None:
        """Load the model; the cache is made when the requests are known.

        Raises:
            InputError: llama.cpp refuses a file. PrerequisiteError: a GPU build without a GPU.
        """
        import llama_cpp  # noqa: PLC0415 - loads shared libraries

        self._api, self._libraries = llama_cpp, Path(llama_cpp.__file__).parent / "lib"
        self._file, self._settings = model, settings
        self._errors = last_errors(llama_cpp)
        self._errors.clear()
        llama_cpp.llama_backend_init()
        demand_device(llama_cpp)
        self._gpu = bool(llama_cpp.llama_supports_gpu_offload())
        self._model = load_model(llama_cpp, model.path, self._errors, gpu=self._gpu)
        try:
            self._adapters = Adapters(llama_cpp, self._model, model.adapters, self._errors)
        except InputError:
            release(llama_cpp, model=self._model, context=None, batch=None)
            raise
        self._vocabulary = Vocabulary(llama_cpp, self._model)
        # What has been computed cannot be taken back where the past is one state and not a list of tokens.
        self._cut = not (
            llama_cpp.llama_model_is_recurrent(self._model) or llama_cpp.llama_model_is_hybrid(self._model)
        )
        # A sequence's state leaves out what a sliding window has passed.
        self._window = llama_cpp.llama_model_n_swa(self._model) > 0

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's tokenizer."""
        return self._vocabulary

    def close(self) -> None:
        """Free the model's memory; a second call does nothing."""
        self._adapters.close()
        release(self._api, model=self._model, context=None, batch=None)
        self._model = None

    def run(self, requests: Iterable[Request], *, exact: bool = False) -> Iterator[Completion]:
        """Answer every request once, in the order in which they are finished.

        Args:
            requests: what is asked.
            exact: one after the other, whatever the settings say.

        Raises:
            PrerequisiteError: llama.cpp failed to compute, or has no memory for one sequence.
        """
        exact = exact or self._settings.exact
        answers = []
        for request in requests:
            try:
                answers.append(self.answer(request))
            except RequestFault as fault:
                yield failed(request, fault)
        yield from self._computed(answers, exact=exact)

    def score(self, requests: Iterable[ScoreRequest], *, exact: bool = False) -> Iterator[Scored]:
        """Say how probable continuations are; every request is answered once, as soon as it is known.

        Args:
            requests: contexts and continuations, in tokens (`gpurig.evaljobs.inference.likelihood`).
            exact: one after the other, whatever the settings say: what is computed for a continuation depends on it
                and its context alone.

        Raises:
            PrerequisiteError: llama.cpp failed to compute, or has no memory for one sequence.
        """
        exact = exact or self._settings.exact
        requests = tuple(requests)
        for request in requests:
            self._adapters.demand(request.adapters)
        plan = plan_scores(
            requests,
            limit=self._settings.context,
            longest=self._scoring_batch // 2,
            vocabulary=self._vocabulary.size,
            alone=exact,
        )
        yield from gathered(requests, plan, self._computed(plan.tasks, exact=exact, batch=self._scoring_batch))

    @property
    def _scoring_batch(self) -> int:
        """Tokens that are computed together where each has logits: those of one step have to fit into memory."""
        return max(_LEAST_BATCH, min(_BATCH, _MOST_LOGITS_BYTES // (4 * self._vocabulary.size)))

    def _computed(self, tasks: Sequence[Task[T]], *, exact: bool, batch: int = _BATCH) -> Iterator[T]:
        """What tasks come to, in the order in which they are done."""
        if not tasks:
            return
        cells = max(task.work.need for task in tasks) + _SPARE_CELLS
        spoilt: list[Task[T]] = []
        session: Session[T]
        with self.session(len(tasks), cells, exact=exact, batch=batch) as session:
            session.expect(tasks)
            for task in tasks:
                session.add(task)
            while len(session):
                for ended in session.step():
                    if ended.spoilt and session.sequences > 1:
                        spoilt.append(ended.task)
                    else:
                        yield ended.result
        # Another one's figures may have spoilt it: only what fails alone has failed.
        for task in spoilt:
            task.restart()
            yield from self._computed([task], exact=True, batch=batch)

    def answer(self, request: Request) -> Answer:
        """A request as a session takes it.

        Raises:
            RequestFault: it cannot be answered.
        """
        self._adapters.demand(request.adapters)
        return Answer(self._api, self._vocabulary, request, limit=self._settings.context)

    @contextlib.contextmanager
    def session(self, wanted: int, cells: int, *, exact: bool = False, batch: int = _BATCH) -> Iterator[Session[Any]]:
        """A session; leaving forgets its requests and frees its memory.

        Args:
            wanted: requests to be answered at the same time; fewer where the settings say so or memory is short.
            cells: tokens that each needs at most; not heeded where it is exact.
            exact: one at a time, and none shares anything with another.
            batch: tokens that are computed together, at most.

        Raises:
            PrerequisiteError: no memory for one.
        """
        if exact:
            # The size of the context must not depend on the other requests.
            cells, sequences = self._settings.context, 1
        else:
            sequences = min(wanted, self._settings.parallel or worthwhile(cells, gpu=self._gpu))
            sequences = sequences_for(
                self._api,
                self._file,
                wanted=sequences,
                cells=cells,
                batch=batch,
                gpu=self._gpu,
                cache=self._settings.cache,
            )
        context, sequences = self._context(sequences, cells, batch)
        prefixes = None if exact else self._prefixes(context, batch)
        session: Session[Any] = Session(
            context,
            sequences=sequences,
            batch=batch,
            share=self._cut and not exact,
            cut=self._cut,
            whole=self._window,
            prefixes=prefixes,
        )
        try:
            yield session
        finally:
            session.close()
            context.close()
            if prefixes is not None and self._settings.prefixes is not None:
                for line in prefixes.told():
                    self._settings.prefixes.say(line)

    def _prefixes(self, context: Context, batch: int) -> Prefixes | None:
        if self._settings.prefixes is None:
            return None
        identity = {
            "model": self._file.ref.sha256,
            "llama-cpp-python": self._api.__version__,
            "system": self._api.llama_print_system_info().decode(errors="replace"),
            # The same version may be compiled in several ways.
            "libraries": {file.name: file.stat().st_size for file in sorted(self._libraries.glob("*.so*"))},
            "devices": gpu_names(self._api) if self._gpu else [],
            **context.layout,
        }
        store = PrefixStore(self._settings.prefixes, identity)
        return Prefixes(context, store, batch=batch, cut=self._cut and not self._window)

    def _context(self, sequences: int, cells: int, batch: int) -> tuple[Context, int]:
        """A context, with half the sequences as long as llama.cpp has no memory for all; and how many it has."""
        while True:
            try:
                return self._made(sequences, cells, batch), sequences
            except NoRoomError as error:
                if sequences == 1:
                    raise PrerequisiteError(
                        f"llama.cpp cannot make a context of {cells} tokens: {error}",
                        hint="a smaller `context` in the suite needs less memory",
                    ) from error
                sequences = max(1, sequences // 2)

    def _made(self, sequences: int, cells: int, batch: int) -> Context:
        return Context(
            self._api,
            self._model,
            self._errors,
            sequences=sequences,
            cells=cells,
            batch=batch,
            threads=self._settings.threads,
            gpu=self._gpu,
            cache=self._settings.cache,
            adapters=self._adapters,
        )
