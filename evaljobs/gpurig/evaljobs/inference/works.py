"""What the scheduler is told, and what it tells: works in, steps out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# What a work is computed with beside the model; () is the model alone. The scheduler compares and sorts it only.
Group = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Branch:
    """Tokens that are fed after the first `start` of a work's prompt, and then forgotten.

    Attributes:
        start: how many of the prompt's tokens come before; 1 to all of them.
        tokens: at least one.
    """

    start: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """A request, as the scheduler sees it.

    Attributes:
        id: unique among those that are waiting or worked on.
        prompt: at least one token.
        room: tokens that may be written after the prompt, at most.
        branches: fed one after the other once the prompt is there, before anything is written; all of one start.
        group: works of different groups are neither computed in one step nor share anything.
        logits: of how many of the prompt's last tokens logits are wanted, at least one; those are computed for this
            work alone, whatever it shares with others.
    """

    id: str
    prompt: tuple[int, ...]
    room: int
    branches: tuple[Branch, ...] = ()
    group: Group = ()
    logits: int = 1

    @property
    def need(self) -> int:
        """Cells of the cache that it needs at most."""
        longest = max((branch.start + len(branch.tokens) for branch in self.branches), default=0)
        return max(len(self.prompt) + self.room, longest)

    @property
    def cut_to(self) -> int:
        """The fewest tokens of its prompt that its sequence is cut to while it is worked on."""
        return min((branch.start for branch in self.branches), default=len(self.prompt))


@dataclass(frozen=True)
class Copy:
    """Sequence `target` becomes the first `keep` tokens of sequence `source`; 0 empties it, and source is itself.

    Source and target are the same where a sequence is cut.
    """

    source: int
    target: int
    keep: int


@dataclass(frozen=True, order=True)
class Prefix:
    """A beginning of prompts that is kept beyond the run.

    Attributes:
        group: what it is computed with.
        tokens: at least one.
    """

    group: Group
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Load:
    """Sequence `target` comes to hold a prefix and nothing else, as it was kept, or computed alone."""

    target: int
    prefix: Prefix


@dataclass(frozen=True)
class Row:
    """Tokens for one sequence in a step.

    Attributes:
        work: whose they are.
        sequence: where they go.
        start: the position of the first.
        tokens: those that count.
        padding: how many more are fed behind them, of any kind, so that all rows of the step are equally long.
        kind: "prompt": part of the prompt; "branch": a whole branch, with the prompt before it where the sequence does
            not hold that; "written": the token that was written last.
        scored: of how many tokens logits are wanted, the last ones.
        keep: the sequence's length after the step; what is behind is forgotten.
        branch: the number of the work's branch, for kind "branch".
    """

    work: str
    sequence: int
    start: int
    tokens: Sequence[int]
    padding: int
    kind: Literal["prompt", "branch", "written"]
    scored: int
    keep: int
    branch: int = -1


@dataclass(frozen=True)
class Step:
    """One call of llama_decode, after the copies and loads; rows by ascending sequence, equally long when padded.

    Attributes:
        group: of all its works.
    """

    copies: tuple[Copy | Load, ...]
    rows: tuple[Row, ...]
    group: Group = ()
