# `make demo` and `make test` do everything on a fresh machine with Python >= 3.11 and its venv module.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test processes; each runs torch on one thread (tests/conftest.py).
WORKERS ?= 2

PROMPT ?= a small cactus with a happy face in the desert
PICTURE ?= cactus.png

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check lint types imports format hooks clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

# The stamps make the second call quick; a change of pyproject.toml installs again.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python %d.%d is too old; at least 3.11 is needed (make PYTHON=python3.11)" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	@echo "Installing into $(VENV); the first time takes some minutes."
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.created
	@echo "Installing into $(VENV); the first time takes some minutes."
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(VENV)/.installed $@

demo: $(VENV)/.installed ## Make a picture with the model in the package
	$(BIN)/pixart-sigma generate "$(PROMPT)" -o $(PICTURE)
	@echo "The picture is at $(abspath $(PICTURE))"

test: $(VENV)/.installed-dev ## Run the tests
	$(BIN)/python -m pytest -n $(WORKERS)

test-slow: $(VENV)/.installed-dev ## Run the slow tests (minutes; they use the package index)
	$(BIN)/python -m pytest -m slow

check: lint types imports test ## Everything: lint, types, imports, tests

lint: $(VENV)/.installed-dev ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-dev ## mypy, strict, on src
	$(BIN)/mypy

imports: $(VENV)/.installed-dev ## import-linter: the layers
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## Rewrite with ruff
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

hooks: $(VENV)/.installed-dev ## Install the pre-commit hooks
	$(BIN)/pre-commit install

clean: ## Remove the environment and the caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
