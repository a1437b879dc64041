"""A stand-in of NVIDIA's Python binding for unit tests: no library, no device, answers that a test chooses.

The fake library beside it runs the real binding, and is for integration tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pynvml

MIB = 1024**2


class FakeBinding:
    """Has every function of the binding; those without an answer say that it is not supported.

    An answer is a value, a function of the call's arguments (the handle first), or an error to raise. `failing` makes
    a function fail for a handle, or for each; `slow` lets time pass in it.

    Attributes:
        answers: by function.
        calls: how often each function was called.
    """

    NVMLError = pynvml.NVMLError
    nvmlMemory_v2 = pynvml.nvmlMemory_v2  # noqa: N815 - the binding's own name
    nvmlEventTypeXidCriticalError = pynvml.nvmlEventTypeXidCriticalError  # noqa: N815

    def __init__(self, **answers: Any) -> None:
        """A driver without a card but those that any UUID and number names."""
        self.answers: dict[str, Any] = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlSystemGetDriverVersion": "580.95.05",
            "nvmlSystemGetNVMLVersion": "13.580.95.05",
            "nvmlSystemGetCudaDriverVersion_v2": 13000,
            "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
            "nvmlDeviceGetHandleByIndex": lambda index: f"card {index}",
            **answers,
        }
        self.calls: Counter[str] = Counter()
        self._failing: dict[str, tuple[int, Any]] = {}
        self._slow: dict[str, Callable[[], None]] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The function of that name."""
        if not hasattr(pynvml, name):
            raise AttributeError(name)
        return lambda *arguments, **_named: self._answer(name, *arguments)

    def fail(self, function: str, code: int, handle: Any = None) -> None:
        """Let a function fail, for one handle or for each."""
        self._failing[function] = (code, handle)

    def recover(self, *functions: str) -> None:
        """Let them work again; all of them without an argument."""
        for function in functions or tuple(self._failing):
            self._failing.pop(function, None)

    def slow(self, function: str, passes: Callable[[], None]) -> None:
        """Call `passes` in each call of a function."""
        self._slow[function] = passes

    def _answer(self, name: str, *arguments: Any) -> Any:
        self.calls[name] += 1
        if name in self._slow:
            self._slow[name]()
        code, handle = self._failing.get(name, (0, None))
        if code and (handle is None or arguments[0] == handle):
            raise pynvml.NVMLError(code)
        if name not in self.answers:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        answer = self.answers[name]
        return answer(*arguments) if callable(answer) else answer


def memory(used: int, reserved: int | None = None, total: int = 24564 * MIB) -> SimpleNamespace:
    """What nvmlDeviceGetMemoryInfo gives; its first version has no `reserved`."""
    return SimpleNamespace(total=total, used=used, **({} if reserved is None else {"reserved": reserved}))


def process(pid: int, used: int | None, gpu_instance: int = 2**32 - 1) -> SimpleNamespace:
    """What nvmlDeviceGetComputeRunningProcesses_v3 lists."""
    return SimpleNamespace(
        pid=pid, usedGpuMemory=used, gpuInstanceId=gpu_instance, computeInstanceId=min(gpu_instance, 2**32 - 1)
    )


def sample(pid: int, at_us: int, percent: int) -> SimpleNamespace:
    """What nvmlDeviceGetProcessUtilization lists."""
    return SimpleNamespace(pid=pid, timeStamp=at_us, smUtil=percent, memUtil=0, encUtil=0, decUtil=0)


def field_value(number: float, kind: int = 1, code: int = 0) -> list[SimpleNamespace]:
    """What nvmlDeviceGetFieldValues gives for one field; `kind` is its type, 1 an unsigned int."""
    names = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
    return [SimpleNamespace(nvmlReturn=code, valueType=kind, value=SimpleNamespace(**{names[kind]: number}))]


def by_number(answers: Iterable[Any]) -> Callable[..., Any]:
    """An answer that depends on the second argument: a clock's, threshold's or kind's number."""
    known = list(answers)

    def answer(_handle: Any, number: int, *_rest: Any) -> Any:
        if number >= len(known) or known[number] is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return known[number]

    return answer
