"""What happens in a build, the same for every builder; and the two builders' outputs read into it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from gpurig.common.terminal import harmless

Outcome = Literal["done", "cached", "failed"]


@dataclass(frozen=True)
class StepBegan:
    """A step of the Dockerfile, or of the builder's own, begins.

    Attributes:
        key: tells it from others of the same build.
        place: where in the build, as the builder counts: "5/22", "compiler 2/9"; "" for the builder's own steps.
        title: the instruction, one line.
    """

    key: str
    place: str
    title: str


@dataclass(frozen=True)
class StepEnded:
    """A step came to its end."""

    key: str
    outcome: Outcome


@dataclass(frozen=True)
class Output:
    """A line that a step's command printed.

    Attributes:
        key: the step's; "" for the builder's own words.
        line: without anything that a terminal obeys.
    """

    key: str
    line: str


BuildEvent = StepBegan | StepEnded | Output


def clean(line: str) -> str:
    """A line of a build tool's output, harmless; its colours are noise in a log."""
    return harmless(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line)).rstrip()


@dataclass
class ClassicOutput:
    """Reads the lines of the classic builder, which runs one step after the other.

    A command may print what looks like the head of a step: only the one that comes next is one.
    """

    _current: str = ""
    _cached: bool = False
    _next: int = 1

    def feed(self, line: str) -> Iterator[BuildEvent]:
        """The events of one line."""
        step = re.match(rf"Step ({self._next}/\d+) : (.*)", line)
        if step:
            yield from self.end()
            self._current, self._cached, self._next = step[1], False, self._next + 1
            yield StepBegan(step[1], step[1], " ".join(step[2].split()))
        elif line.strip() == "---> Using cache":
            self._cached = True
        elif not re.match(
            r"(\s*---> [\w ]+$|(Removing|Removed) intermediate container |Successfully (built|tagged) )", line
        ):
            yield Output(self._current, line)

    def end(self, *, failed: bool = False) -> Iterator[BuildEvent]:
        """The end of the step that is under way."""
        if self._current:
            yield StepEnded(self._current, "failed" if failed else "cached" if self._cached else "done")
        self._current = ""


@dataclass
class PlainOutput:
    """Reads the lines of `docker buildx build --progress plain`: `#5 [stage 2/9] RUN …`, `#5 0.1 text`, `#5 DONE 1s`.

    Steps run beside each other; a step's head is printed again when the output comes back to it.

    Attributes:
        error: what the builder said at the end where it failed.
    """

    error: str = ""
    _heads: dict[str, str] = field(default_factory=dict)

    def feed(self, line: str) -> Iterator[BuildEvent]:
        """The events of one line."""
        numbered = re.match(r"#(\d+) (.*)", line)
        if not numbered:
            if line.startswith("ERROR: "):
                self.error = line.removeprefix("ERROR: ")
            if line.strip():
                yield Output("", line)
            return
        key, text = numbered[1], numbered[2]
        if key == "0" or self._heads.get(key) == text:
            return
        if key not in self._heads:
            self._heads[key] = text
            shown = re.sub(r" --mount=type=secret,id=\S+", "", text)
            place = re.match(r"\[(?!internal\])([^\]]+)\] (.*)", shown)
            yield StepBegan(key, place[1].strip() if place else "", place[2] if place else shown)
        elif re.fullmatch(r"DONE [\d.]+s", text):
            yield StepEnded(key, "done")
        elif text == "CACHED":
            yield StepEnded(key, "cached")
        elif text.startswith(("ERROR: ", "ERROR ")) or text == "CANCELED":
            yield StepEnded(key, "failed")
        elif said := re.sub(r"^\d+\.\d+ ?", "", text):
            yield Output(key, said)
