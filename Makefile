# Each target sets up what it needs: a virtual environment in .venv with the exact versions of
# constraints.txt. Python 3.11 or newer, pip and make are all that has to be there.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-peers
# The first of these that runs and is new enough is taken; `make PYTHON=...` overrides.
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3.11 python3 python)
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help setup demo examples images bench bench-quick test test-all lint format clean distclean

help:  ## say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-11s %s\n", $$1, $$2 }'

setup: $(STAMP)  ## create .venv and install the package with its tools (the others do it too)

demo: $(STAMP)  ## fit six Gaussians and a real table; pictures go to demo/
	$(BIN)/liouville demo -o demo

examples: $(STAMP)  ## run every example and make examples/README.md anew (half an hour)
	$(BIN)/python examples/run_all.py

images: $(STAMP) $(PEERS)/.installed  ## learn pictures by the papers' recipes, in hours; make benchmarks/images.md anew
	$(BIN)/python benchmarks/images.py

bench: $(STAMP) $(PEERS)/.installed  ## measure beside other libraries, in hours; make benchmarks/README.md anew
	$(BIN)/python benchmarks/likelihood_step.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/roofline.py
	$(BIN)/python benchmarks/regression.py
	$(BIN)/python benchmarks/run.py

bench-quick: $(STAMP) $(PEERS)/.installed  ## the same, small: two targets in under 10 minutes
	$(BIN)/python benchmarks/run.py --quick

test: $(STAMP)  ## run the tests, but for those marked slow (some ten minutes on 2 cores)
	$(BIN)/python -m pytest

test-all: $(STAMP)  ## run all tests: examples, pictures' recipes and other long fits, too (some twenty minutes)
	$(BIN)/python -m pytest -m ""

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

distclean: clean  ## remove the environments as well
	rm -rf $(VENV) $(PEERS)

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

# torchcfm asks for torchvision, whose wheels do not all fit the CPU build of torch; nothing here uses it. ngboost asks
# for a scikit-learn below 1.7 on most Pythons, and runs by the newer one: what else it needs is in the list.
$(PEERS)/.installed: benchmarks/peers/requirements.txt | $(STAMP)
	$(BIN)/python -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps ngboost==0.6.0
	$(PEERS)/bin/python -m pip uninstall --quiet --yes torchvision
	@touch $@
