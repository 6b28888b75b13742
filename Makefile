# Every target does its own set-up: a virtual environment in the checkout, from the versions in constraints.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.etude-installed
.PHONY: demo test check lint types contract figures tests trackers acceptance bench gpu format clean

demo: $(STAMP)
	$(BIN)/etude demo

test: check

check: lint types contract figures tests

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

contract: $(STAMP)
	$(BIN)/lint-imports

figures: $(STAMP)
	$(BIN)/python tests/house/figures.py

tests: $(STAMP)
	# One thread a process: two processes share the machine.
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not acceptance" -n 2 --dist worksteal

trackers: $(STAMP)
	# MLflow and Weights & Biases as they are, in environments of their own; skipped where they cannot be installed.
	OMP_NUM_THREADS=1 $(BIN)/pytest -m acceptance tests/acceptance/test_trackers.py

acceptance: $(STAMP)
	$(BIN)/pytest -m acceptance -s

bench: $(STAMP)
	$(BIN)/python benchmarks/run_all.py

gpu: $(STAMP)
	# What only a GPU can show: synchronisations, speed, memory, utilisation; without one, a small rehearsal.
	$(BIN)/python benchmarks/gpu.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(STAMP): pyproject.toml constraints.txt
	command -v $(PYTHON) >/dev/null 2>&1 && $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,all]"
	touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .hypothesis
