"""PyTorch, Transformers and lm-evaluation-harness in an environment of their own: what our figures are held against.

`make reference` makes it. The fixture `reference` is its interpreter; tests that ask for it skip where it is missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gpurig.common.process import Finished, run

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = REPOSITORY / "build" / "reference-venv" / "bin" / "python"
_PROGRAM = Path(__file__).with_name("reference_program.py")


@dataclass(frozen=True)
class Reference:
    """The environment.

    Attributes:
        python: its interpreter; gpurig is installed in it too.
    """

    python: Path

    def run(self, *words: str | Path, timeout_s: float = 600.0, stdin: str = "", **env: str) -> Finished:
        """Run its interpreter with these arguments: one thread, nothing from a hub."""
        return run(
            [str(self.python), *map(str, words)], timeout_s=timeout_s, stdin=stdin, env={**self.environment, **env}
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """Of the programs that run in it."""
        return {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }

    def tokens(self, folder: Path, texts: Sequence[str], scratch: Path) -> list[list[int]]:
        """The tokens of texts, with BOS where the tokenizer puts it; special tokens are recognized."""
        return [tokens.tolist() for tokens in self._ask(folder, scratch, texts=texts)]

    def log_probabilities(self, folder: Path, sequences: Sequence[Sequence[int]], scratch: Path) -> list[np.ndarray]:
        """Natural, float64, of shape (tokens, vocabulary) each: row i is about the token that follows token i."""
        return self._ask(folder, scratch, sequences=sequences)

    def _ask(
        self,
        folder: Path,
        scratch: Path,
        *,
        texts: Sequence[str] = (),
        sequences: Sequence[Sequence[int]] = (),
    ) -> list[np.ndarray]:
        out = scratch / "reference.npz"
        request = {"folder": str(folder), "texts": texts, "sequences": sequences, "out": str(out)}
        finished = self.run(_PROGRAM, stdin=json.dumps(request))
        if finished.code:
            raise AssertionError(finished.stderr)
        with np.load(out) as found:
            names = [*(f"text{n}" for n in range(len(texts))), *(f"sequence{n}" for n in range(len(sequences)))]
            return [found[name] for name in names]
