"""The options of quantizing, on the box and in a job alike: declared once, and handed on as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from gpurig.common.ggml_types import TYPE_NUMBERS

# The word for a text that comes with gpurig.
BUILT_IN = "builtin"
_FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True)
class QuantizeOptions:
    """What the options say; see the help of each.

    Attributes:
        calibration: a text's path, or BUILT_IN.
    """

    to: str
    imatrix: Path | None = None
    calibration: str | None = None
    text: Path | None = None
    context: int = 512
    chunks: int | None = None
    max_kld: float | None = None
    max_ppl_ratio: float | None = None
    no_divergence: bool = False
    pure: bool = False
    leave_output_tensor: bool = False
    output_tensor_type: str | None = None
    token_embedding_type: str | None = None
    allow_requantize: bool = False
    force: bool = False
    dry_run: bool = False
    json: bool = False
    threads: int | None = None

    def arguments(self) -> list[str]:
        """The same as words of a command line."""
        words = []
        for field in fields(self):
            value, name = getattr(self, field.name), "--" + field.name.replace("_", "-")
            if value is True:
                words.append(name)
            elif value not in (None, False):
                words += [name, str(value)]
        return words


# Those of comparing, which the job's `divergence` has too.
text_option = click.option("--text", type=_FILE, help="Compare on this text; the one that comes with gpurig if absent.")
max_kld_option = click.option(
    "--max-kld", type=click.FloatRange(min=0), metavar="X", help="Fail (exit 3) above this mean KLD, in nats."
)
max_ppl_ratio_option = click.option(
    "--max-ppl-ratio", type=click.FloatRange(min=0), metavar="X", help="Fail (exit 3) above this perplexity ratio."
)
# Those of reading a text, which its `imatrix` has too.
context_option = click.option(
    "--context", type=click.IntRange(32, 65536), default=512, show_default=True, help="Tokens read at a time."
)
chunks_option = click.option(
    "--chunks", type=click.IntRange(min=1), metavar="N", help="Read at most N times --context tokens."
)
threads_option = click.option(
    "--threads", type=click.IntRange(1, 1024), metavar="N", help="CPU threads; if absent all, and one for a tiny model."
)
_OPTIONS = (
    click.option("--to", required=True, metavar="TYPE[,TYPE]", help="The quantizations, for example Q4_K_M,Q5_K_M."),
    click.option("--imatrix", type=_FILE, help="Take the importance matrix of this file."),
    click.option(
        "--calibration",
        metavar=f"FILE|{BUILT_IN}",
        help="Compute the importance matrix from this text, or from the one that comes with gpurig.",
    ),
    text_option,
    context_option,
    chunks_option,
    max_kld_option,
    max_ppl_ratio_option,
    click.option("--no-divergence", is_flag=True, help="Do not compare the result with the original."),
    click.option("--pure", is_flag=True, help="One type for all tensors instead of a mixture."),
    click.option("--leave-output-tensor", is_flag=True, help="Do not quantize output.weight."),
    click.option(
        "--output-tensor-type",
        type=click.Choice(list(TYPE_NUMBERS), case_sensitive=False),
        metavar="TYPE",
        help="The type of output.weight, for example q8_0.",
    ),
    click.option(
        "--token-embedding-type",
        type=click.Choice(list(TYPE_NUMBERS), case_sensitive=False),
        metavar="TYPE",
        help="The type of the token embeddings.",
    ),
    click.option("--allow-requantize", is_flag=True, help="Take a model that is quantized already."),
    click.option("--force", is_flag=True, help="Replace files that were made in another way."),
    click.option("--dry-run", is_flag=True, help="Show the sizes that would come out, and do nothing."),
    click.option("--json", is_flag=True, help="Print one JSON object (docs/formats.md)."),
    threads_option,
)


def quantize_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All of them; the command gets them as keywords, for `QuantizeOptions(**keywords)`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
