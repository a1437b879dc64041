"""What a run has made so far, and how to unmake it."""

from __future__ import annotations

from collections.abc import Callable

from gpurig.common.errors import ApplianceError


class UndoLog:
    """Actions that take back what was done, run in reverse."""

    def __init__(self) -> None:
        """Begin with nothing done."""
        self._actions: list[tuple[str, Callable[[], None]]] = []

    def push(self, what: str, action: Callable[[], None]) -> None:
        """Remember how to take something back.

        Args:
            what: a phrase for the message, for example "deleting the runner".
            action: must do no harm where the thing was not done after all.
        """
        self._actions.append((what, action))

    def __bool__(self) -> bool:
        """Something was done."""
        return bool(self._actions)

    def forget(self) -> None:
        """From here on nothing is taken back."""
        self._actions.clear()

    def roll_back(self) -> list[str]:
        """Take everything back; what failed, one line each. A failure does not stop the rest."""
        failures = []
        while self._actions:
            what, action = self._actions.pop()
            try:
                action()
            except ApplianceError as error:
                failures.append(f"{what}: {error.message}")
        return failures
