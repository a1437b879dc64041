"""Model licenses: which ones need a word from the user, and what they say of training on a model's outputs.

Every rule names where it was read (docs/models.md lists the same). This is no legal advice; it makes sure that nobody
meets a condition for the first time after the fact.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from gpurig.common.errors import InputError

Purpose = Literal["eval", "finetune"]
# What a license says of using the model's outputs to train another model.
Training = Literal["free", "conditions", "forbidden", "unknown"]
# Behind a license's name in `allowed`: the user may train on outputs although the license forbids it to others.
TRAINING_SUFFIX = ":training"


@dataclass(frozen=True)
class License:
    """One license.

    Attributes:
        name: the SPDX identifier, or the vendor's name as the hub tags it.
        aliases: other spellings in use, lower case.
        conditions: what a user must know before using the model; empty for a permissive license.
        training: what it says of training another model on outputs.
        training_rule: that rule in one line; empty where there is none.
        source: where both were read.
    """

    name: str
    aliases: tuple[str, ...] = ()
    conditions: str = ""
    training: Training = "free"
    training_rule: str = ""
    source: str = ""

    @property
    def permissive(self) -> bool:
        """Whether everybody may use the model for everything, at most naming its author."""
        return not self.conditions


def _permissive(name: str, *aliases: str) -> License:
    return License(name, aliases, source=f"https://spdx.org/licenses/{name}.html")


_BUILT_WITH_LLAMA = (
    'a model trained on outputs that is given to others needs a name beginning with "Llama" and "Built with Llama"'
)
_NAMED_QWEN = 'a model trained on outputs that is given to others must show "Built with Qwen" or "Improved using Qwen"'

LICENSES = (
    _permissive("Apache-2.0"),
    _permissive("MIT"),
    _permissive("BSD-2-Clause"),
    _permissive("BSD-3-Clause"),
    _permissive("ISC"),
    _permissive("CC0-1.0"),
    _permissive("CC-BY-4.0"),
    _permissive("Unlicense"),
    *(
        License(
            name,
            aliases,
            "Meta's license: not for more than 700 million monthly users, an acceptable use policy",
            "forbidden",
            "outputs may not be used to improve any other large language model",
            "https://www.llama.com/faq/",
        )
        for name, aliases in (("llama2", ("llama-2",)), ("llama3", ("llama-3",)))
    ),
    *(
        License(
            name,
            aliases,
            "Meta's license: not for more than 700 million monthly users, an acceptable use policy, its name is shown",
            "conditions",
            _BUILT_WITH_LLAMA,
            f"https://www.llama.com/{page}/license/",
        )
        for name, aliases, page in (
            ("llama3.1", ("llama-3.1",), "llama3_1"),
            ("llama3.2", ("llama-3.2",), "llama3_2"),
            ("llama3.3", ("llama-3.3",), "llama3_3"),
        )
    ),
    License(
        "gemma",
        ("gemma-terms", "gemma-terms-of-use"),
        "Google's terms: a prohibited use policy that is passed on with every copy",
        "conditions",
        "a model made by transfer of outputs is a Model Derivative: the Gemma terms cover it too",
        "https://ai.google.dev/gemma/terms",
    ),
    License(
        "qwen-research",
        ("qwen-research-license",),
        "Alibaba's research license: not for commercial use",
        "conditions",
        _NAMED_QWEN,
        "https://huggingface.co/Qwen/Qwen2.5-Coder-3B-Instruct/blob/main/LICENSE",
    ),
    License(
        "qwen",
        ("tongyi-qianwen", "qwen-license"),
        "Alibaba's license: not for more than 100 million monthly users without asking",
        "conditions",
        _NAMED_QWEN,
        "https://huggingface.co/Qwen/Qwen2.5-72B-Instruct/blob/main/LICENSE",
    ),
    License(
        "deepseek",
        ("deepseek-license", "deepseek-la-1.0"),
        "DeepSeek's license: uses that it lists are forbidden, and derivatives pass that on",
        "conditions",
        "training on outputs is allowed; a derived model carries the same forbidden uses",
        "https://deepseeklicense.github.io",
    ),
    License(
        "mnpl",
        ("mnpl-0.1", "mistral-ai-non-production-license"),
        "Mistral's non-production license: research and tests, no production, nothing commercial",
        "unknown",
        "",
        "https://mistral.ai/licenses/MNPL-0.1.md",
    ),
    License(
        "CC-BY-NC-4.0",
        (),
        "not for commercial use",
        "unknown",
        "",
        "https://creativecommons.org/licenses/by-nc/4.0/",
    ),
)
_BY_NAME = {spelling.lower(): entry for entry in LICENSES for spelling in (entry.name, *entry.aliases)}


def find_license(name: str) -> License | None:
    """The license of that name in any spelling known here; None for one that is not."""
    return _BY_NAME.get(name.strip().lower())


def check_license(
    name: str, *, model: str, purpose: Purpose = "eval", allowed: Collection[str] = ()
) -> tuple[str, ...]:
    """Whether the user may go on with a model under license `name`.

    A permissive license is fine. Any other, and one that is not known here, must be in `allowed`. A license that
    forbids training on outputs stops a fine-tune also then, unless `NAME:training` is in `allowed`.

    Args:
        name: as a catalogue, a model card or a GGUF header gives it; empty where nobody knows it.
        model: for the messages.
        purpose: what the model, or what it writes, is used for.
        allowed: the names that the user accepts, in any spelling.

    Returns:
        What the user should be told, one line each: the conditions that were accepted, the rule on training.

    Raises:
        InputError: the user has not accepted it.
    """
    accepted = {find_license(word.removesuffix(TRAINING_SUFFIX)) or word.strip().lower() for word in allowed}
    trained = {
        find_license(word.removesuffix(TRAINING_SUFFIX)) for word in allowed if word.lower().endswith(TRAINING_SUFFIX)
    }
    known = find_license(name)
    if known is None:
        said = name.strip() or "unknown"
        if said.lower() not in accepted:
            what = f"{said}, which gpurig does not know" if name.strip() else "not known"
            raise InputError(
                f"the license of {model} is {what}",
                hint=f"read it where the model is published; --allow-license {said} accepts it",
            )
        return (f"license {said}, accepted",)
    if not known.permissive and known not in accepted:
        raise InputError(
            f"{model} is under the license {known.name}: {known.conditions}",
            hint=f"read {known.source}; --allow-license {known.name} accepts it",
        )
    notes = () if known.permissive else (f"license {known.name}, accepted: {known.conditions}",)
    if purpose == "eval" or known.training == "free":
        return notes
    rule = known.training_rule or "what it says of training on outputs was not looked up"
    if known.training == "forbidden" and known not in trained:
        raise InputError(
            f"the license {known.name} of {model} forbids training on what it writes: {rule}",
            hint=f"choose another model; --allow-license {known.name}{TRAINING_SUFFIX} for who has another agreement",
        )
    return (*notes, f"license {known.name} on training with outputs: {rule} ({known.source})")
