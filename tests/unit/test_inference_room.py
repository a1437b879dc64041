"""As many sequences as there is memory for."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpurig.common.models.resolving import Search
from gpurig.evaljobs.inference import room
from gpurig.evaljobs.memory import Buffer
from gpurig.evaljobs.models import ModelFile, open_model
from standins.tiny_gguf import write_tiny_gguf

MIB = 2**20


@pytest.fixture
def model(tmp_path: Path) -> ModelFile:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    return open_model(str(path), search=Search.of_folders(), suite_folder=tmp_path)


@pytest.mark.parametrize(("free", "sequences"), [(10 * MIB, 1), (200 * MIB, 14), (10_000 * MIB, 32)])
def test_what_is_free_is_divided_among_sequences(model, monkeypatch, free, sequences):
    monkeypatch.setattr(room, "machine_free_bytes", lambda: free)
    monkeypatch.setattr(room, "_at_most", lambda *_: 2**62)
    monkeypatch.setattr(
        room, "measure", lambda *_: [(Buffer("CPU", True, 500 * MIB, 10 * MIB, 20 * MIB), Buffer("G", False, 1, 2, 3))]
    )
    assert room.sequences_for(None, model, wanted=32, cells=256, batch=512, gpu=False) == sequences


@pytest.mark.parametrize(
    ("cells", "gpu", "sequences"),
    [(1, False, 32), (256, False, 32), (257, False, 16), (512, False, 16), (100_000, False, 16), (100_000, True, 32)],
)
def test_short_sequences_are_worth_having_more_of(cells, gpu, sequences):
    assert room.worthwhile(cells, gpu=gpu) == sequences


def test_nobody_is_asked_where_there_is_plenty(model, monkeypatch):
    monkeypatch.setattr(room, "machine_free_bytes", lambda: 10_000 * MIB)
    monkeypatch.setattr(room, "measure", lambda *_: pytest.fail("it was asked"))
    assert room.sequences_for(None, model, wanted=32, cells=256, batch=512, gpu=False) == 32


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    2048 kB\n"}, 2 * MIB),
        (
            {
                "/proc/meminfo": "MemAvailable: 2048 kB\n",
                "/sys/fs/cgroup/memory.max": f"{MIB}\n",
                "/sys/fs/cgroup/memory.current": f"{MIB // 2}\n",
                "/sys/fs/cgroup/memory.stat": f"anon 7\ninactive_file {MIB // 4}\n",
            },
            3 * MIB // 4,
        ),
        (
            {
                "/proc/meminfo": "MemAvailable: 2048 kB\n",
                "/sys/fs/cgroup/memory.max": "max\n",
                "/sys/fs/cgroup/memory.current": "5\n",
            },
            2 * MIB,
        ),
    ],
)
def test_free_is_what_the_machine_and_the_control_group_leave(monkeypatch, files, free):
    monkeypatch.setattr(room, "_text", lambda path: files.get(path, ""))
    assert room.machine_free_bytes() == free
