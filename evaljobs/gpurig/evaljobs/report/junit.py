"""junit.xml as GitLab reads it.

GitLab turns the XML into a hash and shows, for a case, `classname` as its suite and the text of <failure> or <error>
as its output; attributes of those elements are lost once they have text, cases of one class and name are dropped,
and `[[ATTACHMENT|path]]` in <system-out> makes a link (gitlabhq, lib/gitlab/ci/parsers/test/junit.rb).
"""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from gpurig.common.terminal import harmless
from gpurig.evaljobs.report.gpu_use import run_use
from gpurig.evaljobs.report.words import reasons
from gpurig.evaljobs.results import Results, SampleResult

# GitLab refuses a file of 30 MB.
MAX_BYTES = 28_000_000
_LONGEST_TEXT = 4_000


def junit_xml(results: Results) -> str:
    """One test suite with one case a sample; under `MAX_BYTES` when encoded as UTF-8.

    Outputs are left out, then reasons, from the case on at which the file would grow too large.
    """
    failures = sum(not sample.passed and sample.finish != "error" for sample in results.samples)
    errors = sum(sample.finish == "error" for sample in results.samples)
    attributes = {
        "name": results.suite,
        "tests": str(len(results.samples)),
        "failures": str(failures),
        "errors": str(errors),
        "time": f"{sum(sample.seconds for sample in results.samples):.3f}",
        "timestamp": results.started,
    }
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n<testsuite {_attributes(attributes)}>\n'
    head += _properties(results)
    tail = "</testsuite>\n</testsuites>\n"
    # What the bare cases need is set aside first, so that every sample is counted in the file.
    names = _unique([sample.id for sample in results.samples])
    bare = [_case(results, sample, name, text="") for sample, name in zip(results.samples, names, strict=True)]
    room = MAX_BYTES - len((head + tail).encode()) - sum(len(case.encode()) for case in bare)
    cases = []
    for sample, name, short in zip(results.samples, names, bare, strict=True):
        full = short if sample.passed else _case(results, sample, name, text=_text(results, sample))
        cost = len(full.encode()) - len(short.encode())
        if cost <= room:
            room -= cost
            cases.append(full)
        else:
            cases.append(short)
    return head + "".join(cases) + tail


def _properties(results: Results) -> str:
    """The run's GPU use; GitLab passes over properties, others show them."""
    use = run_use(results)
    if use is None:
        return ""
    figures = {
        "gpu_memory_peak_bytes": use.memory_peak_bytes,
        "gpu_seconds": use.gpu_seconds,
        "gpu_energy_joules": use.energy_joules,
    }
    lines = [
        f"<property {_attributes({'name': name, 'value': f'{value:.0f}'})}/>\n"
        for name, value in figures.items()
        if value is not None
    ]
    return f"<properties>\n{''.join(lines)}</properties>\n" if lines else ""


def _case(results: Results, sample: SampleResult, name: str, *, text: str) -> str:
    attributes = {"classname": results.suite, "name": name, "time": f"{sample.seconds:.3f}"}
    if sample.passed:
        return f"<testcase {_attributes(attributes)}/>\n"
    element = "error" if sample.finish == "error" else "failure"
    return f"<testcase {_attributes(attributes)}><{element}>{escape(_legal(text or 'failed'))}</{element}></testcase>\n"


def _text(results: Results, sample: SampleResult) -> str:
    lines = [_cut(reason) for reason in reasons(sample, results.pass_score)]
    return "\n".join([*lines, "", "Answer:", _cut(sample.output)])


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + f" … ({len(text):,} characters)"


def _unique(names: list[str]) -> list[str]:
    """Names as GitLab will see them, made unique: it drops the second of two cases with one name."""
    seen: set[str] = set()
    unique = []
    for name in names:
        base = _legal(name)
        candidate, count = base, 1
        while candidate in seen:
            count += 1
            candidate = f"{base} ({count})"
        seen.add(candidate)
        unique.append(candidate)
    return unique


def _attributes(values: dict[str, str]) -> str:
    return " ".join(f"{name}={quoteattr(_legal(value))}" for name, value in values.items())


def _legal(text: str) -> str:
    """`text` in the characters of XML 1.0, without a tag that GitLab would take for an attachment."""
    return "".join(
        character if ord(character) not in {0xFFFE, 0xFFFF} else f"\\x{ord(character):x}"
        for character in harmless(text, newlines=True)
    ).replace("[[ATTACHMENT|", "[ [ATTACHMENT|")
