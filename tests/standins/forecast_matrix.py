"""Every forecast held against what llama.cpp would allocate: models of real sizes, loaded in many ways.

llama.cpp plans for a GPU that is not there (gpurig.evaljobs.phantom_gpu), or for the CPU alone, and allocates nothing.
In tests/, `python -m standins.forecast_matrix` prints the table of docs/models.md, and with two numbers, COUNT
and SEED, that of COUNT random loads of each model.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.gguf import read_gguf
from gpurig.common.terminal import table
from gpurig.evaljobs.memory import Buffer, MemoryRequest, measure
from gpurig.images.memory.forecast import Forecast, forecast, model_of
from gpurig.images.memory.settings import LoadSettings

from standins.model_shapes import published_shapes, write_shape

MIB = 2**20
# Large enough that nothing is left out; only how layers are shared between cards depends on it.
CARD_BYTES = 96 * 2**30
# What the issue allows: so many percent, or so many MiB.
PERCENT, MOST_MIB = 3.0, 150.0

_GPU = (
    LoadSettings(),
    LoadSettings(context=2048),
    LoadSettings(context=32768),
    LoadSettings(context=131072),
    LoadSettings(context=4096, kv="q8_0"),
    LoadSettings(context=32768, kv="q8_0"),
    LoadSettings(context=131072, kv="q4_0"),
    LoadSettings(context=4096, flash_attention="off"),
    LoadSettings(context=32768, flash_attention="off"),
    LoadSettings(context=8192, parallel=4),
    LoadSettings(context=16384, parallel=16),
    LoadSettings(context=16384, parallel=16, flash_attention="off"),
    LoadSettings(context=16384, parallel=4, kv="q8_0"),
    LoadSettings(context=8192, parallel=4, unified=True),
    LoadSettings(context=16384, parallel=16, kv="q8_0", unified=True),
    LoadSettings(context=16384, parallel=8, flash_attention="off", unified=True),
    LoadSettings(context=32768, swa_full=False),
    LoadSettings(context=32768, swa_full=False, flash_attention="off"),
    LoadSettings(context=16384, parallel=16, swa_full=False),
    LoadSettings(context=32768, batch=128),
    LoadSettings(context=4096, batch=64),
    LoadSettings(context=8192, batch=2048),
    LoadSettings(context=8192, batch=2048, flash_attention="off"),
    LoadSettings(context=4096, gpu_layers=10),
    LoadSettings(context=32768, gpu_layers=10),
    LoadSettings(context=4096, gpu_layers=10, flash_attention="off"),
    LoadSettings(context=4096, gpus=2),
)
_CPU = (
    LoadSettings(gpus=0),
    LoadSettings(context=32768, gpus=0),
    LoadSettings(context=32768, gpus=0, flash_attention="off"),
)
_OTHER_TYPES = {"qwen3-4b": ("Q8_0", "F16", "Q6_K"), "qwen2.5-0.5b": ("Q8_0",), "llama-3.1-8b": ("Q5_K_M",)}


@dataclass(frozen=True)
class Row:
    """One forecast and the truth.

    Attributes:
        device: "GPU", of several the fullest, or "CPU".
    """

    model: str
    quantization: str
    settings: LoadSettings
    device: str
    forecast_bytes: int
    exact_bytes: int

    @property
    def error_mib(self) -> float:
        return (self.forecast_bytes - self.exact_bytes) / MIB

    @property
    def error_percent(self) -> float:
        return 100.0 * (self.forecast_bytes - self.exact_bytes) / self.exact_bytes

    @property
    def right(self) -> bool:
        """Within what the issue allows, and not under."""
        return self.error_mib >= 0 and (self.error_percent <= PERCENT or self.error_mib <= MOST_MIB)

    def __str__(self) -> str:
        settings = self.settings
        changed = [
            f"{name}={value}"
            for name, value in vars(settings).items()
            if value != getattr(LoadSettings(), name) or name == "context"
        ]
        return (
            f"{self.model} {self.quantization} {' '.join(changed)}: {self.device} {self.error_mib:+.1f} MiB, "
            f"{self.error_percent:+.2f} % of {self.exact_bytes / MIB:.0f}"
        )


def measure_model(name: str, folder: Path) -> list[Row]:
    """Every forecast of that model, its header written into `folder`."""
    usual = "MXFP4" if name.startswith("gpt-oss") else "Q4_K_M"
    rows = list(_rows(name, usual, (*_GPU, *_CPU), folder))
    for other in _OTHER_TYPES.get(name, ()):
        rows += _rows(name, other, (_GPU[0], _GPU[2], _GPU[4], _GPU[7]), folder)
    return rows


def measure_all(names: Iterable[str] | None = None) -> list[Row]:
    """Every forecast of these models, or of all."""
    with tempfile.TemporaryDirectory() as folder:
        return [row for name in (names or published_shapes()) for row in measure_model(name, Path(folder))]


def measure_random(count: int, seed: int) -> list[Row]:
    """Forecasts of `count` loads of each model that nobody chose."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        return [
            row
            for name in published_shapes()
            for row in _rows(
                name,
                "MXFP4" if name.startswith("gpt-oss") else chance.choice(["Q4_K_M", "Q8_0", "F16"]),
                [_random_load(chance) for _ in range(count)],
                Path(folder),
            )
        ]


def _random_load(chance: random.Random) -> LoadSettings:
    kv, parallel = chance.choice(["f16", "f16", "q8_0", "q4_0"]), chance.choice([1, 1, 2, 4, 8, 16])
    context = chance.choice([1024, 2048, 3000, 4096, 6144, 8192, 10000, 16384, 24576, 32768, 65536, 131072])
    return LoadSettings(
        context=context * chance.choice([1, 1, 1, parallel]),
        parallel=parallel,
        kv=kv,
        batch=chance.choice([128, 256, 512, 512, 512, 1024, 2048]),
        flash_attention="auto" if kv != "f16" else chance.choice(["auto", "auto", "off", "on"]),
        unified=chance.random() < 0.3,
        swa_full=chance.random() < 0.6,
        gpu_layers=chance.choice([-1, -1, -1, -1, 12]),
        gpus=chance.choice([1, 1, 1, 2, 3]),
    )


def _rows(name: str, quantization: str, cases: Sequence[LoadSettings], folder: Path) -> Iterator[Row]:
    path = write_shape(folder / f"{name}-{quantization}.gguf", published_shapes()[name], quantization)
    model = model_of(read_gguf(path))
    for settings, buffers in zip(cases, measure(path, [_request(case) for case in cases]), strict=True):
        yield _row(name, quantization, settings, forecast(model, settings), buffers)
    path.unlink()


def _request(settings: LoadSettings) -> MemoryRequest:
    # How weights are laid out anew for a processor depends on which one the test runs on.
    return MemoryRequest(
        context=settings.context,
        parallel=settings.parallel,
        kv=settings.kv,
        batch=settings.batch,
        flash_attention=settings.flash_attention,
        unified=settings.unified,
        swa_full=settings.swa_full,
        gpu_layers=settings.gpu_layers,
        repack=False,
        cards=(CARD_BYTES,) * settings.gpus,
    )


def _row(name: str, quantization: str, settings: LoadSettings, found: Forecast, buffers: tuple[Buffer, ...]) -> Row:
    if settings.gpus:
        exact = max(_total(buffer) for buffer in buffers if not buffer.host)
        return Row(name, quantization, settings, "GPU", found.gpu_bytes, exact)
    exact = sum(_total(buffer) for buffer in buffers)
    return Row(name, quantization, settings, "CPU", found.host.total - found.host.output, exact)


def _total(buffer: Buffer) -> int:
    return buffer.model_bytes + buffer.context_bytes + buffer.compute_bytes


def forecast_figures(rows: Sequence[Row]) -> dict[str, float]:
    """What `make bench NAME=images` writes of them.

    `forecast_max_error_pct` is the largest error of all, in percent of what llama.cpp would allocate; of a small model
    a few MiB are many percent. `forecast_worst_under_mb` is how far the worst one was below, 0 where none was.
    """
    return {
        "forecast_models": len({row.model for row in rows}),
        "forecast_rows": len(rows),
        "forecast_max_error_pct": round(max(abs(row.error_percent) for row in rows), 2),
        "forecast_median_error_pct": round(statistics.median(abs(row.error_percent) for row in rows), 2),
        "forecast_max_error_mb": round(max(abs(row.error_mib) for row in rows) * MIB / 1e6, 1),
        "forecast_worst_under_mb": round(max(0.0, *(-row.error_mib for row in rows)) * MIB / 1e6, 1),
        "forecast_outside": sum(not row.right for row in rows),
    }


def error_table(rows: Sequence[Row]) -> str:
    """The errors by model."""
    lines = []
    for name in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == name]
        sizes = [row.exact_bytes / MIB for row in own]
        lines.append(
            (
                name,
                str(len(own)),
                f"{min(sizes):.0f}-{max(sizes):.0f}",
                f"{min(row.error_mib for row in own):+.1f}",
                f"{statistics.median(row.error_mib for row in own):+.1f}",
                f"{max(row.error_mib for row in own):+.1f}",
                f"{max(row.error_percent for row in own):+.2f}",
                str(sum(not row.right for row in own)),
            )
        )
    header = ("model", "loads", "MiB", "least", "median", "most", "most %", "outside")
    return table(header, lines)


if __name__ == "__main__":
    # With two numbers so many random loads of each model, from that seed.
    measured = measure_random(int(sys.argv[1]), int(sys.argv[2])) if sys.argv[2:] else measure_all()
    figures = [f"{key} {value}" for key, value in forecast_figures(measured).items()]
    outside = [str(row) for row in measured if not row.right]
    print("\n".join([error_table(measured), "", *figures, *outside]))  # noqa: T201
