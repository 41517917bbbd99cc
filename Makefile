# Each target sets up what it needs: a virtual environment in .venv with the exact versions of
# constraints.txt. Python 3.11 or newer, pip and make are all that has to be there.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The first of these that runs and is new enough is taken; `make PYTHON=...` overrides.
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3.11 python3 python)
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help setup demo examples test lint format clean distclean

help:  ## say what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup: $(STAMP)  ## create .venv and install the package with its tools (the others do it too)

demo: $(STAMP)  ## fit six Gaussians and a real table; pictures go to demo/
	$(BIN)/liouville demo -o demo

examples: $(STAMP)  ## run every example and make examples/README.md anew (some 25 minutes)
	$(BIN)/python examples/run_all.py

test: $(STAMP)  ## run the tests
	$(BIN)/python -m pytest

lint: $(STAMP)  ## check format, style, types and docstrings; change nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	find src -name '*.py' -exec $(BIN)/numpydoc lint {} +

format: $(STAMP)  ## format the code and fix what can be fixed mechanically
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what the other targets made, but for .venv
	rm -rf demo dist .pytest_cache .ruff_cache
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## remove .venv as well
	rm -rf $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(BIN)/python:
	@for python in $(CANDIDATES); do \
	  if "$$python" -c '$(IS_NEW_ENOUGH)' >/dev/null 2>&1; then \
	    echo "Creating $(VENV) with $$("$$python" --version)"; \
	    exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo "Expected Python 3.11 or newer, found none among: $(CANDIDATES); try make PYTHON=/path/to/python3.11." >&2; \
	exit 1
