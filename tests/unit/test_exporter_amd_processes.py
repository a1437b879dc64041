"""Who uses an AMD GPU: fdinfo recordings, KFD's list, both together, and what it costs to find them."""

from __future__ import annotations

import itertools
import os
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from gpurig.runner.exporter.devices.amd import AmdSource
from gpurig.runner.exporter.devices.amd_clients import LIST_S, MOST_LOOKS, ClientFinder
from gpurig.runner.exporter.devices.amd_fdinfo import DrmClient, parse_fdinfo
from gpurig.runner.exporter.devices.figures import GpuProcess
from hypothesis import example, given
from hypothesis import strategies as st
from standins.amd_box import GIB, AmdBox, fdinfo
from standins.clocks import FakeClock

RECORDED = tomllib.loads((Path(__file__).parents[1] / "fixtures/fdinfo.toml").read_text())
MIB = 1024**2


@pytest.fixture
def clock():
    return FakeClock(now=100.0)


@pytest.fixture
def box(tmp_path):
    return AmdBox(tmp_path, gpus=2)


@pytest.fixture
def said():
    return []


@pytest.fixture
def read(box, clock, said):
    """Reads the processes of the box's GPUs, in the order of the cards."""
    source = AmdSource(box.root, monotonic=clock.monotonic, say=said.append)

    def reading():
        figures = source.read(box.gpus)
        return tuple(figures[gpu.uuid].processes for gpu in box.gpus)

    return reading


class TestFdinfo:
    """One open file."""

    @pytest.mark.parametrize("name", RECORDED)
    def test_a_recorded_file_tells_what_the_kernel_meant(self, name):
        expected = RECORDED[name].get("client")
        assert parse_fdinfo(RECORDED[name]["text"].encode()) == (DrmClient(**expected) if expected else None)

    @pytest.mark.parametrize("missing", ["drm-driver:", "drm-pdev:", "drm-client-id:"])
    def test_a_file_that_does_not_say_whose_it_is_is_left(self, missing):
        lines = fdinfo("0000:03:00.0", 7, vram=MIB).splitlines(keepends=True)
        assert parse_fdinfo("".join(line for line in lines if not line.startswith(missing)).encode()) is None

    @pytest.mark.parametrize(
        ("text", "vram"),
        [
            ("drm-memory-vram:\t7", 7),
            ("drm-memory-vram:\t7 KiB", 7 * 1024),
            ("drm-memory-vram:\t7 MiB", 7 * MIB),
            ("drm-memory-vram: \t7 KiB  ", 7 * 1024),
            ("drm-total-vram:\t9 KiB", 9 * 1024),
            ("drm-total-vram:\t9 KiB\ndrm-memory-vram:\t7 KiB", 7 * 1024),
            ("drm-memory-vram:\t7 KiB\ndrm-resident-vram:\t8 KiB", 8 * 1024),
            ("drm-resident-vram:\t8 GiB\ndrm-memory-vram:\t7 KiB", 7 * 1024),
            ("drm-memory-vram:\t-7 KiB", None),
            ("drm-memory-vram:\t7 KiB 8", None),
            (f"drm-memory-vram:\t{'9' * 40} KiB", None),
            ("drm-shared-vram:\t7 KiB", None),
            ("", None),
        ],
    )
    def test_quantities(self, text, vram):
        head = "drm-driver:\tamdgpu\ndrm-pdev:\t0000:03:00.0\ndrm-client-id:\t1\n"
        client = parse_fdinfo((head + text + "\n").encode())
        assert client is not None
        assert client.vram_bytes == vram

    @given(st.binary(max_size=400))
    @example(b"drm-driver:\tamdgpu\n" * 5000)
    @example(b"drm-driver:" + b"\t" * 10000)
    @example(b"drm-driver:\tamdgpu\ndrm-pdev:\t0000:03:00.0\ndrm-client-id:\t" + b"9" * 100000)
    def test_no_bytes_make_it_fail(self, noise):
        parse_fdinfo(noise)

    @given(st.sampled_from([one["text"] for one in RECORDED.values()]), st.data())
    def test_no_cut_and_no_changed_byte_makes_it_fail(self, text, data):
        raw = bytearray(text.encode())
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        client = parse_fdinfo(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
        assert client is None or client.busy_ns >= 0


def test_a_process_that_computes_is_found_without_any_permission(read, box):
    box.compute(70, {0: 5 * GIB})
    box.cards[0].write(gpu_busy_percent=80)
    assert read() == ((GpuProcess(70, 5 * GIB, 0.8),), ())


def test_a_process_that_draws_has_its_memory_and_its_share_of_the_time(read, box, clock):
    address = box.cards[1].address
    box.start(71, {5: fdinfo(address, 9, vram=2 * GIB, busy_ns=10**9)})
    assert read() == ((), (GpuProcess(71, 2 * GIB, None),))
    clock.now += 2
    box.start(71, {5: fdinfo(address, 9, vram=GIB, busy_ns=10**9 + 5 * 10**8)})
    assert read() == ((), (GpuProcess(71, GIB, 0.25),))


def test_what_both_lists_know_is_counted_once(read, box):
    # ROCm's address space lies in the process' GPU file: the same memory, and a little more.
    box.compute(70, {0: 5 * GIB})
    box.start(70, {5: fdinfo(box.cards[0].address, 3, vram=5 * GIB + 40 * MIB)})
    (found,), _ = read()
    assert found.memory_bytes == 5 * GIB + 40 * MIB


def test_a_file_under_several_descriptors_and_in_forked_workers_is_counted_once(read, box, clock):
    text = fdinfo(box.cards[0].address, 3, vram=GIB, busy_ns=10**9)
    for pid in (80, 81, 82):
        box.start(pid, {5: text, 6: text})
    assert read()[0] == (GpuProcess(80, GIB, None),)
    # The worker that computes is the one that KFD knows.
    box.compute(82, {0: MIB})
    clock.now += 1
    found, _ = read()
    assert [(one.pid, one.memory_bytes) for one in found or ()] == [(82, GIB)]


def test_several_open_files_of_a_process_add_up(read, box):
    address = box.cards[0].address
    box.start(80, {5: fdinfo(address, 3, vram=GIB), 6: fdinfo(address, 4, vram=MIB), 7: fdinfo(address, 3, vram=GIB)})
    assert read()[0] == (GpuProcess(80, GIB + MIB, None),)


def test_on_an_apu_what_lies_in_system_memory_counts(box):
    box.start(80, {5: fdinfo(box.cards[0].address, 3, vram=5348 * 1024, gtt=25258000 * 1024)})
    apu = replace(box.gpus[0], unified=True)
    (found,) = AmdSource(box.root).read([apu])[apu.uuid].processes or ()
    assert found.memory_bytes == (5348 + 25258000) * 1024
    (found,) = AmdSource(box.root).read([box.gpus[0]])[apu.uuid].processes or ()
    assert found.memory_bytes == 5348 * 1024


def test_a_counter_that_falls_for_a_moment_is_no_negative_use(read, box, clock):
    shares = []
    for busy_ns in (10**9, 5 * 10**8, 10**9, 15 * 10**8):
        box.start(80, {5: fdinfo(box.cards[0].address, 3, vram=GIB, busy_ns=busy_ns)})
        (found,), _ = read()
        shares.append(found.utilization_ratio)
        clock.now += 1
    assert shares == [None, 0.0, 0.0, 0.5]


def test_a_file_that_was_opened_since_has_no_use_before(read, box, clock):
    box.start(80, {5: fdinfo(box.cards[0].address, 3, busy_ns=10**9)})
    read()
    clock.now += LIST_S
    box.start(80, {5: fdinfo(box.cards[0].address, 4, busy_ns=10**12)})
    (found,), _ = read()
    assert found.utilization_ratio is None


class TestShares:
    """How the time is shared that the kernel does not see."""

    def test_a_process_that_computes_alone_has_what_the_others_did_not(self, read, box, clock):
        box.compute(70, {0: GIB})
        box.cards[0].write(gpu_busy_percent=90)
        for busy_ns in (0, 2 * 10**8):
            box.start(71, {5: fdinfo(box.cards[0].address, 9, vram=MIB, busy_ns=busy_ns)})
            found, _ = read()
            clock.now += 1
        assert [(one.pid, one.utilization_ratio) for one in found or ()] == [
            (70, pytest.approx(0.7)),
            (71, pytest.approx(0.2)),
        ]

    def test_several_share_it_as_they_occupy_compute_units(self, read, box):
        box.compute(70, {0: GIB}, occupied={0: 30})
        box.compute(71, {0: GIB}, occupied={0: 10})
        box.cards[0].write(gpu_busy_percent=80)
        found, _ = read()
        assert [one.utilization_ratio for one in found or ()] == [pytest.approx(0.6), pytest.approx(0.2)]

    @pytest.mark.parametrize("occupied", [None, {0: 0}])
    def test_where_their_shares_are_not_known_nobodys_is_told(self, occupied, read, box, clock):
        box.compute(70, {0: GIB}, occupied=occupied)
        box.compute(71, {0: GIB}, occupied=occupied)
        for busy_ns in (0, 10**8):
            box.start(72, {5: fdinfo(box.cards[0].address, 9, vram=MIB, busy_ns=busy_ns)})
            found, _ = read()
            clock.now += 1
        assert [(one.pid, one.utilization_ratio) for one in found or ()] == [(70, None), (71, None), (72, None)]

    def test_a_card_that_does_not_tell_its_use_leaves_the_shares_unknown(self, read, box):
        box.compute(70, {0: GIB})
        box.cards[0].path("gpu_busy_percent").unlink()
        assert read()[0] == (GpuProcess(70, GIB, None),)

    @given(
        percent=st.integers(0, 100),
        occupied=st.lists(st.integers(0, 100), max_size=4),
        busy=st.lists(st.integers(0, 10**9), max_size=3),
    )
    def test_shares_are_shares_and_add_up_to_no_more_than_the_card_did(self, percent, occupied, busy, tmp_path_factory):
        clock = FakeClock()
        box = AmdBox(tmp_path_factory.mktemp("box"))
        source, (gpu,) = AmdSource(box.root, monotonic=clock.monotonic), box.gpus
        box.cards[0].write(gpu_busy_percent=percent)
        for pid, units in enumerate(occupied, start=10):
            box.compute(pid, {0: GIB}, occupied={0: units})
        for step in (0, 1):
            for pid, busy_ns in enumerate(busy, start=20):
                box.start(pid, {5: fdinfo(box.cards[0].address, pid, vram=MIB, busy_ns=step * busy_ns)})
            found = source.read([gpu])[gpu.uuid].processes or ()
            clock.now += 1
        shares = [one.utilization_ratio or 0.0 for one in found]
        assert all(0 <= share <= 1 for share in shares)
        drawn = sum(busy) / 1e9
        assert sum(shares) <= max(percent / 100, drawn) + 1e-9


class TestKfd:
    """The kernel's list of processes that compute."""

    def test_a_process_that_opened_a_card_and_has_nothing_there_does_not_use_it(self, read, box):
        box.compute(70, {0: GIB})
        assert read()[1] == ()

    def test_one_that_has_a_queue_there_does(self, read, box):
        box.compute(70, {0: GIB}, queues=[1])
        assert [one.pid for one in read()[1] or ()] == [70]

    def test_further_address_spaces_of_a_process_count(self, read, box):
        box.compute(70, {0: GIB}, occupied={0: 3})
        box.compute(70, {0: MIB, 1: MIB}, context="context_1")
        assert [[one.memory_bytes for one in found or ()] for found in read()] == [[GIB + MIB], [MIB]]

    def test_files_that_cost_the_kernel_much_are_not_read(self, read, box, monkeypatch):
        box.compute(70, {0: GIB}, queues=[0])
        opened = []
        real = os.open
        monkeypatch.setattr(os, "open", lambda path, *given: opened.append(str(path)) or real(path, *given))
        read()
        assert opened
        assert not [path for path in opened if "/sdma_" in path or path.endswith("/guid")]

    def test_a_process_that_ends_is_gone(self, read, box):
        box.compute(70, {0: GIB})
        read()
        box.end(70)
        assert read() == ((), ())

    @pytest.mark.parametrize("content", ["", "nonsense", "-5", "9" * 40])
    def test_garbage_costs_the_memory_and_not_the_process(self, content, read, box):
        box.compute(70, {0: GIB}, queues=[0])
        (box.root / f"sys/class/kfd/kfd/proc/70/vram_{box.cards[0].gpu_id}").write_text(content)
        assert [(one.pid, one.memory_bytes) for one in read()[0] or ()] == [(70, None)]

    def test_without_it_and_without_proc_nothing_is_known(self, tmp_path):
        box = AmdBox(tmp_path)
        gpus = box.gpus
        (tmp_path / "sys/class/kfd/kfd/proc").rmdir()
        assert AmdSource(tmp_path).read(gpus)[gpus[0].uuid].processes is None


class TestFinding:
    """Looking for processes on a large host."""

    @pytest.fixture
    def looks(self, monkeypatch):
        """The processes that are looked through, in order."""
        found: list[int] = []
        real = os.scandir

        def scandir(path):
            found.append(int(Path(path).parent.name))
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
        return found

    def test_a_process_that_never_opens_a_gpu_is_looked_through_ever_more_seldom(self, box, clock, looks):
        finder = ClientFinder(str(box.root / "proc"), monotonic=clock.monotonic)
        box.start(80, targets={3: "/dev/null"})
        times = []
        for _ in range(2000):
            looks.clear()
            finder.read()
            times += [clock.now] * len(looks)
            clock.now += 1
        waits = [later - before for before, later in itertools.pairwise(times)]
        assert waits[:6] == [10, 20, 40, 80, 160, 320]
        assert set(waits[6:]) == {320}

    def test_one_that_opens_it_late_is_found_and_then_read_each_time(self, read, box, clock):
        box.start(80, targets={3: "/dev/null"})
        read()
        box.start(80, {5: fdinfo(box.cards[0].address, 3, vram=GIB)}, targets={3: "/dev/null"})
        clock.now += 10
        assert [one.memory_bytes for one in read()[0] or ()] == [GIB]
        box.start(80, {5: fdinfo(box.cards[0].address, 3, vram=2 * GIB)})
        clock.now += 1
        assert [one.memory_bytes for one in read()[0] or ()] == [2 * GIB]

    def test_a_large_host_is_looked_through_in_turns_the_newest_first(self, box, clock, looks):
        for pid in range(1, 2 * MOST_LOOKS + 1):
            (box.root / f"proc/{pid}/fd").mkdir(parents=True)
        finder = ClientFinder(str(box.root / "proc"), monotonic=clock.monotonic)
        finder.read()
        assert looks == list(range(2 * MOST_LOOKS, MOST_LOOKS, -1))
        clock.now += 1
        finder.read()
        assert len(set(looks)) == 2 * MOST_LOOKS

    def test_a_process_with_very_many_files_does_not_hold_up_the_rest(self, box, clock, monkeypatch):
        box.start(80, {number: fdinfo(box.cards[0].address, number, vram=MIB) for number in range(200)})
        links = []
        real = os.readlink
        monkeypatch.setattr(os, "readlink", lambda path: links.append(path) or real(path))
        clients = ClientFinder(str(box.root / "proc"), monotonic=clock.monotonic).read().by_pid[80]
        assert len(links) <= 64
        assert len(clients) == 64

    def test_what_may_not_be_seen_is_told_once_and_is_no_error(self, read, box, said, monkeypatch):
        box.start(80, {5: fdinfo(box.cards[0].address, 3, vram=GIB)})
        box.compute(81, {0: GIB})
        real = os.scandir

        def scandir(path):
            if path.endswith("/80/fd"):
                raise PermissionError(13, "Permission denied")
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
        assert [[one.pid for one in found or ()] for found in (read(), read())[1]] == [[81], []]
        (line,) = said
        assert line.startswith("1 processes of other users")
        assert "CAP_SYS_PTRACE" in line

    def test_a_host_without_cards_is_not_told_about_them(self, tmp_path, said):
        (tmp_path / "proc/1").mkdir(parents=True)
        AmdSource(tmp_path, say=said.append).read([])
        assert said == []

    def test_a_process_that_ends_while_it_is_looked_at_is_left(self, box, clock):
        finder = ClientFinder(str(box.root / "proc"), monotonic=clock.monotonic)
        (box.root / "proc/80").mkdir()
        box.start(81, {5: fdinfo(box.cards[0].address, 3)})
        (box.root / "proc/81/fdinfo/5").unlink()
        assert finder.read().by_pid == {}

    def test_only_the_device_files_of_gpus_are_read(self, box, clock):
        box.start(80, {5: fdinfo(box.cards[0].address, 3)}, targets={6: "/dev/null", 7: "socket:[12]", 8: "/dev/drill"})
        for number in (6, 7, 8):
            (box.root / f"proc/80/fdinfo/{number}").write_text(fdinfo(box.cards[0].address, number))
        (client,) = ClientFinder(str(box.root / "proc"), monotonic=clock.monotonic).read().by_pid[80]
        assert client.number == 3


def test_the_kernels_own_proc_is_read_without_error():
    clients = ClientFinder("/proc", monotonic=FakeClock().monotonic).read()
    assert clients.processes > 0
