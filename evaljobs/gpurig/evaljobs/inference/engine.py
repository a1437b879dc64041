"""The inference engine: any number of requests through as many sequences as there is memory for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from gpurig.common.errors import PrerequisiteError
from gpurig.evaljobs.engine import Completion, EngineSettings, Request
from gpurig.evaljobs.inference.answers import Answer, failed
from gpurig.evaljobs.inference.context import Context, NoRoomError
from gpurig.evaljobs.inference.scheduler import Scheduler
from gpurig.evaljobs.inference.works import Row
from gpurig.evaljobs.llama_log import last_errors
from gpurig.evaljobs.llama_model import demand_device, load_model, release
from gpurig.evaljobs.llama_vocabulary import RequestFault, Vocabulary
from gpurig.evaljobs.models import ModelFile

# Prompts' tokens that are computed together: more gains nothing on a CPU, and costs memory.
_BATCH = 512
# More sequences than this gain little, and each costs its part of the cache.
_MOST_SEQUENCES = 32
# Cells beside what a work needs, so that rows can be padded.
_SPARE_CELLS = 16


class InferenceEngine:
    """One model, many sequences; one alone where the answers have to be exact.

    Attributes:
        sequences: of the last run.
    """

    def __init__(self, model: ModelFile, settings: EngineSettings) -> None:
        """Load the model; the cache is made when the requests are known.

        Raises:
            InputError: llama.cpp refuses the file. PrerequisiteError: a GPU build without a GPU.
        """
        import llama_cpp  # noqa: PLC0415 - loads shared libraries

        self._api = llama_cpp
        self._settings = settings
        self.sequences = 0
        self._errors = last_errors(llama_cpp)
        self._errors.clear()
        llama_cpp.llama_backend_init()
        demand_device(llama_cpp)
        gpu = bool(llama_cpp.llama_supports_gpu_offload())
        self._model = load_model(llama_cpp, model.path, self._errors, gpu=gpu)
        self._vocabulary = Vocabulary(llama_cpp, self._model)
        # What has been computed cannot be taken back where the past is one state and not a list of tokens.
        self._cut = not (
            llama_cpp.llama_model_is_recurrent(self._model) or llama_cpp.llama_model_is_hybrid(self._model)
        )

    def close(self) -> None:
        """Free the model's memory; a second call does nothing."""
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
        answers: dict[str, Answer] = {}
        for request in requests:
            try:
                answers[request.id] = Answer(self._api, self._vocabulary, request, limit=self._settings.context)
            except RequestFault as fault:
                yield failed(request, fault)
        if answers:
            context = self._context(answers, exact=exact)
            try:
                yield from self._answered(context, answers, share=self._cut and not exact)
            finally:
                context.close()
                for answer in answers.values():
                    answer.close()

    def _context(self, answers: Mapping[str, Answer], *, exact: bool) -> Context:
        """A context for these works: with half the sequences where there is no memory for all."""
        if exact:
            # The size of the context must not depend on the other requests.
            cells, sequences = self._settings.context, 1
        else:
            cells = max(answer.work.need for answer in answers.values()) + _SPARE_CELLS
            sequences = min(len(answers), self._settings.parallel or _MOST_SEQUENCES)
        while True:
            try:
                context = Context(
                    self._api,
                    self._model,
                    self._errors,
                    sequences=sequences,
                    cells=cells,
                    batch=_BATCH,
                    threads=self._settings.threads,
                )
            except NoRoomError as error:
                if sequences == 1:
                    raise PrerequisiteError(
                        f"llama.cpp cannot make a context of {cells} tokens: {error}",
                        hint="a smaller `context` in the suite needs less memory",
                    ) from error
                sequences = max(1, sequences // 2)
            else:
                self.sequences = sequences
                return context

    def _answered(self, context: Context, answers: dict[str, Answer], *, share: bool) -> Iterator[Completion]:
        scheduler = Scheduler(
            sequences=self.sequences,
            cells=context.cells,
            batch=_BATCH,
            share=share,
            cut=self._cut,
        )
        for answer in answers.values():
            scheduler.add(answer.work)
        while len(scheduler):
            step = scheduler.next_step()
            if step is None:
                raise AssertionError("works wait, and nothing is to be computed")
            started = time.monotonic()
            logits = context.compute(step)
            if step.rows:
                share_of_each = (time.monotonic() - started) / len(step.rows)
                for row in step.rows:
                    answers[row.work].seconds += share_of_each
            place = 0
            for row in step.rows:
                if row.scored:
                    completion = _go_on(scheduler, answers[row.work], row, logits[place : place + row.scored])
                    place += row.scored
                    if completion is not None:
                        scheduler.close(row.work)
                        answers.pop(row.work).close()
                        yield replace(completion, parallel=self.sequences)


def _go_on(scheduler: Scheduler, answer: Answer, row: Row, logits: Any) -> Completion | None:
    """Give an answer its logits; the completion where that was all it wanted."""
    try:
        if row.kind == "branch":
            answer.scored(row.branch, logits)
        else:
            token = (answer.prompted if row.kind == "prompt" else answer.written)(logits[0])
            if token is not None:
                scheduler.write(row.work, token)
    except RequestFault as fault:
        return answer.failed(fault)
    return answer.completion() if answer.done else None
