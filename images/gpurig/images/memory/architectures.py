"""What llama.cpp knows of an architecture that its files do not say: src/models/*.cpp, src/llama-arch.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Window:
    """Which layers attend to a sliding window only.

    Attributes:
        tokens: of the window, where the file does not say; 0 for none.
        every: one layer of so many attends to everything; 0 where only the file's own pattern tells.
        dense_first: that layer is the first of them, not the last.
        fixed: the file's size does not matter.
        every_attention: every layer with attention has the window.
        only_layers: models of other layer counts have none.
    """

    tokens: int = 0
    every: int = 0
    dense_first: bool = False
    fixed: bool = False
    every_attention: bool = False
    only_layers: frozenset[int] = field(default_factory=frozenset)

    def of(self, tokens: int) -> Window:
        """The same, of `tokens`; none where that is 0."""
        return replace(self, tokens=tokens) if tokens else Window()

    def layers(self, count: int, pattern: Any) -> tuple[bool, ...]:
        """Which of `count` layers have the window; `pattern` is the file's own (an array, a number, or None)."""
        if not self.tokens:
            return (False,) * count
        if isinstance(pattern, Sequence):
            told = [bool(one) for one in pattern[:count]]
            return (*told, *(False,) * (count - len(told)))
        every = pattern if isinstance(pattern, int) and 0 < pattern <= count else self.every
        if not every:
            return (False,) * count
        dense = 0 if self.dense_first else every - 1
        return tuple(index % every != dense for index in range(count))


# Architectures whose window llama.cpp honours; others may name one in their files (phi3, mistral, qwen2).
WINDOWS = {
    "gemma2": Window(tokens=4096, every=2),
    "gemma3": Window(every=6),
    "gemma3n": Window(every=5),
    "gemma4": Window(),
    "gpt-oss": Window(every=2),
    "cohere2": Window(every=4),
    "cohere2moe": Window(every=4, dense_first=True),
    "olmo2": Window(every=4),
    "exaone4": Window(tokens=4096, every=4, only_layers=frozenset({64})),
    "exaone-moe": Window(tokens=128, every=4),
    "llama4": Window(tokens=8192, every=4, fixed=True),
    "smallthinker": Window(every=4, dense_first=True),
    "plamo3": Window(every=8),
    "afmoe": Window(every=4),
    "mellum": Window(every=4),
    "muse-glimmer": Window(every=4),
    "laguna": Window(every=4, dense_first=True),
    "step35": Window(),
    "mimo2": Window(),
    "spark2_5": Window(),
    "granite_swa": Window(),
    "maple": Window(),
    "dots3note": Window(),
    "lfm2": Window(every_attention=True),
    "lfm2moe": Window(every_attention=True),
}

RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
# Hybrids: a layer without key-value heads is recurrent; or every layer but one of so many.
KV_HEADS_TELL = frozenset({
    "jamba", "granitehybrid", "plamo2", "lfm2", "lfm2moe", "kimi-linear", "kimi-k3", "glm5-next", "bailingmoe3",
})  # fmt: skip
INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
# Only the first layers have a cache of their own, the others use theirs.
SHARED_FROM_START = {"gemma3n": 20}
# Encoders and diffusion models have no cache at all.
NO_CACHE = frozenset({
    "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert", "modern-bert",
    "gemma-embedding", "wavtokenizer-dec", "dream", "llada", "llada-moe", "rnd1",
})  # fmt: skip
# Those whose every output is the embedding itself: no layer turns it back into tokens.
NO_OUTPUT = NO_CACHE - {"dream", "llada", "llada-moe", "rnd1"}
# Held against llama.cpp by the tests; of any other one the forecast is made with the same formulas, unproven.
MEASURED = frozenset({
    "llama", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "phi3", "gpt-oss", "starcoder2", "deepseek2", "mamba",
    "granitehybrid", "lfm2", "qwen35",
})  # fmt: skip
