# Two commands do everything: `make demo` and `make test`. Each target creates .venv and installs what it needs, once.
# PYTHON=/path/to/python3.11 chooses the interpreter for .venv.
PYTHON ?= python3
BIN := .venv/bin
# Waiting threads sleep: on a shared machine, spinning costs several times what it gains.
RUN := OMP_NUM_THREADS=$(shell nproc) OMP_WAIT_POLICY=passive $(BIN)
.DEFAULT_GOAL := help

.PHONY: help demo app test check format bench smoke pins clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/installed-train ## Build the synthetic set, pretrain, evaluate, and print runs/demo/report.md
	$(BIN)/python -m data_scripts.build --source synthetic --num_patients 300 --num_proc 2 --out data/synthetic --overwrite
	$(RUN)/accelerate launch --quiet --num_processes 1 train/pretrain.py train/configs/demo.yaml --overwrite
	@cat runs/demo/report.md
	@echo "Made runs/demo: checkpoint, metrics.json, report.md, figures"

smoke: .venv/installed-train ## Run the steps of `make demo` in under a minute, to check that they work; the numbers mean nothing
	$(BIN)/python -m data_scripts.build --source synthetic --num_patients 24 --out data/smoke --overwrite
	$(RUN)/accelerate launch --quiet --num_processes 1 train/pretrain.py train/configs/smoke.yaml --overwrite

app: .venv/installed-app ## Try a checkpoint in the browser: the one from `make demo`, or CHECKPOINT=folder-or-Hub-id
	$(BIN)/python app.py --checkpoint $(or $(CHECKPOINT),runs/demo/checkpoint)

# Several single-threaded processes; PYTEST_ARGS="-n 0" runs one, for debugging.
test: .venv/installed-dev ## Run all tests; PYTEST_ARGS='-m "not slow"' for the quick ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

check: .venv/installed-dev ## Check format, lint, types and import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev ## Fix formatting, and lint where it can be fixed automatically
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/installed-dev ## Benchmark loss, trainer, build and probe against alternatives; run `make demo` first
	$(BIN)/python tests/benchmarks/bench_losses.py
	$(BIN)/python tests/benchmarks/bench_training.py
	$(BIN)/python -m tests.benchmarks.bench_build
	$(BIN)/python tests/benchmarks/bench_probe.py  # needs the checkpoint of `make demo`

# Cython builds pyjpegls where it has no wheel (Python 3.14).
PIN_ARGS ?= --upgrade
pins: | $(BIN)/python ## Renew constraints.txt: the newest versions that setup.cfg allows; PIN_ARGS= keeps those that fit
	$(call install_pinned,uv)
	printf 'cython\nuv\n' | $(BIN)/uv pip compile --quiet $(PIN_ARGS) --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-annotate --custom-compile-command 'make pins' \
		setup.cfg --extra dev - --output-file constraints.txt

clean: ## Remove .venv, data, runs and experiments
	rm -rf .venv data runs experiments

# constraints.txt holds the hash of every file that pip installs or builds with. --require-hashes would also demand one
# for the project's folder; from pip 26.3 on, --no-require-hashes checks every hash that is given.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
install_pinned = sed -n '/^$(1)==/,/[^\\]$$/p' constraints.txt | $(PIP) --require-hashes --requirement /dev/stdin
.venv/installed-%: setup.cfg constraints.txt | $(BIN)/python
	$(call install_pinned,pip)
	$(PIP) --quiet --no-require-hashes --constraint constraints.txt --build-constraint constraints.txt --editable '.[$*]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv
