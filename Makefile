# Everything runs in .venv; a target installs what it needs first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Modules whose annotated shapes are checked while their tests run.
SHAPED := gnncompose.encoding,gnncompose.packing,gnncompose.envs,gnncompose.policies
# Each process imports torch and holds tasks: more than four would not fit a small machine.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile
export OMP_NUM_THREADS ?= 1

.PHONY: help demo docs test test-slow test-builds check clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.installed-tasks  ## Build the default task, search it on real ONNX execution, print the table (about 3 minutes)
	$(BIN)/gnncompose search +experiment=demo

docs: $(VENV)/.installed-dev  ## Build the documentation: site/index.html
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . site

test: $(VENV)/.installed-dev  ## The fast test suite
	$(BIN)/python -m pytest -m "not slow and not builds" $(SIDE_BY_SIDE)

test-slow: $(VENV)/.installed-dev  ## What needs minutes, and tensor shapes checked at run time
	$(BIN)/python -m pytest -m slow --numprocesses auto --maxprocesses 2 --dist loadfile
	$(BIN)/python -m pytest --jaxtyping-packages=$(SHAPED),beartype.beartype tests/unit/test_policy.py tests/contract/test_env__compose.py

check: $(VENV)/.installed-dev  ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test-builds: $(VENV)/.installed-dev  ## Build tasks of tables and series whole and test them (10 minutes and more)
	$(BIN)/python -m pytest -m builds

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis dist site

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("gnncompose needs Python 3.11 to 3.13; set PYTHON=") if not (3, 11) <= sys.version_info < (3, 14) else None'
	$(PYTHON) -m venv $(VENV)

# The stamps make a target reinstall only where pyproject.toml changed.
$(VENV)/.installed-tasks: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[tasks]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[tasks,peers,serve,adapt,dev]'
	touch $@ $(VENV)/.installed-tasks
