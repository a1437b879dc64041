"""One side of benchmarks/lm_eval_peer.py, in the environment that has lm-evaluation-harness (`make reference`).

`serve MODEL PORT CONTEXT THREADS`: llama-cpp-python's server, as its `gguf` model wants it. `ask KIND ARGUMENTS`: a
model of the harness, made with these arguments (JSON), computes the questions on the standard input (JSON: pairs of
context and continuation); prints one JSON object, `seconds` of computing and `answers`.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def serve(model: str, port: str, context: str, threads: str) -> None:
    """Answer until somebody ends it."""
    import llama_cpp  # noqa: PLC0415 - loads shared libraries
    from llama_cpp.server.__main__ import main  # noqa: PLC0415 - heavy

    original = llama_cpp.llama_model_default_params

    def parameters() -> Any:
        # Where the processor has AMX and GCC 12 built it, it would die of repacked weights; ours has none either.
        found = original()
        found.use_extra_bufts = False
        return found

    llama_cpp.llama_cpp.llama_model_default_params = parameters
    sys.argv = ["llama_cpp.server", "--model", model, "--host", "127.0.0.1", "--port", port, "--n_ctx", context]
    sys.argv += ["--n_threads", threads, "--n_threads_batch", threads, "--logits_all", "true", "--verbose", "false"]
    main()


def ask(kind: str, arguments: str) -> None:
    """Compute all questions."""
    import lm_eval.models  # noqa: F401, PLC0415 - heavy; lets the harness know its own models
    from gpurig.evaljobs.harness import register  # noqa: PLC0415 - heavy
    from lm_eval.api.instance import Instance  # noqa: PLC0415 - heavy
    from lm_eval.api.registry import get_model  # noqa: PLC0415 - heavy

    register()
    model = get_model(kind)(**json.loads(arguments))
    pairs = json.load(sys.stdin)
    requests = [Instance("loglikelihood", {}, tuple(pair), number) for number, pair in enumerate(pairs)]
    started = time.perf_counter()
    answers = model.loglikelihood(requests, disable_tqdm=True)
    print(json.dumps({"seconds": time.perf_counter() - started, "answers": answers}))


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
