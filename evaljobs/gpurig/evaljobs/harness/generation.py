"""From lm-evaluation-harness' generation arguments to sampling of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from gpurig.common.errors import InputError
from gpurig.evaljobs.engine import Shaping
from gpurig.evaljobs.records import Sampling

# Theirs, and ours; with these values nothing stands between the model's probabilities and the choice.
_SAMPLING = {"top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "repetition_penalty": "repeat_penalty"}
_NEUTRAL = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
_PENALTIES = ("frequency_penalty", "presence_penalty")
# What tasks write that changes nothing here, by value.
_WITHOUT_EFFECT: Mapping[str, Any] = {"num_beams": 1, "num_return_sequences": 1, "use_cache": True}


@dataclass(frozen=True)
class Generation:
    """How one text is written.

    Attributes:
        stop: texts that end it.
    """

    sampling: Sampling
    shaping: Shaping
    stop: tuple[str, ...]


def generation(arguments: Mapping[str, Any], *, end: str, seed: int) -> Generation:
    """What arguments ask for that `normalize_gen_kwargs` has gone over.

    Args:
        arguments: with do_sample, until and max_gen_toks.
        end: the text of the token that ends texts; "" for none.
        seed: where the arguments have none.

    Raises:
        InputError: an argument that is not known here, or that has an impossible value.
    """
    left = dict(arguments)
    stop = _stops(left.pop("until"), end)
    sampled = bool(left.pop("do_sample"))
    temperature = left.pop("temperature", None)
    values: dict[str, Any] = {
        **_NEUTRAL,
        "max_tokens": left.pop("max_gen_toks"),
        "temperature": (1.0 if temperature is None else temperature) if sampled else 0.0,
        "seed": left.pop("seed", seed),
    }
    for theirs, ours in _SAMPLING.items():
        if (value := left.pop(theirs, None)) is not None:
            # vLLM's word for "all of them".
            values[ours] = 0 if theirs == "top_k" and value == -1 else value
    shaping: dict[str, Any] = {name: float(left.pop(name, None) or 0.0) for name in _PENALTIES}
    unknown = [name for name, value in left.items() if value is not None and _WITHOUT_EFFECT.get(name) != value]
    if unknown:
        raise InputError(
            f"the generation argument {unknown[0]}={json.dumps(left[unknown[0]], default=str)} is not known here",
            hint="known are until, max_gen_toks, do_sample, temperature, seed, "
            + ", ".join((*_SAMPLING, *_PENALTIES))
            + "; --gen_kwargs and the task's generation_kwargs set them",
        )
    try:
        return Generation(Sampling.model_validate(values), Shaping(**shaping), stop)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"the generation argument {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint="correct --gen_kwargs, or the task's generation_kwargs",
        ) from None


def _stops(until: Sequence[Any], end: str) -> tuple[str, ...]:
    if wrong := [text for text in until if not isinstance(text, str)]:
        raise InputError(f"until holds {wrong[0]!r}, which is no text", hint="correct the task's generation_kwargs")
    # An empty text would end every answer before it begins; the harness' own models pass over it too.
    return tuple(dict.fromkeys(text for text in (*until, end) if text))
