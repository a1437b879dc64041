from __future__ import annotations

import re
import shlex

from gpurig.evaljobs.records import ModelRef
from gpurig.evaljobs.report import metrics_text
from gpurig.evaljobs.results import Metric
from hypothesis import given
from hypothesis import strategies as st
from standins.evalrun import results


def as_gitlab_reads(text: str) -> dict[str, str]:
    """Cut at `#`, split as a shell would, keep the first word and the second."""
    read = {}
    for line in text.splitlines():
        words = shlex.split(line.split("#")[0])
        if words:
            assert len(words) == 2, line
            assert words[0] not in read, line
            read[words[0]] = words[1]
    return read


def test_every_metric_is_read_back_with_its_value():
    assert as_gitlab_reads(metrics_text(results())) == {
        "pass_rate{suite=ci-jobs,model=demo-generator}": "0.600",
        "generated_rate{suite=ci-jobs,model=demo-generator}": "0.800",
        "check_pass_rate{check=gitlab-ci,suite=ci-jobs,model=demo-generator}": "1.000",
        "grade_mean{suite=ci-jobs,model=demo-generator}": "0.600",
        "tokens_per_second{suite=ci-jobs,model=demo-generator}": "123",
    }


def test_noise_below_the_third_decimal_does_not_show_as_a_change():
    one = results(metrics=(Metric(name="grade_mean", value=0.60001, n=5),))
    other = results(metrics=(Metric(name="grade_mean", value=0.60004, n=5),))
    assert metrics_text(one) == metrics_text(other)


def test_all_checks_and_one_kind_stay_apart():
    metrics = tuple(Metric(name=name, value=1.0, n=5) for name in ("check_pass_rate", "check_pass_rate.yaml"))
    assert len(as_gitlab_reads(metrics_text(results(metrics=metrics)))) == 2


@given(st.text(), st.text(min_size=1), st.floats(0, 1e6))
def test_any_name_stays_one_line_of_two_words(suite, model, value):
    run = results(
        suite=suite,
        generator=ModelRef(name=model, file="f", sha256="a", size_bytes=1),
        metrics=(Metric(name="pass_rate", value=value, n=5),),
    )
    text = metrics_text(run)
    assert text.count("\n") == 1
    assert re.fullmatch(r'pass_rate\{suite="[^"#\s]*",model="[^"#\s]*"\} [0-9.]+\n', text)
    assert len(as_gitlab_reads(text)) == 1
