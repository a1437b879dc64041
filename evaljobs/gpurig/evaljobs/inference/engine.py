"""The inference engine: any number of requests through as many sequences as there is memory for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.evaljobs.engine import Completion, EngineSettings, Request
from gpurig.evaljobs.inference.adapters import Adapters
from gpurig.evaljobs.inference.answers import Answer, failed
from gpurig.evaljobs.inference.context import Context, NoRoomError
from gpurig.evaljobs.inference.room import sequences_for, worthwhile
from gpurig.evaljobs.inference.session import Session
from gpurig.evaljobs.llama_log import last_errors
from gpurig.evaljobs.llama_model import demand_device, load_model, release
from gpurig.evaljobs.llama_vocabulary import RequestFault, Vocabulary
from gpurig.evaljobs.models import ModelFile

# Prompts' tokens that are computed together: more gains nothing on a CPU, and costs memory.
_BATCH = 512
# Cells beside what a work needs, so that rows can be padded.
_SPARE_CELLS = 16


class InferenceEngine:
    """One model, many sequences; one alone where the answers have to be exact."""

    def __init__(self, model: ModelFile, settings: EngineSettings) -> None:
        """Load the model; the cache is made when the requests are known.

        Raises:
            InputError: llama.cpp refuses a file. PrerequisiteError: a GPU build without a GPU.
        """
        import llama_cpp  # noqa: PLC0415 - loads shared libraries

        self._api = llama_cpp
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
        requests, answers = tuple(requests), []
        for request in requests:
            try:
                answers.append(self.answer(request))
            except RequestFault as fault:
                yield failed(request, fault)
        suspects = []
        if answers:
            cells = max(answer.work.need for answer in answers) + _SPARE_CELLS
            with self.session(len(answers), cells, exact=exact) as session:
                for answer in answers:
                    session.add(answer)
                while len(session):
                    for completion in session.step():
                        if completion.fault == "model" and session.sequences > 1:
                            suspects.append(completion.id)
                        else:
                            yield completion
        # Another one's figures may have spoilt it: only what fails alone has failed.
        for request in requests:
            if request.id in suspects:
                yield from self.run([request], exact=True)

    def answer(self, request: Request) -> Answer:
        """A request as a session takes it.

        Raises:
            RequestFault: it cannot be answered.
        """
        self._adapters.demand(request.adapters)
        return Answer(self._api, self._vocabulary, request, limit=self._settings.context)

    @contextlib.contextmanager
    def session(self, wanted: int, cells: int, *, exact: bool = False) -> Iterator[Session]:
        """A session; leaving forgets its requests and frees its memory.

        Args:
            wanted: requests to be answered at the same time; fewer where the settings say so or memory is short.
            cells: tokens that each needs at most; not heeded where it is exact.
            exact: one at a time, and none shares anything with another.

        Raises:
            PrerequisiteError: no memory for one.
        """
        if exact:
            # The size of the context must not depend on the other requests.
            cells, sequences = self._settings.context, 1
        else:
            sequences = min(wanted, self._settings.parallel or worthwhile(cells, gpu=self._gpu))
            sequences = sequences_for(self._api, self._file, wanted=sequences, cells=cells, batch=_BATCH, gpu=self._gpu)
        context, sequences = self._context(sequences, cells)
        session = Session(context, sequences=sequences, batch=_BATCH, share=self._cut and not exact, cut=self._cut)
        try:
            yield session
        finally:
            session.close()
            context.close()

    def _context(self, sequences: int, cells: int) -> tuple[Context, int]:
        """A context, with half the sequences as long as llama.cpp has no memory for all; and how many it has."""
        while True:
            try:
                return self._made(sequences, cells), sequences
            except NoRoomError as error:
                if sequences == 1:
                    raise PrerequisiteError(
                        f"llama.cpp cannot make a context of {cells} tokens: {error}",
                        hint="a smaller `context` in the suite needs less memory",
                    ) from error
                sequences = max(1, sequences // 2)

    def _made(self, sequences: int, cells: int) -> Context:
        return Context(
            self._api,
            self._model,
            self._errors,
            sequences=sequences,
            cells=cells,
            batch=_BATCH,
            threads=self._settings.threads,
            gpu=self._gpu,
            adapters=self._adapters,
        )
