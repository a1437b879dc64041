"""dcgm-exporter's names: what a board made for it asks for is there, in its units and with its labels."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.devices.figures import Figures
from gpurig.runner.exporter.devices.xid import XidSeen
from gpurig.runner.exporter.exposition.collector import GpurigCollector
from gpurig.runner.exporter.exposition.dcgm_metrics import DCGM_METRICS
from gpurig.runner.exporter.exposition.text_format import Encoder
from gpurig.runner.exporter.exposition.view import GpuView, View
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dcgm"
BOARD = json.loads((FIXTURES / "board-12239.json").read_text(encoding="utf-8"))
COUNTERS = json.loads((FIXTURES / "default-counters.json").read_text(encoding="utf-8"))
MIB = 1024**2
CARD = GpuView(
    index=1,
    gpu=Gpu(
        backend="cuda",
        uuid="GPU-1",
        name="NVIDIA A10",
        pci_address="0000:3b:00.0",
        memory_bytes=24000 * MIB,
        driver="570.10",
    ),
    figures=Figures(
        memory_used_bytes=1000 * MIB + 5,
        memory_reserved_bytes=500 * MIB,
        utilization_ratio=0.29,
        temperature_celsius=61.0,
        power_watts=150.5,
        clocks_hertz={"graphics": 1.4e9, "sm": 1.695e9, "memory": 6.251e9},
    ),
    energy_joules=12.345,
    xids={13: XidSeen(5, last_seen=100.0), 79: XidSeen(1, last_seen=200.0)},
)


def _values(one: GpuView) -> dict[str, float]:
    view = View(gpus=(one,))
    return {metric.name: value for metric in DCGM_METRICS for _, value in metric.rows(view) if value is not None}


def test_every_panel_and_variable_of_the_board_finds_its_metric_but_the_one_for_dcgms_profiling():
    ours = {metric.name: metric for metric in DCGM_METRICS}
    missing = []
    for panel, query in {**BOARD["queries"], **BOARD["variables"]}.items():
        [name] = set(re.findall(r"DCGM_\w+", query))
        if name not in ours:
            missing.append(panel)
            continue
        asked = set(re.findall(r"(\w+)=~", query)) - {"instance"}
        assert asked <= set(ours[name].labels)
        assert name in _values(CARD)
    assert missing == ["Tensor Core Utilization"]


def test_the_default_counters_are_there_with_their_types_and_units():
    ours = {metric.name: metric for metric in DCGM_METRICS}
    kinds = {"gauge": "gauge", "counter": "unknown"}
    absent = set()
    for name, (kind, unit) in COUNTERS["fields"].items():
        if name in ours:
            assert (ours[name].kind, ours[name].unit) == (kinds[kind], unit), name
        else:
            absent.add(name)
    assert absent == {
        "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
        "DCGM_FI_DEV_VGPU_LICENSE_STATUS",
        "DCGM_FI_DEV_ROW_REMAP_FAILURE",
    }


def test_values_are_in_dcgms_units():
    values = _values(CARD)
    assert values["DCGM_FI_DEV_FB_USED"] == 1000
    assert values["DCGM_FI_DEV_FB_FREE"] == 22499
    assert values["DCGM_FI_DEV_FB_RESERVED"] == 500
    assert values["DCGM_FI_DEV_FB_TOTAL"] == 24000
    assert values["DCGM_FI_DEV_GPU_UTIL"] == 29
    assert values["DCGM_FI_DEV_SM_CLOCK"] == 1695
    assert values["DCGM_FI_DEV_MEM_CLOCK"] == 6251
    assert values["DCGM_FI_DEV_POWER_USAGE"] == 150.5
    assert values["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"] == 12345
    assert values["DCGM_FI_DEV_XID_ERRORS"] == 79
    assert "DCGM_FI_DEV_MEMORY_TEMP" not in values


def test_labels_are_dcgm_exporters():
    assert all(list(metric.labels) == COUNTERS["labels"] for metric in DCGM_METRICS)
    [(values, _)] = DCGM_METRICS[0].rows(View(gpus=(CARD,), hostname="box"))
    labels = dict(zip(DCGM_METRICS[0].labels, values, strict=True))
    assert labels == {
        "Hostname": "box",
        "gpu": "1",
        "UUID": "GPU-1",
        "pci_bus_id": "00000000:3B:00.0",
        "device": "nvidia1",
        "modelName": "NVIDIA A10",
        "DCGM_FI_DRIVER_VERSION": "570.10",
    }


def test_no_xid_is_0_and_a_card_that_is_down_or_has_none_says_nothing():
    def xid(**more):
        return _values(GpuView(index=0, gpu=CARD.gpu, figures=Figures(), **more)).get("DCGM_FI_DEV_XID_ERRORS")

    assert xid() == 0
    assert xid(down="lost") is None


@pytest.mark.parametrize("dcgm_names", [False, True])
def test_they_are_there_only_where_asked_for_and_openmetrics_keeps_their_names(dcgm_names):
    registry = CollectorRegistry(auto_describe=False)
    registry.register(GpurigCollector(lambda: View(gpus=(CARD,)), dcgm_names=dcgm_names))
    text = Encoder(registry).encode(openmetrics=True).decode()
    names = {one.name for family in text_string_to_metric_families(text) for one in family.samples}
    found = {name for name in names if name.startswith("DCGM")}
    assert found == (set(_values(CARD)) if dcgm_names else set())
