# `make demo` and `make test` do all set-up by themselves: Python 3.11 or later with pip and venv is all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test long-tests docs-commands check lint format clean-venv help
.DEFAULT_GOAL := help

help:            ## Say what there is.
	@sed -n 's/^\([a-z-]*\): .*## /make \1\t/p' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Find a winning ticket on handwritten digits, beside its controls (under 3 minutes).
	$(BIN)/lottery-tickets demo

test: $(INSTALLED) ## Run all tests: tests/, the doctests of src/, the examples of README.md and docs/.
	$(BIN)/pytest -n 3

long-tests: $(INSTALLED) ## Run the tests that wait: for schedulers that are stopped or lost, for trainings that are killed.
	$(BIN)/pytest -n 2 -m long tests

docs-commands: $(INSTALLED) ## Type what the pages show: their code and commands, page by page, with short trainings.
	$(BIN)/pytest -n 2 -m commands tests/pages

check: lint test docs-commands ## Run every gate.

lint: $(INSTALLED) ## Run the gates that only read: format, rules, types, layers.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED) ## Format, and mend what can be mended automatically.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean-venv:      ## Remove the environment.
	rm -rf $(VENV)

# torch comes first, alone and pinned, so that a pip that knows a CPU build of this version (PIP_FIND_LINKS,
# PIP_EXTRA_INDEX_URL) takes that one; a newer version in its place takes gigabytes of GPU libraries.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev]'
	touch $@
