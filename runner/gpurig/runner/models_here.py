"""What models this box has and could have: folders, catalogue, and what its memory holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.errors import ApplianceError
from gpurig.common.models.catalogue import Catalogue, Entry
from gpurig.common.models.installed import InstalledModel, installed_models
from gpurig.common.models.resolving import Place
from gpurig.images.memory.cards import DRIVER_BYTES
from gpurig.images.memory.forecast import forecast, model_of
from gpurig.images.memory.settings import LoadSettings
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.vram import GIB, vram_class_gb

# What is loaded for the answer: the context that a job takes where a suite says nothing.
CONTEXT = 4096
# Beside a file whose header cannot be forecast: KV cache, compute buffers, and the driver's or the system's own.
_MARGIN_BYTES = GIB


@dataclass(frozen=True)
class Memory:
    """The memory that a model may use here.

    Attributes:
        label: for a person.
        usable_bytes: None where nobody knows.
        class_gb: of the largest card; None where there is none.
        gpu: whether it is a card's.
    """

    label: str
    usable_bytes: int | None
    class_gb: int | None = None
    gpu: bool = False


@dataclass(frozen=True)
class Fit:
    """Whether a model fits here.

    Attributes:
        fits: None where nobody knows.
        how: "forecast" from its header, "size" of its file and 1 GiB, or "class" that the catalogue asks for.
        needed_bytes: on the card, or of the machine's memory; None where only the class is known.
    """

    fits: bool | None
    how: str
    needed_bytes: int | None = None


@dataclass(frozen=True)
class Here:
    """A model in one of the box's folders.

    Attributes:
        license: as its record, its header, or the catalogue's entry for the same bytes says; "" where none does.
        sha256: likewise, without reading the file; None where nobody knows it.
    """

    place: Place
    model: InstalledModel
    fit: Fit
    license: str
    sha256: str | None


@dataclass(frozen=True)
class Offer:
    """A model that a pull brings."""

    entry: Entry
    installed: bool
    fit: Fit


@dataclass(frozen=True)
class ModelsHere:
    """All of it.

    Attributes:
        problems: why a folder could not be looked into, by folder.
    """

    memory: Memory
    places: tuple[Place, ...]
    here: tuple[Here, ...]
    offers: tuple[Offer, ...]
    problems: Mapping[Path, str]


def look(places: tuple[Place, ...], catalogue: Catalogue, facts: HostFacts, *, verify: bool = False) -> ModelsHere:
    """What the folders hold, what the catalogue offers, and what of both fits; a folder that refuses is told."""
    memory = memory_of(facts)
    here: list[Here] = []
    problems: dict[Path, str] = {}
    for place in places:
        try:
            found = installed_models(place.folder, verify=verify)
        except ApplianceError as error:
            problems[place.folder] = error.message
            continue
        here += [_here(place, model, catalogue.find(model.name), memory) for model in found]
    names = {found.model.name for found in here}
    offers = tuple(Offer(entry, entry.name in names, offer_fit(entry, memory)) for entry in catalogue.entries.values())
    return ModelsHere(memory, places, tuple(here), offers, problems)


def _here(place: Place, model: InstalledModel, entry: Entry | None, memory: Memory) -> Here:
    # A bundled file is the catalogue's by construction (a test holds it); of any other only its record can tell.
    same = entry is not None and (place.kind == "bundled" or model.sha256 == entry.files[0].sha256 is not None)
    known = entry if same else None
    return Here(
        place,
        model,
        fit_of(model, memory),
        license=model.license or (known.license if known else ""),
        sha256=model.sha256 or (known.files[0].sha256 if known else None),
    )


def memory_of(facts: HostFacts) -> Memory:
    """The largest card's memory, or the machine's where there is no card."""
    sizes = [(gpu.memory_bytes, gpu.name or gpu.uuid) for gpu in facts.gpus if gpu.memory_bytes is not None]
    if sizes:
        size, name = max(sizes)
        return Memory(name, max(0, size - DRIVER_BYTES), vram_class_gb(size), gpu=True)
    if facts.gpus:
        return Memory("a GPU whose memory is not known", None, gpu=True)
    size = facts.system_memory_bytes or 0
    return Memory("no GPU: this machine's memory", max(0, size - _MARGIN_BYTES) if size else None)


def fit_of(model: InstalledModel, memory: Memory) -> Fit:
    """Whether an installed model fits, by the forecast from its header; by its size where there is no forecast."""
    if model.gguf is None:
        return Fit(None, "size")
    try:
        settings = LoadSettings(context=min(CONTEXT, model.context or CONTEXT), gpus=1 if memory.gpu else 0)
        found = forecast(model_of(model.gguf), settings)
    except ApplianceError:
        return _by_size(model.size_bytes, memory)
    needed = found.gpu_bytes if memory.gpu else found.total_bytes
    return Fit(_holds(memory, needed), "forecast", needed)


def offer_fit(entry: Entry, memory: Memory) -> Fit:
    """Whether a catalogue's model would fit, by the class it asks for; without a card by its size."""
    if memory.gpu:
        if memory.class_gb is None:
            return Fit(None, "class")
        return Fit(entry.vram_gb <= memory.class_gb, "class")
    return Fit(None, "size") if entry.size_bytes is None else _by_size(entry.size_bytes, memory)


def _by_size(size_bytes: int, memory: Memory) -> Fit:
    needed = size_bytes + _MARGIN_BYTES
    return Fit(_holds(memory, needed), "size", needed)


def _holds(memory: Memory, needed: int) -> bool | None:
    return None if memory.usable_bytes is None else needed <= memory.usable_bytes


def list_places(folder: Path | None, box: Path, cache: Path, bundled: Path | None) -> tuple[Place, ...]:
    """The folders to list: the one that the user names, or the box's, the cache, and gpurig's own."""
    if folder is not None:
        return (Place("given", folder),)
    own = () if bundled is None else (Place("bundled", bundled),)
    return (Place("box", box), Place("cache", cache), *own)
