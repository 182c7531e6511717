# musecal: everything that is done to the project. `make demo` and `make test` set up what they need, without root.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CHANNELS ?= 11-13
DEMO ?= demo
PROCESSES ?= auto
# Twice, in test: processes that held full-size frames are larger than the limits that other tests set themselves.
PARALLEL = $(BIN)/pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
DEBIAN_REFEREE := esorex cpl-plugin-muse
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.DEFAULT_GOAL := help
.PHONY: help demo test fast check lint types layers referee benchmark docs clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "musecal needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Give another: make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) cannot make virtual environments; install python3-venv, or give another Python: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[embedded,plot,dev]'
	touch $@

demo: $(VENV)/installed  ## a simulated night through the whole daemon, with its report (CHANNELS=1-24 for the full instrument)
	$(BIN)/musecal demo $(DEMO) --channels $(CHANNELS)

test: check  ## every check and every test
	$(PARALLEL) -m 'not full'
	$(PARALLEL) -m full

fast: $(VENV)/installed  ## the tests that take seconds
	$(BIN)/pytest -m 'not full and not referee'

check: lint types layers  ## ruff, mypy and the layers

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

layers: $(VENV)/installed
	$(BIN)/lint-imports

referee: $(VENV)/installed  ## compare with ESO's own recipes; installs their Debian packages
	command -v esorex >/dev/null && dpkg -s cpl-plugin-muse >/dev/null 2>&1 || $(SUDO) sh -c 'apt-get update -q && apt-get install -q -y --no-install-recommends $(DEBIAN_REFEREE)'
	$(BIN)/pytest -m referee

benchmark: $(VENV)/installed  ## CPU seconds and memory of each recipe, beside ESO's; how soon a step runs, and a tree is found
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.instrument
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.retrieval

docs: $(VENV)/installed  ## write the pages that are made from the code
	$(BIN)/python tests/command_reference.py > docs/command-line.md

clean:  ## remove the demonstration and what tools left
	rm -rf $(DEMO) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
