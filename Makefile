# All set-up on a machine with Python 3.11 or 3.12, git and make: `make demo`, `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check format bench clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade --constraint constraints.txt "setuptools>=77"
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

setup: $(STAMP)  ## create .venv from the pinned constraints

demo: $(STAMP)  ## 15 synthetic hospitals, end to end: table, report.html, MLflow and Prefect stores in ./demo
	$(BIN)/fedhealth demo --workdir demo

test: $(STAMP)  ## the whole test suite, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/contract tests/property tests/unit
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/integration tests/e2e

test-fast: $(STAMP)  ## everything that takes less than about ten seconds
	$(BIN)/python -m pytest -m 'not slow'

check: $(STAMP)  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## rewrite the code the way `make check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)  ## one script per claim; each prints ratios measured in one run
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:  ## remove what the commands above made
	rm -rf $(VENV) demo build *.egg-info
