# make repro: set everything up and run the default tasks end to end.   make test: set up, lint, types and tests.
# make docs: the documentation as a site, in site/.
# make tables TASK=mnist5k: every row of a task with three seeds, beside the paper's values.
PYTHON ?= python3
TASK ?= mnist5k
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# idle OpenMP threads sleep: two teams that spin make loops over small tensors many times slower
export OMP_WAIT_POLICY := PASSIVE
export DVC_NO_ANALYTICS := true
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

.PHONY: repro tables test lint docs bench faults setup clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

repro: setup
	. $(BIN)/activate && dvc repro

tables: setup
	. $(BIN)/activate && python -m experiments.tables $(TASK)

test: setup lint
	. $(BIN)/activate && python -m pytest -q --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MKDOCS) --quiet --site-dir "$$(mktemp -d)"

docs: setup
	$(MKDOCS)

bench: setup
	. $(BIN)/activate && python -m benchmarks

faults: setup
	. $(BIN)/activate && python -m tests.faults.campaign

clean:
	rm -rf $(VENV)
