"""`make bench NAME=provisioning`: how fast a box is set up, how fast it is looked at, and what faults leave behind.

Measured on a real Docker Engine against the tests' GitLab and runner (GPURIG_GITLAB_RUNNER names a real gitlab-runner's
binary), and with eight GPUs on the tests' NVML library, which is what the vendor's binding loads.

The peer of the first `up` is the least that anybody must do by hand after GitLab's documentation: create the runner by
API, write config.toml, start the container, wait until GitLab says "online". It looks at no hardware, checks nothing,
keeps no state, and can be taken back by nobody; what `up` takes longer is the price of that. No tool that could be
installed here sets up a GPU runner.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import docker
import requests
from gpurig.common.process import Finished, run
from gpurig.common.terminal import table
from measuring import machine, median_s, seconds, versions, write
from standins import images
from standins.convergence import CAUSES, SCENARIOS, Outcome, try_every_fault
from standins.gitlab import GitLab
from standins.nvml import FakeNvml, build_library

ROUNDS = int(os.environ.get("GPURIG_BENCH_ROUNDS", "5"))
PACKAGES = ("docker", "python-gitlab", "nvidia-ml-py", "pydantic")


def main() -> None:
    """Measure, print, write."""
    figures: dict[str, Any] = {}
    figures |= detecting()
    figures |= setting_up()
    figures |= faults()
    figures |= {"rounds": ROUNDS, "machine": machine(), "versions": versions(PACKAGES)}
    rows = [
        ["first up to online", f"{figures['up_first_s']:.2f} s", "< 5 s"],
        ["  by hand: API, config.toml, docker run", f"{figures['by_hand_s']:.2f} s", "peer (floor)"],
        ["second up, nothing to do", f"{figures['up_again_s']:.2f} s", "< 1 s"],
        ["detect, 8 GPUs, whole command", f"{figures['detect_8gpu_ms']:.0f} ms", "< 200 ms"],
        ["  looking at them alone", f"{figures['detect_8gpu_inside_ms']:.0f} ms", ""],
        ["  gpurig --version (the interpreter's start)", f"{figures['start_ms']:.0f} ms", ""],
        ["faults injected, token of scope api", str(figures["faults_injected"]), ""],
        ["  healed by the next up", str(figures["healed"]), "all"],
        ["  orphans left in GitLab", str(figures["orphans_left"]), "0"],
        ["faults injected, scope create_runner alone", str(figures["faults_injected_narrow"]), ""],
        ["  healed by the next up", str(figures["healed_narrow"]), "all"],
        ["  orphans left, not told", str(figures["orphans_untold_narrow"]), "0"],
        ["  orphans left, told by name", str(figures["orphans_told_narrow"]), "see below"],
        *([f"    {text}", str(figures[f"orphans_narrow_{cause}"]), ""] for cause, text in CAUSES.items()),
        ["  of these after one up with scope api", str(figures["orphans_undeletable_narrow"]), "0"],
    ]
    print(table([f"provisioning, median of {ROUNDS}", "measured", "wanted"], rows))
    print(
        "\nWith scope create_runner alone a runner is deleted by its own token, and by nothing\n"
        "else. Where that token is lost, or has run out, nobody can (docs/decisions.md): up tells\n"
        "the runner's name, and deletes it as soon as it is given a wider token."
    )
    write("provisioning", figures)


def gpurig(*words: str, env: dict[str, str] | None = None) -> Finished:
    """A command as a user runs it; ends the benchmark where it fails."""
    done = run([sys.executable, "-m", "gpurig.runner", *words], timeout_s=900, env=env)
    if done.code:
        sys.exit(f"gpurig {' '.join(words)} ended with {done.code}:\n{done.stdout}{done.stderr}")
    return done


def detecting() -> dict[str, float]:
    """`gpurig detect` on a box with eight cards."""
    with tempfile.TemporaryDirectory() as folder:
        fake = FakeNvml(build_library(Path(folder)), Path(folder) / "nvml.txt")
        card = {"name": "NVIDIA GeForce RTX 4090", "compute": "8.9", "memory_total": 24564 * 2**20, "mig_mode": 0}
        cards = [{**card, "uuid": f"GPU-{n}", "pci": f"00000000:0{n}:00.0"} for n in range(1, 9)]
        fake.set({"driver": "580.95.05", "nvml": "13.580.95.05", "cuda": 13000, "gpu": cards})
        env = fake.environment()
        seen = json.loads(gpurig("detect", "--json", env=env).stdout)
        if len(seen["gpus"]) != len(cards):
            sys.exit(f"detect saw {len(seen['gpus'])} of {len(cards)} GPUs")
        inside = "import time; from gpurig.provisioning.detect import detect; start = time.perf_counter(); detect(); "
        inside += "print(time.perf_counter() - start)"

        def alone() -> float:
            return float(run([sys.executable, "-c", inside], timeout_s=60, env=env).stdout)

        return {
            "detect_8gpu_ms": 1000 * median_s(lambda: gpurig("detect", "--json", env=env), ROUNDS),
            "detect_8gpu_inside_ms": 1000 * statistics.median(alone() for _ in range(ROUNDS)),
            "start_ms": 1000 * median_s(lambda: gpurig("--version"), ROUNDS),
        }


def setting_up() -> dict[str, float]:
    """`gpurig up` with all images present: the first, and one with nothing to do; and the least by hand."""
    engine = docker.from_env(timeout=600)
    base = os.environ.get("GPURIG_BASE_IMAGE", "gpurig-base:bookworm")
    address = str(engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"])
    binary = os.environ.get("GPURIG_GITLAB_RUNNER")
    image = images.real_runner(engine, base, Path(binary)) if binary else images.standin_runner(engine, base)
    name = f"bench-{secrets.token_hex(4)}"
    firsts, agains, hands = [], [], []
    with GitLab(address) as gitlab, tempfile.TemporaryDirectory() as folder, cleaned(engine, name):
        project = gitlab.add_project("lab/llm")
        token = gitlab.add_token("api")
        token_file = Path(folder) / "token"
        token_file.write_text(token)
        where = ("--root", folder, "--name", name)
        options = (*where, "--url", gitlab.url, "--project", str(project.id), "--token-file", str(token_file), "--cpu")
        options += ("--runner-image", image, "--base-image", base, "--metrics-listen", "off")
        options += ("--http-proxy", "", "--https-proxy", "")
        gpurig("up", *options)  # builds what is missing
        gpurig("down", "--unregister", *where)
        for _ in range(ROUNDS):
            firsts.append(seconds(lambda: gpurig("up", *options)))
            agains.append(seconds(lambda: gpurig("up", *options)))
            gpurig("down", "--unregister", *where)
            hands.append(
                seconds(
                    lambda: by_hand(
                        engine, gitlab, project.id, token=token, image=image, folder=Path(folder), name=name
                    )
                )
            )
            for one in engine.containers.list(all=True, filters={"label": f"gpurig.instance={name}"}):
                one.remove(force=True, v=True)
    engine.close()
    return {
        "up_first_s": statistics.median(firsts),
        "up_again_s": statistics.median(agains),
        "by_hand_s": statistics.median(hands),
    }


@contextlib.contextmanager
def cleaned(engine: docker.DockerClient, name: str) -> Iterator[None]:
    """Leave no container of the benchmark behind."""
    try:
        yield
    finally:
        for one in engine.containers.list(all=True, filters={"label": f"gpurig.instance={name}"}):
            one.remove(force=True, v=True)


def by_hand(
    engine: docker.DockerClient, gitlab: GitLab, project: int, *, token: str, image: str, folder: Path, name: str
) -> None:
    """The least: one API call, one file, one container, and asking until GitLab says "online"."""
    url, headers = gitlab.url, {"PRIVATE-TOKEN": token}
    body = {"runner_type": "project_type", "project_id": project, "tag_list": ["cpu"]}
    made = requests.post(f"{url}/api/v4/user/runners", json=body, headers=headers, timeout=20).json()
    config = folder / "by-hand"
    config.mkdir(exist_ok=True)
    (config / "config.toml").write_text(
        f'concurrent = 1\n[[runners]]\nname = "by hand"\nurl = "{url}"\nid = {made["id"]}\ntoken = "{made["token"]}"\n'
        'executor = "docker"\n[runners.docker]\nimage = "none"\n'
    )
    engine.containers.run(
        image,
        detach=True,
        network_mode="host",
        labels={"gpurig.instance": name},
        volumes={
            str(config): {"bind": "/etc/gitlab-runner", "mode": "rw"},
            "/var/run/docker.sock": {"bind": "/var/run/docker.sock", "mode": "rw"},
        },
    )
    while requests.get(f"{url}/api/v4/runners/{made['id']}", headers=headers, timeout=20).json()["status"] != "online":
        time.sleep(0.05)


def faults() -> dict[str, Any]:
    """Every call of `up` failing and dying in turn, in every scenario, with both kinds of token."""
    wide, narrow = ([try_every_fault(name, wide=kind) for name in SCENARIOS] for kind in (True, False))

    def total(outcomes: list[Outcome], what: str) -> int:
        return sum(int(getattr(one, what)) for one in outcomes)

    return {
        "scenarios": len(SCENARIOS),
        "faults_injected": total(wide, "injected"),
        "healed": total(wide, "healed"),
        "orphans_left": total(wide, "orphans"),
        "faults_injected_narrow": total(narrow, "injected"),
        "healed_narrow": total(narrow, "healed"),
        "orphans_told_narrow": total(narrow, "orphans") - total(narrow, "untold"),
        "orphans_untold_narrow": total(narrow, "untold"),
        **{f"orphans_narrow_{cause}": sum(one.causes[cause] for one in narrow) for cause in CAUSES},
        "orphans_undeletable_narrow": total(narrow, "undeletable"),
    }


if __name__ == "__main__":
    main()
