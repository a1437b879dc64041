"""Cards for the fake library that tell everything it can tell."""

from __future__ import annotations

from typing import Any

MIB = 1024**2
HOST = {"driver": "580.95.05", "nvml": "13.580.95.05", "cuda": 13000}


def full_card(number: int = 0, **other: Any) -> dict[str, Any]:
    """A card with every field that a data centre's or a player's card has; `other` changes some.

    Args:
        number: tells cards apart: UUID and PCI address follow it.
    """
    return {
        "uuid": f"GPU-{number:08d}-0000-4000-8000-000000000000",
        "name": "NVIDIA GeForce RTX 4090",
        "pci": f"00000000:{number + 1:02X}:00.0",
        "compute": "8.9",
        "memory_total": 24564 * MIB,
        "memory_used": 5000 * MIB,
        "memory_reserved": 400 * MIB,
        "utilization_gpu": 75,
        "utilization_memory": 30,
        "utilization_encoder": 5,
        "utilization_decoder": 6,
        "sampling_period": 167000,
        "temperature": 61,
        "temperature_memory": 70,
        "temperature_shutdown": 95,
        "temperature_slowdown": 92,
        "temperature_max": 90,
        "temperature_memory_max": 105,
        "power_mw": 201500,
        "power_limit_mw": 450000,
        "energy_mj": "1000000 +power",
        "clock_graphics": 2520,
        "clock_sm": 2520,
        "clock_memory": 10501,
        "clock_video": 1950,
        "max_clock_graphics": 3105,
        "max_clock_sm": 3105,
        "max_clock_memory": 10501,
        "max_clock_video": 2415,
        "fans": 2,
        "fan": 34,
        "throttle_reasons": "0x4",
        "throttle_supported": "0x1FF",
        "ecc_mode": 1,
        "ecc_corrected_aggregate": 5,
        "ecc_uncorrected_aggregate": 1,
        "retired_single_bit": 3,
        "retired_double_bit": 0,
        "retired_pending": 0,
        "remapped_corrected": 4,
        "remapped_uncorrected": 2,
        "remapped_pending": 1,
        "pcie_gen": 1,
        "pcie_gen_max": 4,
        "pcie_width": 8,
        "pcie_width_max": 16,
        "pcie_replays": 3,
        "pcie_tx_kb": 120_000,
        "pcie_rx_kb": 340_000,
        "pstate": 2,
        "mig_mode": 0,
        "events": 8,
        "process": [f"10 {1024 * MIB} compute", f"11 {512 * MIB} compute", f"11 {512 * MIB} graphics"],
        "use": ["10 60", "11 15"],
        **other,
    }
