# Two commands do all: `make demo` and `make test`. Each target makes .venv and installs what it needs, once.
# PYTHON=/path/to/python3.11 chooses the interpreter for .venv.
PYTHON ?= python3
BIN := .venv/bin
# Waiting threads sleep: on a machine that others use too, spinning ones cost several times what they gain.
RUN := OMP_NUM_THREADS=$(shell nproc) OMP_WAIT_POLICY=passive $(BIN)
.DEFAULT_GOAL := help

.PHONY: help demo app test check format bench smoke clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/installed-train ## Build the synthetic set, pretrain, evaluate; then look at runs/demo/report.md
	$(BIN)/python -m data_scripts.build --source synthetic --num_patients 300 --num_proc 2 --out data/synthetic --overwrite
	$(RUN)/accelerate launch --num_processes 1 train/pretrain.py train/configs/demo.yaml --overwrite
	@cat runs/demo/report.md
	@echo "Made runs/demo: checkpoint, metrics.json, report.md, figures"

smoke: .venv/installed-train ## The same path in under a minute, to see that it works; its numbers mean nothing
	$(BIN)/python -m data_scripts.build --source synthetic --num_patients 24 --out data/smoke --overwrite
	$(RUN)/accelerate launch --num_processes 1 train/pretrain.py train/configs/smoke.yaml --overwrite

app: .venv/installed-app ## Try a checkpoint in the browser: that of `make demo`, or CHECKPOINT=folder-or-Hub-id
	$(BIN)/python app.py --checkpoint $(or $(CHECKPOINT),runs/demo/checkpoint)

# Several processes of one thread each; PYTEST_ARGS="-n 0" for one, to debug.
test: .venv/installed-dev ## Run all tests; PYTEST_ARGS='-m "not slow"' for the quick ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

check: .venv/installed-dev ## Format, lint, types and import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev ## Mend format and what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/installed-dev ## Measure loss, trainer, build and probe beside their neighbours; after make demo
	$(BIN)/python tests/benchmarks/bench_losses.py
	$(BIN)/python tests/benchmarks/bench_training.py
	$(BIN)/python -m tests.benchmarks.bench_build
	$(BIN)/python tests/benchmarks/bench_probe.py  # of the checkpoint of `make demo`

clean: ## Remove .venv, data, runs and experiments
	rm -rf .venv data runs experiments

.venv/installed-%: setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$*]'
	touch $@
