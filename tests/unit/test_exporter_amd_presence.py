"""AMD cards that sleep, that go and come back, and whose driver hangs."""

from __future__ import annotations

import errno

import pytest
from gpurig.runner.exporter.devices import amd_files
from gpurig.runner.exporter.devices.amd import AmdSource
from gpurig.runner.exporter.devices.amd_card import REFUSED_S, SLOW_S
from gpurig.runner.exporter.devices.amd_files import PATIENCE_S
from gpurig.runner.exporter.devices.amd_sleep import IDLE_S
from gpurig.runner.exporter.devices.figures import Figures
from standins.amd_box import FILES, GIB, WHOLE, AmdBox, fdinfo
from standins.amd_driver import SAFE, Refusals
from standins.clocks import FakeClock

EVERY_FILE = sorted({*FILES, "gpu_metrics"})


@pytest.fixture
def clock():
    return FakeClock(now=100.0)


@pytest.fixture
def box(tmp_path):
    return AmdBox(tmp_path)


@pytest.fixture
def driver(monkeypatch, box):
    return Refusals(monkeypatch, box)


@pytest.fixture
def read(box, clock):
    """Reads the box's first GPU, with one source."""
    source, (gpu, *_) = AmdSource(box.root, monotonic=clock.monotonic), box.gpus
    return lambda: source.read([gpu])[gpu.uuid]


class TestSleep:
    """Cards that sleep, and cards that may."""

    @pytest.mark.parametrize("state", ["suspended", "suspending", "resuming"])
    def test_a_sleeping_card_is_asked_for_nothing_that_wakes_it(self, state, read, box, driver):
        box.cards[0].write(power__runtime_status=state, mem_info_vram_used=7)
        asked = driver.asked
        assert read() == Figures(memory_used_bytes=7, utilization_ratio=0.0, processes=())
        assert set(asked) <= SAFE

    def test_a_card_that_falls_asleep_keeps_its_limits(self, read, box):
        read()
        box.cards[0].write(power__runtime_status="suspended")
        asleep = read()
        assert asleep.lost == ""
        assert asleep.power_limit_watts == 255.0
        assert asleep.max_clocks_hertz == WHOLE.max_clocks_hertz
        assert (asleep.power_watts, asleep.temperature_celsius, asleep.clocks_hertz) == (None, None, {})
        assert (asleep.pcie_generation, asleep.pcie_max_generation) == (None, 4)
        box.cards[0].write(power__runtime_status="active")
        assert read() == WHOLE

    def test_a_card_that_idles_is_left_alone_for_long_enough_to_fall_asleep(self, read, box, driver, clock):
        box.cards[0].write(gpu_busy_percent=0)
        asked = driver.asked
        rests, last_asked = [], clock.now
        for _ in range(200):
            asked.clear()
            idle = read()
            assert (idle.power_watts, idle.utilization_ratio, idle.lost) == (201.5, 0.0, "")
            if "gpu_busy_percent" in asked:
                rests.append(clock.now - last_asked)
                last_asked = clock.now
            clock.now += 5
        # The driver wants five seconds; a card that does not fall asleep then is not tried again soon.
        assert max(rests) == 15.0
        assert sum(rest > 5 for rest in rests) == 2

    def test_a_card_that_is_left_alone_is_read_again_as_soon_as_something_computes(self, read, box, driver, clock):
        box.cards[0].write(gpu_busy_percent=0)
        read()
        clock.now += IDLE_S + 1
        asked = driver.asked
        asked.clear()
        read()
        assert "gpu_busy_percent" not in asked
        box.compute(77, {0: GIB})
        box.cards[0].write(gpu_busy_percent=90)
        assert read().utilization_ratio == 0.9

    def test_a_desktop_that_draws_nothing_lets_it_sleep_and_one_that_draws_does_not(self, read, box, driver, clock):
        box.cards[0].write(gpu_busy_percent=0)
        asked = driver.asked
        for step in range(10):
            busy_ns = 10**9 + 10**8 * step
            box.start(900, {5: fdinfo(box.cards[0].address, 1, vram=GIB, busy_ns=busy_ns)})
            asked.clear()
            read()
            assert "gpu_busy_percent" in asked
            clock.now += IDLE_S / 2
        left_alone = 0
        for _ in range(int(IDLE_S) // 5 + 3):
            asked.clear()
            read()
            left_alone += "gpu_busy_percent" not in asked
            clock.now += 5
        assert left_alone

    @pytest.mark.parametrize(
        "setting",
        [{"power__control": "on"}, {"power__autosuspend_delay_ms": -1}, {"power__autosuspend_delay_ms": 60000}],
    )
    def test_a_card_that_is_kept_awake_is_read_on(self, setting, read, box, driver, clock):
        box.cards[0].write(gpu_busy_percent=0, **setting)
        asked = driver.asked
        for _ in range(30):
            asked.clear()
            read()
            assert "gpu_busy_percent" in asked
            clock.now += 5


class TestLost:
    """Cards that go, and come back."""

    def test_a_card_that_is_unplugged_is_lost_and_comes_back(self, read, box):
        card = box.cards[0]
        assert read() == WHOLE
        card.unplug()
        assert read() == Figures(lost=f"no PCI device {card.address}")
        card.plug()
        assert read() == WHOLE

    def test_a_driver_that_is_loaded_again_has_its_sensors_under_another_number(self, read, box):
        card = box.cards[0]
        assert read() == WHOLE
        card.hwmon.rename(card.hwmon.with_name("hwmon17"))
        read()
        assert read() == WHOLE

    def test_sensors_of_another_driver_on_the_card_are_left_alone(self, read, box):
        other = box.cards[0].hwmon.with_name("hwmon0")
        other.mkdir()
        (other / "name").write_text("nvme\n")
        (other / "temp1_input").write_text("99000\n")
        assert read() == WHOLE

    def test_a_card_without_its_driver_is_lost(self, read, box):
        card = box.cards[0]
        for name in EVERY_FILE:
            if name not in {"vendor", "device", "revision", "class"} and not name.startswith("power/"):
                card.path(name).unlink()
        assert read().lost == f"amdgpu does not drive {card.address}"

    def test_a_card_none_of_whose_files_answers_is_lost_with_the_drivers_word(self, read, driver):
        driver.refuse(errno.ENODEV, *EVERY_FILE)
        assert read().lost == "amdgpu does not answer: No such device"

    def test_a_reset_costs_the_sensors_and_one_that_does_not_end_the_card(self, read, driver, clock):
        sensors = set(EVERY_FILE) - SAFE
        assert read() == WHOLE
        driver.refuse(errno.EPERM, *sensors)
        clock.now += 1
        during = read()
        assert (during.lost, during.memory_used_bytes, during.power_watts) == ("", 3 * GIB, None)
        clock.now += REFUSED_S + 1
        assert read().lost.startswith("amdgpu reads none of its sensors (Operation not permitted): it is being reset")
        driver.refuse(0)
        clock.now += SLOW_S
        assert read() == WHOLE

    def test_a_card_whose_sensors_never_answered_is_not_lost(self, read, driver, clock):
        driver.refuse(errno.EPERM, *set(EVERY_FILE) - SAFE)
        for _ in range(3):
            assert read().lost == ""
            clock.now += REFUSED_S

    def test_a_driver_that_hangs_is_left_alone_and_tried_again(self, tmp_path, clock, monkeypatch):
        box = AmdBox(tmp_path, gpus=2)
        source, (hung, well) = AmdSource(tmp_path, monotonic=clock.monotonic), box.gpus
        slow = [True]
        real = amd_files.read_bytes

        def read_bytes(path: str) -> bytes:
            if slow[0] and path.endswith(f"{box.cards[0].address}/gpu_metrics"):
                clock.now += PATIENCE_S + 1
            return real(path)

        monkeypatch.setattr(amd_files, "read_bytes", read_bytes)
        found = source.read([hung, well])
        assert found[hung.uuid].lost == "its driver takes 3 seconds to answer"
        assert found[well.uuid].lost == ""
        before = clock.now
        assert source.read([hung, well])[hung.uuid].lost
        assert clock.now == before
        slow[0] = False
        clock.now += 31
        assert source.read([hung, well])[hung.uuid].lost == ""
