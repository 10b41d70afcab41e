# Each target sets up .venv by itself. Another interpreter: make PYTHON=python3.12 test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARTS := attribution callbacks conf data models train.py
# Newer than pyproject.toml and constraints.txt exactly when .venv holds what they ask for.
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-bench
# bergson asks for torchvision and torchaudio, which no CPU index has for the torch that is pinned here.
BERGSON := .venv-bergson

.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint style types docs bench clean

help: ## Show this list
	@echo "twinlens: make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' Makefile
	@echo "Installs what constraints.txt pins. On a machine without a GPU, PIP_EXTRA_INDEX_URL may name the CPU wheel"
	@echo "index of PyTorch, which spares the download of the CUDA libraries."

demo: $(INSTALLED) ## Fine-tune, attribute, evaluate and report on the generated demo data, offline, on the CPU
	$(BIN)/python train.py

# mypy runs beside the tests: before them it would leave one of two processors idle.
test: style ## Run linters, type checks and the test suite, on two processes
	@$(MAKE) --no-print-directory types & types=$$!; \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal; suite=$$?; \
		wait $$types && exit $$suite

test-long: $(INSTALLED) ## Run the long series of kills, damage and random inputs, on two processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m long

lint: style types ## Run ruff and mypy

style: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(INSTALLED)
# mypy reads the package as it is imported, which in a checkout only the search path of twinlens/ puts together.
	@mkdir -p build/typed/twinlens
	@ln -sfn $(PARTS:%=$(CURDIR)/%) $(CURDIR)/twinlens/*.py build/typed/twinlens
	$(BIN)/mypy

docs: $(INSTALLED) ## Build the documentation site, build/site/html/index.html; a warning is a failure
	$(BIN)/python -m docs.site

bench: $(BENCH_INSTALLED) $(BERGSON)/.installed ## Time twinlens against its peers; results in benchmarks/results
	$(BIN)/python -m benchmarks.run

clean: ## Remove .venv, caches and build products; outputs/ stays
	rm -rf $(VENV) $(BERGSON) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "twinlens needs Python 3.11 or newer, and '$(PYTHON)' is not: make PYTHON=python3.12 …" >&2; exit 2; }
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# Order-only: what is installed does not depend on the time stamp of the interpreter.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing twinlens and its development tools into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	@echo "Installing what the benchmarks compare with into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
# kronfluence declares torchvision and imports nothing of it. A build for another torch than the one here would keep
# transformers from being imported at all.
	@$(BIN)/python -c 'import torchvision' 2>/dev/null || $(BIN)/python -m pip uninstall -q -y torchvision
	@touch $@

$(BERGSON)/.installed: constraints.txt
	@echo "Installing bergson into $(BERGSON), an environment of its own"
	@$(PYTHON) -m venv $(BERGSON)
	@$(BERGSON)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt 'bergson==2.5.1'
# Declared, and nothing of them is imported; a build for another torch would keep transformers from being imported.
	@$(BERGSON)/bin/python -m pip uninstall -q -y torchvision torchaudio
	@touch $@
