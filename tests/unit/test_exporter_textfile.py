"""The file for node_exporter: whole, readable, and not left behind to lie."""

from __future__ import annotations

import stat
import threading

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.runner.exporter import textfile
from gpurig.runner.exporter.assembly import ExporterOptions
from gpurig.runner.exporter.textfile import write_textfile
from prometheus_client.parser import text_string_to_metric_families

DEMO = ExporterOptions(backend="demo")


def test_once_leaves_a_file_that_everybody_may_read(tmp_path):
    output = tmp_path / "gpurig.prom"
    write_textfile(output, DEMO, write_period_s=None, say=lambda _line: None)
    assert stat.S_IMODE(output.stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["gpurig.prom"]
    families = list(text_string_to_metric_families(output.read_text(encoding="utf-8")))
    names = {one.name for one in families}
    assert "gpurig_gpu_power_watts" in names
    # node_exporter has its own of these, and refuses a second.
    assert not [name for name in names if name.startswith(("process_", "python_"))]
    assert all(sample.timestamp is None for one in families for sample in one.samples)


def test_a_file_that_node_exporter_would_not_read_is_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        write_textfile(tmp_path / "gpurig.txt", DEMO, write_period_s=None, say=lambda _line: None)
    assert "gpurig.prom" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_missing_prerequisite(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PrerequisiteError):
        write_textfile(tmp_path / "file" / "gpurig.prom", DEMO, write_period_s=None, say=lambda _line: None)


class Periods(threading.Event):
    """Lets a given number of periods pass at once, and does something in each."""

    def __init__(self, *actions):
        super().__init__()
        self.actions = list(actions)

    def wait(self, timeout=None):
        if not self.actions:
            return True
        self.actions.pop(0)()
        return False


def test_a_writing_that_fails_is_said_once_and_tried_again():
    answers = [PrerequisiteError("full", hint=""), PrerequisiteError("full", hint=""), None, None]
    said: list[str] = []

    def write():
        answer = answers.pop(0)
        if answer:
            raise answer

    textfile._write_until(Periods(*[lambda: None] * 4), write, 15.0, said.append)
    assert said == ["full", "writing works again"]
