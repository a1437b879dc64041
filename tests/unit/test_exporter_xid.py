"""Xid errors: the kernel's log, its lines, two witnesses of one error, and the threads that watch."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.devices.figures import SourceError
from gpurig.runner.exporter.devices.kernel_log import KernelLog, LogLine, parse_line
from gpurig.runner.exporter.devices.nvml_session import NvmlSession
from gpurig.runner.exporter.devices.xid import XidCounts, XidLine, XidSeen, parse_xid
from gpurig.runner.exporter.devices.xid_watch import XidWatch
from hypothesis import given
from hypothesis import strategies as st
from standins.nvml.binding import FakeBinding

RECORDED = Path(__file__).parents[1] / "fixtures/xid"
NOW, UPTIME = 1_700_000_000.0, 5_000.0
XID_79 = "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


def card(uuid="GPU-a", pci="0000:01:00.0", **other) -> Gpu:
    return Gpu(backend="cuda", uuid=uuid, name="", pci_address=pci, memory_bytes=None, **other)


def recorded(name: str) -> list[XidLine]:
    """The errors in a recording of `dmesg`."""
    texts = (RECORDED / f"{name}.txt").read_text().splitlines()
    messages = [re.sub(r"^(\[[^]]*\] |kernel: )", "", text) for text in texts]
    return [xid for message in messages if (xid := parse_xid(message)) is not None]


@pytest.mark.parametrize(
    ("name", "errors"),
    [
        ("fallen-off-bus", [("0000:44:00.0", 79), ("0000:05:00.0", 79)]),
        ("gsp-timeout", [("0000:9b:00.0", 119)] * 5),
        ("application", [*[("0000:cb:00.0", 13)] * 3, ("0000:cb:00.0", 109)]),
        (
            "recovery-action",
            [
                ("0009:01:00.0", 149),
                ("0009:01:00.0", 154),
                ("0008:01:00.0", 149),
                ("0019:01:00.0", 154),
                ("0009:01:00.0", 149),
                ("0009:01:00.0", 149),
                ("0008:01:00.0", 149),
                ("0018:01:00.0", 154),
                ("0008:01:00.0", 154),
            ],
        ),
        ("mixed", [("0000:00:05.0", 43), ("0000:00:05.0", 43), ("0000:00:07.0", 31), ("0000:00:08.0", 94)]),
        ("caused-by-previous", [("0000:dc:00.0", 45), ("0000:ed:00.0", 45), ("0000:ba:00.0", 45)]),
        ("no-xid", []),
    ],
)
def test_every_recorded_error_is_read_with_its_card(name, errors):
    assert [(xid.pci, xid.code) for xid in recorded(name)] == errors


def test_every_recording_has_a_test():
    cases = test_every_recorded_error_is_read_with_its_card.pytestmark[0].args[1]
    assert {path.stem for path in RECORDED.glob("*.txt")} == {name for name, _ in cases}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVRM: Xid (0000:03:00): 31, Ch 00000010", XidLine("0000:03:00.0", 31)),
        ("NVRM: Xid (PCI:000F:01:00): 8, x", XidLine("000f:01:00.0", 8)),
        ("NVRM: Xid (PCI:0000:01:00.0): 8, x", XidLine("0000:01:00.0", 8)),
        ("NVRM: Xid (PCI:0000:43:00 GPU-I:05): 31, pid=1", XidLine("0000:43:00.0", 31, 5)),
        ("NVRM: Xid (PCI:0000:43:00 GPU-I:05 GPU-CI:00): 31, pid=1", XidLine("0000:43:00.0", 31, 5)),
    ],
)
def test_old_and_new_drivers_and_parts_of_cards_are_understood(text, expected):
    assert parse_xid(text) == expected


@pytest.mark.parametrize("end", range(len("NVRM: Xid (PCI:0000:01:00): 79")))
def test_a_line_that_was_cut_is_no_error_of_another_number(end):
    assert parse_xid(XID_79[: end + 1]) is None


@pytest.mark.parametrize(
    "text",
    [
        "NVRM: Xid (PCI:0000:01:00): 0, x",
        "NVRM: Xid (PCI:0000:01:00): 99999, x",
        "NVRM: Xid (PCI:0000:01:00): -1, x",
        "NVRM: Xid (PCI:0000:01): 79, x",
        "python[3]: NVRM: Xid (PCI:0000:01:00): 79, x",
        "NVRM: Xid (PCI:0000:01:00): ٧٩, x",
    ],
)
def test_what_only_looks_like_an_error_is_none(text):
    assert parse_xid(text) is None


@given(st.text())
def test_no_text_makes_the_parser_fail(text):
    parse_xid(text)
    parse_xid("NVRM: Xid (PCI:" + text)


@given(st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 31), st.integers(1, 9999), st.text(max_size=40))
def test_every_address_and_number_that_a_driver_writes_is_read_as_written(domain, bus, device, code, rest):
    text = f"NVRM: Xid (PCI:{domain:04x}:{bus:02x}:{device:02x}): {code}, {rest}"
    assert parse_xid(text) == XidLine(f"{domain:04x}:{bus:02x}:{device:02x}.0", code)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_logs_parser_fail(line):
    parse_line(line)
    parse_line(b"4,1,2,-;" + line)


@given(st.integers(0, 7), st.integers(0, 2**64 - 1), st.integers(0, 2**63), st.text("abc,;= ", max_size=60))
def test_a_line_of_the_log_is_read_as_the_kernel_wrote_it(level, number, microseconds, text):
    assert parse_line(f"{level},{number},{microseconds},-;{text}".encode()) == LogLine(number, microseconds / 1e6, text)


@pytest.mark.parametrize(
    "line",
    [
        b"12,1,2,-;" + XID_79.encode(),
        b" SUBSYSTEM=pci",
        b"4,x,2,-;text",
        b"4,1;text",
        b"4,1,2,-",
        b"",
        b"+4,1,2,-;text",
        b"4," + b"9" * 5000 + b",2,-;text",
    ],
)
def test_what_a_program_wrote_and_what_is_damaged_is_no_kernel_line(line):
    assert parse_line(line) is None


class TestKernelLog:
    """Reading the device; a plain file gives several records at once."""

    def test_reading_goes_on_where_it_was(self, tmp_path):
        path = tmp_path / "kmsg"
        path.write_bytes(b"4,1,1000000,-;first\n SUBSYSTEM=pci\n4,2,2000000,-;sec")
        log = KernelLog(path)
        assert log.read() == [LogLine(1, 1.0, "first")]
        with path.open("ab") as file:
            file.write(b"ond\n")
        assert log.read() == [LogLine(2, 2.0, "second")]
        assert log.read() == []
        log.close()

    def test_a_log_that_is_opened_again_tells_no_line_twice(self, tmp_path):
        path = tmp_path / "kmsg"
        path.write_bytes(b"4,1,1,-;first\n")
        log = KernelLog(path)
        log.read()
        log.close()
        with path.open("ab") as file:
            file.write(b"4,2,2,-;second\n")
        assert [line.text for line in log.read()] == ["second"]
        log.close()

    def test_lines_that_were_overwritten_before_they_were_read_cost_only_themselves(self, tmp_path, monkeypatch):
        answers = [b"4,1,1,-;a\n", BrokenPipeError(), b"4,9,1,-;b\n", BlockingIOError()]

        def read(_descriptor, _size):
            answer = answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return answer

        (tmp_path / "kmsg").touch()
        monkeypatch.setattr("os.read", read)
        log = KernelLog(tmp_path / "kmsg")
        assert [line.text for line in log.read()] == ["a", "b"]
        log.close()

    def test_a_log_that_is_not_there_is_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            KernelLog(tmp_path / "kmsg").read()


class TestCounts:
    """Each error once, whoever reports it."""

    PCI = "0000:01:00.0"

    def of(self, *reports) -> dict[int, XidSeen]:
        counts = XidCounts()
        for witness, code, at in reports:
            counts.add(witness, self.PCI, code, at)
        return counts.of([card()], {}).get("GPU-a", {})

    def test_an_error_that_both_witnesses_report_counts_once(self):
        assert self.of(("log", 79, NOW), ("event", 79, NOW + 0.4)) == {79: XidSeen(1, NOW)}
        assert self.of(("event", 79, NOW), ("log", 79, NOW - 0.4)) == {79: XidSeen(1, NOW)}

    def test_errors_of_one_witness_all_count(self):
        assert self.of(("log", 13, NOW), ("log", 13, NOW), ("log", 13, NOW)) == {13: XidSeen(3, NOW)}
        assert self.of(("event", 13, NOW), ("event", 13, NOW + 1)) == {13: XidSeen(2, NOW + 1)}

    def test_errors_of_other_numbers_or_other_times_are_other_errors(self):
        assert self.of(("log", 79, NOW), ("event", 31, NOW)) == {79: XidSeen(1, NOW), 31: XidSeen(1, NOW)}
        assert self.of(("log", 79, NOW), ("event", 79, NOW + 60)) == {79: XidSeen(2, NOW + 60)}

    @given(
        st.lists(st.tuples(st.sampled_from([13, 79]), st.floats(0, 1000)), max_size=30).map(
            lambda errors: sorted(errors, key=lambda error: error[1])
        ),
        st.floats(0, 2),
        st.booleans(),
    )
    def test_whatever_comes_first_each_error_that_both_report_counts_once(self, errors, delay_s, log_first):
        first, second = ("log", "event") if log_first else ("event", "log")
        reports = [(first, code, at, at) for code, at in errors]
        reports += [(second, code, at, at + delay_s) for code, at in errors]
        reports.sort(key=lambda report: report[3])
        seen = self.of(*((witness, code, at) for witness, code, at, _ in reports))
        assert {code: one.count for code, one in seen.items()} == {
            code: count for code in (13, 79) if (count := sum(1 for error in errors if error[0] == code))
        }

    def test_a_log_full_of_nonsense_does_not_fill_the_memory(self):
        counts = XidCounts()
        for code in range(1, 5000):
            counts.add("log", self.PCI, code, NOW + code * 60)
        assert len(counts.of([card()], {})["GPU-a"]) <= 1000

    def test_an_error_of_a_part_is_that_parts_and_an_error_of_the_card_is_each_parts(self):
        parts = [card(f"MIG-{number}", mig=True, parent="GPU-a") for number in (1, 2)]
        counts = XidCounts()
        counts.add("log", self.PCI, 31, NOW, instance=3)
        counts.add("log", self.PCI, 79, NOW)
        found = counts.of(parts, {"MIG-1": 3, "MIG-2": 4})
        assert {uuid: set(codes) for uuid, codes in found.items()} == {"MIG-1": {31, 79}, "MIG-2": {79}}

    def test_another_vendors_card_at_the_same_address_has_no_xid(self):
        counts = XidCounts()
        counts.add("log", self.PCI, 31, NOW)
        amd = Gpu(backend="rocm", uuid="a", name="", pci_address=self.PCI, memory_bytes=None)
        assert counts.of([amd, card("GPU-b", "0000:02:00.0")], {}) == {}


class Watched:
    """A watch over a binding and a log that a test drives."""

    def __init__(self, folder: Path, gpus=()):
        self.nvml = FakeBinding(
            nvmlEventSetCreate=1,
            nvmlEventSetFree=None,
            nvmlDeviceGetSupportedEventTypes=8,
            nvmlDeviceRegisterEvents=None,
            nvmlDeviceGetHandleByUUID=lambda uuid: 0x100 + ord(uuid[-1]),
        )
        self.path = folder / "kmsg"
        self.path.touch()
        self.gpus = list(gpus) or [card()]
        self.at = 0.0
        self.said: list[str] = []
        self.session = NvmlSession(lambda: self.nvml, monotonic=self.monotonic)
        self.watch = XidWatch(
            self.session,
            lambda: self.gpus,
            kernel_log=self.path,
            now=lambda: NOW + self.at,
            monotonic=self.monotonic,
            say=self.said.append,
        )
        self.no_event()

    def monotonic(self) -> float:
        return UPTIME + self.at

    def log(self, number: int, uptime_s: float, text: str = XID_79) -> None:
        with self.path.open("a") as file:
            file.write(f"4,{number},{int(uptime_s * 1e6)},-;{text}\n")

    def event(self, code: int, uuid="GPU-a", instance: int = 2**32 - 1, kind: int = 8) -> None:
        self.nvml.answers["nvmlEventSetWait_v2"] = SimpleNamespace(
            device=0x100 + ord(uuid[-1]), eventType=kind, eventData=code, gpuInstanceId=instance
        )

    def no_event(self) -> None:
        self.fail(pynvml.NVML_ERROR_TIMEOUT)

    def fail(self, code: int) -> None:
        self.nvml.answers["nvmlEventSetWait_v2"] = lambda *_arguments: _raise(code)


def _raise(code: int):
    raise pynvml.NVMLError(code)


@pytest.fixture
def watched(tmp_path):
    made = Watched(tmp_path)
    yield made
    made.watch.stop()


def test_an_error_from_before_the_start_has_the_time_at_which_it_happened(watched):
    watched.log(1, UPTIME - 100)
    watched.watch.read_log()
    assert watched.watch.latest == {"GPU-a": {79: XidSeen(1, NOW - 100)}}


def test_an_error_that_is_new_happened_since_the_last_reading_whatever_the_kernels_clock_says(watched):
    watched.watch.read_log()
    watched.at = 1
    # The kernel's clock is a minute behind.
    watched.log(1, UPTIME + 1 - 60)
    watched.watch.read_log()
    assert watched.watch.latest == {"GPU-a": {79: XidSeen(1, NOW)}}


def test_an_event_and_its_line_are_one_error(watched):
    watched.event(79)
    assert watched.watch.read_events(0)
    watched.at = 1
    watched.log(1, UPTIME)
    watched.watch.read_log()
    assert watched.watch.latest["GPU-a"][79].count == 1


def test_a_log_that_cannot_be_read_is_told_once_and_events_go_on(watched):
    watched.path.unlink()
    watched.watch.read_log()
    watched.watch.read_log()
    watched.event(31)
    watched.watch.read_events(0)
    assert watched.watch.latest == {"GPU-a": {31: XidSeen(1, NOW)}}
    assert len(watched.said) == 1
    watched.path.touch()
    watched.watch.read_log()
    assert watched.said[1:] == ["the kernel's log can be read again"]


@pytest.mark.parametrize(
    "change",
    [{"kind": 1}, {"code": 0}, {"code": 2**63}, {"uuid": "GPU-z"}],
    ids=["another event", "no number", "no driver's number", "no card of ours"],
)
def test_what_is_no_error_of_a_card_counts_for_nothing(watched, change):
    watched.event(**{"code": 79, **change})
    watched.watch.read_events(0)
    assert watched.watch.latest == {}


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_UNKNOWN, 4242])
def test_after_a_failure_a_new_event_set_is_made_and_the_old_one_given_back(watched, code):
    watched.watch.read_events(0)
    watched.fail(code)
    with pytest.raises(SourceError):
        watched.watch.read_events(0)
    watched.event(79)
    watched.watch.read_events(0)
    assert watched.watch.latest["GPU-a"][79].count == 1
    assert (watched.nvml.calls["nvmlEventSetCreate"], watched.nvml.calls["nvmlEventSetFree"]) == (2, 1)


def test_a_card_that_refuses_its_events_leaves_the_others_and_is_asked_again_now_and_then(tmp_path):
    watched = Watched(tmp_path, [card(), card("GPU-b", "0000:02:00.0")])
    watched.nvml.fail("nvmlDeviceRegisterEvents", pynvml.NVML_ERROR_GPU_IS_LOST, 0x100 + ord("a"))
    watched.event(79, "GPU-b")
    for _ in range(60):
        watched.watch.read_events(0)
        watched.at += 1
    # The one that takes them once, the other every 5 seconds.
    assert watched.nvml.calls["nvmlDeviceRegisterEvents"] == 1 + 12
    watched.nvml.recover()
    watched.at += 30
    watched.event(31, "GPU-a")
    watched.watch.read_events(0)
    assert watched.watch.latest["GPU-a"][31].count == 1


def test_without_a_card_that_tells_events_nothing_is_waited_for(watched):
    watched.nvml.answers["nvmlDeviceGetSupportedEventTypes"] = 0
    assert not watched.watch.read_events(0)
    watched.gpus = []
    assert not watched.watch.read_events(0)
    assert watched.nvml.calls["nvmlEventSetWait_v2"] == 0


def test_an_event_of_a_part_is_that_parts(tmp_path):
    parts = [card(f"MIG-{name}", mig=True, parent="GPU-a") for name in "pq"]
    watched = Watched(tmp_path, parts)
    watched.nvml.answers["nvmlDeviceGetGpuInstanceId"] = lambda handle: {"p": 3, "q": 4}[chr(handle - 0x100)]
    watched.event(43, "GPU-a", instance=4)
    watched.watch.read_events(0)
    assert watched.watch.latest == {"MIG-q": {43: XidSeen(1, NOW)}}
    assert watched.nvml.calls["nvmlDeviceRegisterEvents"] == 1


def test_nvml_can_be_begun_anew_between_two_waits(watched):
    watched.watch.read_events(0)
    assert watched.session.close()
    assert watched.nvml.calls["nvmlEventSetFree"] == watched.nvml.calls["nvmlShutdown"] == 1
    watched.event(79)
    watched.watch.read_events(0)
    assert watched.watch.latest["GPU-a"][79].count == 1


def test_a_driver_that_is_not_there_is_no_error_that_ends_the_thread(watched):
    watched.nvml.fail("nvmlInit", pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    with pytest.raises(SourceError):
        watched.watch.read_events(0)
