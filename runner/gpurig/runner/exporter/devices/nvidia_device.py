"""One NVML handle: what it is asked, how often, and what its refusals mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpurig.provisioning.nvml import (
    ARGUMENT_VERSION_MISMATCH,
    CORRUPTED_INFOROM,
    DEPRECATED,
    DRIVER_NOT_LOADED,
    FUNCTION_NOT_FOUND,
    GPU_IS_LOST,
    GPU_NOT_FOUND,
    INVALID_ARGUMENT,
    LIBRARY_NOT_FOUND,
    NO_PERMISSION,
    NOT_SUPPORTED,
    RESET_REQUIRED,
    UNINITIALIZED,
    UNKNOWN,
    VERSION_MISMATCH,
    VGPU_ECC_NOT_SUPPORTED,
)
from gpurig.runner.exporter.devices.retry import Retry

# The card, the driver or the library does not have the field, and will hardly get it while it runs.
_ABSENT = {
    INVALID_ARGUMENT,
    NOT_SUPPORTED,
    NO_PERMISSION,
    FUNCTION_NOT_FOUND,
    CORRUPTED_INFOROM,
    VGPU_ECC_NOT_SUPPORTED,
    ARGUMENT_VERSION_MISMATCH,
    DEPRECATED,
}
# The card is gone, whatever was asked.
_GONE = {GPU_IS_LOST, RESET_REQUIRED, GPU_NOT_FOUND}
# NVML is gone, whichever card was asked.
_WITHOUT_NVML = {UNINITIALIZED, DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, VERSION_MISMATCH}

ABSENT_S = 600.0
# What changes slowly is no older than a usual scrape interval.
SLOW_S = 15.0
# How long a slow value stands while the card answers with errors.
_KEEP_S = 60.0
_RETRY_S = 60.0
# A driver whose firmware hangs takes 6 seconds a call (Xid 119): one such card must not hold up the others.
PATIENCE_S = 2.0

# nvml.h, NVML_VALUE_NOT_AVAILABLE: all bits set.
_NOT_AVAILABLE = {2**32 - 1, 2**64 - 1}

Ask = Callable[[Any, Any], Any]


class GpuGone(Exception):  # noqa: N818 - a state of the card; `SourceError` is the error
    """A card that does not answer, with the reason.

    Attributes:
        pause_s: how long to leave it alone.
    """

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        """Take the reason, one line."""
        super().__init__(reason)
        self.pause_s = pause_s


class NvmlGone(Exception):  # noqa: N818 - as above
    """NVML does not answer any more, with its words for it."""


@dataclass(frozen=True)
class Question:
    """Something to ask of a handle.

    Attributes:
        name: the answer's name.
        ways: functions of the binding and the handle; a later one is for drivers that lack those before.
        slow: the answer changes seldom: it is asked every `SLOW_S` seconds.
    """

    name: str
    ways: tuple[Ask, ...]
    slow: bool = False


@dataclass
class _State:
    """What is known of one question: the answer and its time, when to ask again, which way, and how long that one."""

    value: Any = None
    value_at: float = 0.0
    ask_at: float = float("-inf")
    way: int = 0
    way_until: float = 0.0
    retry: Retry = field(default_factory=Retry)


class NvmlDevice:
    """A handle with what is known of it."""

    def __init__(self, nvml: Any, handle: Any, *, monotonic: Callable[[], float], phase: float = 1.0) -> None:
        """Take the handle.

        Args:
            nvml: the binding.
            handle: NVML's.
            monotonic: the clock.
            phase: when the slow questions are asked a second time, as a share of their period: cards take turns.
        """
        self.handle = handle
        self._nvml = nvml
        self._monotonic = monotonic
        self._first_slow_s = SLOW_S * phase
        self._states: dict[str, _State] = {}
        self._errors = (nvml.NVMLError, AttributeError, UnicodeDecodeError)

    def ask(self, questions: Iterable[Question]) -> Mapping[str, Any]:
        """The answers by name; without those that the card does not tell now.

        Raises:
            GpuGone: the card does not answer.
            NvmlGone: NVML does not.
        """
        told = {}
        refused, answered = 0, False
        for question in questions:
            state = self._states.get(question.name)
            if state is None:
                state = self._states[question.name] = _State()
            if self._monotonic() >= state.ask_at:
                code = self._ask(question, state)
                answered |= code == 0
                refused += code == INVALID_ARGUMENT
            if state.value is not None:
                told[question.name] = state.value
        if refused > 1 and not answered:
            # The handle itself is void: a card that was taken out and put back has another.
            raise GpuGone("NVML does not know the card any more")
        return told

    def _ask(self, question: Question, state: _State) -> int:
        """Ask now; NVML's return code."""
        if state.way and self._monotonic() >= state.way_until:
            state.way = 0
        while True:
            before = self._monotonic()
            code, answer, error = 0, None, None
            try:
                answer = question.ways[state.way](self._nvml, self.handle)
            except self._errors as caught:
                error = caught
                code = _code(caught)
            now = self._monotonic()
            if now - before > PATIENCE_S:
                took = now - before
                raise GpuGone(f"its driver takes {took:.0f} seconds to answer", min(10 * took, 60.0)) from error
            if error is not None:
                check_presence(code, error)
            if code in _ABSENT and state.way + 1 < len(question.ways):
                state.way += 1
                state.way_until = now + ABSENT_S
                continue
            self._note(question, state, code, answer, now)
            return code

    def _note(self, question: Question, state: _State, code: int, answer: Any, now: float) -> None:
        if code == 0:
            first = state.value_at == 0.0
            state.value = None if type(answer) is int and answer in _NOT_AVAILABLE else answer
            state.value_at = now
            state.retry.worked()
            if question.slow:
                state.ask_at = now + (self._first_slow_s if first else SLOW_S)
        elif code in _ABSENT:
            state.value = None
            state.way = 0
            state.ask_at = now + ABSENT_S
        else:
            state.retry.failed(now, _RETRY_S)
            state.ask_at = state.retry.at
            if not question.slow or now - state.value_at > _KEEP_S:
                state.value = None


def check_presence(code: int, error: Exception) -> None:
    """Tell a refusal that is about more than what was asked for.

    Raises:
        GpuGone: it is about the whole card.
        NvmlGone: it is about all of NVML.
    """
    if code in _GONE:
        raise GpuGone(str(error)) from error
    if code in _WITHOUT_NVML:
        raise NvmlGone(str(error)) from error


def _code(error: Exception) -> int:
    if isinstance(error, AttributeError):
        # An older binding.
        return FUNCTION_NOT_FOUND
    return int(getattr(error, "value", UNKNOWN))
