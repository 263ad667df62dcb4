# `make demo` and `make test` make what they need: an environment in .venv with this package in it.
# A machine with a GPU installs its own PyTorch first: python3 -m venv .venv && .venv/bin/pip install torch
VENV ?= .venv
PYTHON ?= python3
PIP_FLAGS ?=
BIN := $(VENV)/bin

.PHONY: demo test lint browser docs clean

demo: $(VENV)/installed
	rm -rf demo-run
	$(BIN)/counterpoint run prrfl phantom --rounds 6 --local-epochs 3 --image-size 48 \
	    --batch-size 8 --momentum 0.9 --out demo-run
	@echo
	@echo "Look at demo-run/retrogress.png: the score of every site against communications."

test: $(VENV)/installed lint browser
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/installed
	$(BIN)/ruff check src tests studies docs benchmarks
	$(BIN)/ruff format --check src tests studies docs benchmarks
	$(BIN)/mypy

# The report's page is tested in a Chromium; without one, those tests say so and are skipped.
browser:
	@for name in "$$CHROMIUM" chromium chromium-browser google-chrome google-chrome-stable; do \
	    if command -v "$$name" >/dev/null 2>&1; then exit 0; fi; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing chromium, in which the report is tested"; \
	    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y \
	        --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 \
	        || echo "chromium could not be installed: tests in a browser will be skipped"; \
	else echo "no chromium found (CHROMIUM names one): tests in a browser will be skipped"; fi

# The site, in site/: open site/index.html. A link, anchor or name that leads nowhere is an error.
docs: $(VENV)/installed
	$(BIN)/python docs/figures.py
	PYTHONPATH=docs $(BIN)/zensical build --strict --clean

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
	rm -rf $(VENV) demo-run site .cache
