"""What clients call the model: by its own names, and with adapters as "NAME:ADAPTER" or "NAME:ADAPTER+ADAPTER"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gpurig.common.errors import InputError
from gpurig.evaljobs.records import AdapterRef

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Chosen:
    """What a name means.

    Attributes:
        name: as it was asked for.
        root: the model's name in it.
        adapters: what the model answers with.
    """

    name: str
    root: str
    adapters: tuple[AdapterRef, ...] = ()


@dataclass(frozen=True)
class ModelNames:
    """The names under which a model is served.

    Attributes:
        names: of the model alone.
        adapters: by their names; each may be chosen by request.
    """

    names: tuple[str, ...]
    adapters: Mapping[str, AdapterRef] = field(default_factory=dict)

    def find(self, asked: str) -> Chosen | None:
        """What a name means; None where nothing has that name."""
        if asked in self.names:
            return Chosen(asked, asked)
        for name in self.names:
            words = asked.removeprefix(f"{name}:").split("+")
            if asked.startswith(f"{name}:") and all(word in self.adapters for word in words):
                return Chosen(asked, name, tuple(self.adapters[word] for word in dict.fromkeys(words)))
        return None

    def listed(self) -> Iterator[Chosen]:
        """The names that are told of: the model alone, and with one adapter each."""
        for name in self.names:
            yield Chosen(name, name)
            for word, adapter in self.adapters.items():
                yield Chosen(f"{name}:{word}", name, (adapter,))


@dataclass(frozen=True)
class AdapterOption:
    """`--adapter NAME=PATH[:SCALE]`, read."""

    name: str
    path: str
    scale: float


def adapter_option(text: str) -> AdapterOption:
    """Read NAME=PATH[:SCALE].

    Raises:
        InputError: it is something else.
    """
    name, _, path = text.partition("=")
    scale = 1.0
    before, colon, last = path.rpartition(":")
    if colon and re.fullmatch(r"[-+]?[0-9]*\.?[0-9]+", last):
        path, scale = before, float(last)
    if not _NAME.fullmatch(name) or not path or abs(scale) > 100:
        raise InputError(
            f'--adapter "{text}" is not NAME=PATH or NAME=PATH:SCALE',
            hint="for example --adapter style=adapters/style.gguf:0.5; a name has letters, digits, . _ and -, "
            "and the scale is 100 at most",
        )
    return AdapterOption(name, path, scale)
