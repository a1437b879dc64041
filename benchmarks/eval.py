"""`make bench NAME=eval`: how fast a large suite is checked and reported, how often gate and judge are wrong.

- 10,000 samples with 5 string checks, answered by a rule: seconds and memory of `check` and `report` together, each a
  process of its own, as in a job.
- report.html of 5,000 samples in a real Chromium, from a file: seconds until it is loaded.
- The gate's rule no_regression over 10,000 pairs of runs that are no worse, and 10,000 with a true loss of 10 points on
  100 samples; beside the power that the report claims.
- The bundled grader against people's verdicts on 240 answers.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from gpurig.common.process import run
from gpurig.common.terminal import table
from gpurig.evaljobs import stages
from gpurig.evaljobs.report import html_report
from gpurig.evaljobs.reporting import run_report
from gpurig.evaljobs.suites.trials import trials_of
from measuring import machine, versions, write
from standins.ab_runs import claimed_power, failing_rate
from standins.browser import find_browser, started_browser
from standins.eval_box import EvalBox
from standins.evalrun import failed_sample, results, sample
from standins.scripted_engine import ScriptedProvider

SAMPLES, SHOWN, DRAWS = 10_000, 5_000, 10_000
SUITE = Path(__file__).parents[1] / "examples" / "ci-jobs"
_LOADED = "const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd - t.startTime"


def main() -> None:
    """Measure, print, write."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        box = _box(root / "large")
        stages.generate(box.settings(ScriptedProvider()))
        parts = [_in_process(part, box.root) for part in ("check", "report")]
        figures["check_report_10k_s"] = sum(part["seconds"] for part in parts)
        figures["check_report_10k_mb"] = max(part["rss_mb"] for part in parts)
        figures["html_5k_open_s"] = _open_s(root / "report.html")
        figures |= _judge(root / "judge")
    figures["aa_flip_rate"] = failing_rate(DRAWS, 100, lost=0.1, gained=0.1, seed=11)
    figures["power_claimed"] = claimed_power(100, lost=0.15, gained=0.05)
    figures["power_found"] = failing_rate(DRAWS, 100, lost=0.15, gained=0.05, seed=12)
    wanted = {
        "check_report_10k_s": "< 10",
        "check_report_10k_mb": "< 500",
        "html_5k_open_s": "< 2",
        "aa_flip_rate": "≤ 0.05",
        "power_found": "near power_claimed",
        "judge_kappa": "",
        "judge_true_negative_rate": "",
    }
    rows = [[name, f"{value:.3f}", wanted.get(name, "")] for name, value in figures.items()]
    print(table(["figure", "measured", "wanted"], rows))
    write("eval", figures | {"machine": machine(), "versions": versions(("jsonschema", "jinja2", "numpy"))})


def _box(root: Path) -> EvalBox:
    root.mkdir()
    checks = [{"contains": "script"}, {"not-contains": "only:"}, {"regex": "echo \\d+"}, {"starts-with": "job"}]
    data = {
        "version": 1,
        "name": "large",
        "generator": {"model": "writer", "prompt": "{{ input }}:", "sampling": {"max_tokens": 12}},
        "checks": [*checks, {"length": {"max": 500}}],
        "samples": "samples.jsonl",
    }
    lines = (json.dumps({"id": f"s{number}", "input": f"job {number}"}) for number in range(SAMPLES))
    (root / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return EvalBox(root, data)


def _in_process(part: str, root: Path) -> dict[str, float]:
    done = run([sys.executable, __file__, part, str(root)], timeout_s=600)
    if done.code:
        raise SystemExit(f"{part} ended with {done.code}:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(part: str, root: Path) -> dict[str, float]:
    """One stage, in this process, the suite's reading included."""
    started = time.perf_counter()
    box = EvalBox.__new__(EvalBox)
    box.root = root
    if part == "check":
        stages.check(box.settings(ScriptedProvider()))
    else:
        suite = box.suite()
        run_report(suite, box.out, trials=trials_of(suite))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}


def _open_s(page: Path) -> float:
    many = tuple((failed_sample if number % 7 == 0 else sample)(f"s{number}") for number in range(SHOWN))
    page.write_text(html_report(results(many)), encoding="utf-8")
    paths = find_browser()
    if paths is None:
        raise SystemExit("no Chromium with its driver (Debian: chromium, chromium-driver)")
    with started_browser(paths) as browser:
        times = []
        for _ in range(3):
            browser.open(page.as_uri())
            times.append(float(browser.run(_LOADED)) / 1000)
    return sorted(times)[1]


def _judge(out: Path) -> dict[str, float]:
    job = Path(sys.executable).with_name("gpurig-job")
    done = run([str(job), "calibrate", str(SUITE), "--out", str(out)], timeout_s=600)
    if done.code:
        raise SystemExit(f"calibrate ended with {done.code}:\n{done.stderr[-2000:]}")
    found = json.loads((out / "judge.json").read_text(encoding="utf-8"))
    return {"judge_kappa": found["kappa"], "judge_true_negative_rate": found["true_negative_rate"]}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measured(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()
