# Everything a developer types. Each target makes the environment it needs in .venv; `make test` may be the first command.
#
#   make PYTHON=python3.12 test      choose the interpreter (default: the first of 3.11 or newer that is found)
#   make PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" setup      extra arguments for pip
#   make PYTEST_ARGS="-k reader" test

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
PIP_ARGS ?=
PYTEST_ARGS ?=
DEMO_OUT ?= runs/demo

# Wheels only: nothing is compiled here. torch and torchvision are resolved in one call, because their versions belong together.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --only-binary=:all: $(PIP_ARGS)

.PHONY: help setup demo test lint format bench effects docs clean

help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: $(VENV)/.dev ## make .venv with the package and the developer's tools

$(VENV)/.python:
	@chosen=""; \
	for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14 python; do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        chosen="$$candidate"; break; \
	    fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	    echo "No Python 3.11 or newer with the venv module was found. Install one, or name it: make PYTHON=/path/to/python setup" >&2; \
	    exit 1; \
	fi; \
	echo "environment: $(VENV), made with $$("$$chosen" --version)"; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then "$$chosen" -m venv --clear $(VENV); fi
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.python
	$(PIP) -e '.[dev,plots]'
	@touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(PIP) -e '.[docs]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) -e '.[bench]'
	@touch $@

demo: $(VENV)/.dev ## first light: make videos, train, evaluate, predict, report (runs/demo/report.html)
	$(BIN)/wholereel demo --resume --out $(DEMO_OUT)

test: $(VENV)/.dev ## the fast test suite
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev ## style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench ## all benchmarks (an hour on a small machine); each checks equality first and writes a result file
	$(BIN)/python benchmarks/reader.py
	$(BIN)/python benchmarks/video_level.py
	$(BIN)/python benchmarks/pack.py
	$(BIN)/python benchmarks/million_rows.py
	$(BIN)/python benchmarks/backbones.py operators
	$(BIN)/python benchmarks/backbones.py csn
	$(BIN)/python benchmarks/backbones.py networks
	$(BIN)/python benchmarks/long_stream.py

effects: $(VENV)/.dev ## learning effects over three seeds (hours on a small machine); writes benchmarks/results/
	$(BIN)/python benchmarks/effects.py memory_worlds --seeds 0 1 2 --out runs/effects
	for table in xor key_frame by_count; do $(BIN)/python benchmarks/feature_tasks.py $$table; done
	$(BIN)/python benchmarks/motion.py task
	$(BIN)/python benchmarks/motion.py filters
	$(BIN)/python benchmarks/motion.py ablation
	$(BIN)/python benchmarks/motion.py length
	$(BIN)/python -m pytest -m effects tests/effects

docs: $(VENV)/.docs ## the documentation (docs/_build/html), warnings are errors, examples are run
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python -m sphinx -W -q -b doctest docs docs/_build/doctest
	@echo "open docs/_build/html/index.html"

clean: ## remove caches and built pages (not .venv, not runs)
	rm -rf docs/_build build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
