# `make demo` and `make test` make what they need: an environment in .venv with this package in it.
# A machine with a GPU installs its own PyTorch first: python3 -m venv .venv && .venv/bin/pip install torch
VENV ?= .venv
PYTHON ?= python3
PIP_FLAGS ?=
BIN := $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/installed
	rm -rf demo-run
	$(BIN)/counterpoint run prrfl phantom --rounds 6 --local-epochs 3 --image-size 48 \
	    --batch-size 8 --momentum 0.9 --out demo-run
	@echo
	@echo "Look at demo-run/retrogress.png: the score of every site against communications."

test: $(VENV)/installed lint
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check src tests studies
	$(BIN)/ruff format --check src tests studies
	$(BIN)/mypy

# The constraints hold PyTorch to one version unless the environment has a PyTorch of its own.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	if $(BIN)/python -c 'import torch' 2>/dev/null; \
	    then $(BIN)/python -m pip install -q $(PIP_FLAGS) -e '.[test]'; \
	    else $(BIN)/python -m pip install -q $(PIP_FLAGS) -c constraints.txt -e '.[test]'; fi
	touch $@

clean:
	rm -rf $(VENV) demo-run
