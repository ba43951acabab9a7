# Two commands matter: `make quickstart` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: quickstart test check bench clean
.DEFAULT_GOAL := quickstart

quickstart: $(STAMP)
	$(BIN)/cohort train recipes/quickstart.toml --resume

test: $(STAMP)
	$(BIN)/pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Cohort against TRL, each in its own environment, in turns.
bench: $(STAMP) .venv-trl/.installed
	$(BIN)/python bench/vs_trl.py --trl .venv-trl/bin/python

.venv-trl/.installed:
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv-trl/bin/pip install --quiet --disable-pip-version-check -c constraints.txt trl==1.16.0
	touch $@

# torch goes in first and alone: asked for through another package's range, pip would take the CUDA build.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Cohort needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .venv-trl runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
